//! One process of a function, and the Runtime API that it is served.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::FunctionError;
use super::super::endpoint::reported;
use super::{Job, Process, Reply, Waiting};

/// Lambda's limit on the answer of a synchronous invocation.
const LARGEST_ANSWER: usize = 6 * 1024 * 1024;
/// How long a process that died at once is left alone.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// One process and what it works on.
#[derive(Clone)]
pub(super) struct Instance {
    waiting: Waiting,
    current: Arc<Mutex<Current>>,
    killed: Arc<Notify>,
}

#[derive(Default)]
struct Current {
    invocation: Option<(String, Reply)>,
    /// Whether the process has asked for an invocation, so that its start was a success.
    has_started: bool,
    is_dying: bool,
    init_error: Option<FunctionError>,
}

/// Starts the process, serves it, and starts it again when it dies.
pub(super) async fn keep_running(process: Arc<Process>, instance: Instance, mut alive: watch::Receiver<()>) {
    loop {
        let died = tokio::select! {
            died = run_once(&process, &instance) => died,
            // Only the end of the pool changes this.
            _ = alive.changed() => return,
        };
        tracing::warn!(function = %process.name, error = %died, "the function's process ended");
        let Current { invocation, has_started, init_error, .. } = std::mem::take(&mut *instance.current());
        let error = init_error.unwrap_or(died);
        let victim = match invocation {
            Some((_, reply)) => Some(reply),
            // A process that cannot start fails the invocation for which it was started.
            None if !has_started => instance.waiting.lock().await.try_recv().ok().map(|job| job.reply),
            None => None,
        };
        if let Some(reply) = victim {
            let _ = reply.send(Err(error));
        }
        sleep(RESTART_DELAY).await;
    }
}

/// Runs the process until it ends.
async fn run_once(process: &Process, instance: &Instance) -> FunctionError {
    // Whoever was to be killed may have died by itself.
    let _ = instance.killed.notified().now_or_never();
    let exit = |text: String| FunctionError::new("Runtime.ExitError", text);
    let listening = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok::<_, io::Error>((listener, address))
    };
    let (listener, mut child) = match listening.await {
        Err(error) => return exit(format!("cannot serve the Runtime API: {error}")),
        Ok((listener, address)) => match process.spawn(&address.to_string()) {
            Err(error) => return exit(format!("cannot start {}: {error}", process.program.display())),
            Ok(child) => (listener, child),
        },
    };
    let outputs = (child.stdout.take(), child.stderr.take());
    let name = &process.name;
    let log = async {
        tokio::join!(
            async {
                if let Some(stdout) = outputs.0 {
                    log_lines(name, stdout).await;
                }
            },
            async {
                if let Some(stderr) = outputs.1 {
                    log_lines(name, stderr).await;
                }
            },
        )
    };
    let ended = async {
        let mut log = pin!(log);
        tokio::select! {
            status = child.wait() => {
                // What it printed last. Children of its own may hold its output open for longer.
                let _ = timeout(RESTART_DELAY, &mut log).await;
                status
            }
            _ = &mut log => child.wait().await,
        }
    };
    let mut connections = JoinSet::new();
    let serve = async {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(serve_runtime_api(stream, instance.clone()))),
                    Err(_) => sleep(RESTART_DELAY).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    };
    let died = tokio::select! {
        status = ended => match status {
            Ok(status) => exit(format!("the process ended with {status}")),
            Err(error) => exit(format!("the process is lost: {error}")),
        },
        () = serve => exit("the Runtime API ended".to_owned()),
        () = instance.killed.notified() => exit("the process was killed".to_owned()),
    };
    // A connection of a dead process must not take an invocation with it.
    connections.shutdown().await;
    died
}

async fn log_lines(function: &str, output: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::info!(target: "lambda_websocket::function", function, "{line}");
    }
}

async fn serve_runtime_api(stream: TcpStream, instance: Instance) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let instance = instance.clone();
        async move { Ok::<_, Infallible>(instance.answer(request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Instance {
    pub(super) fn new(waiting: Waiting) -> Self {
        Self { waiting, current: Arc::default(), killed: Arc::default() }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
        match (&head.method, path.as_slice()) {
            (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => self.next().await,
            (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
                match Limited::new(body, LARGEST_ANSWER).collect().await {
                    Ok(body) => self.finish(id, Ok(body.to_bytes().into())),
                    Err(_) => {
                        let text = format!("the answer has more than {LARGEST_ANSWER} bytes, or it broke off");
                        self.finish(id, Err(FunctionError::new("Function.ResponseSizeTooLarge", text)));
                        status(StatusCode::PAYLOAD_TOO_LARGE)
                    }
                }
            }
            (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "error"]) => {
                self.finish(id, Err(reported_in(body).await))
            }
            (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => {
                let error = reported_in(body).await;
                self.current().init_error = Some(error);
                status(StatusCode::ACCEPTED)
            }
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    /// Ends the process, if it still runs this invocation.
    pub(super) fn kill(&self, request_id: &str) {
        let mut current = self.current();
        if current.invocation.take_if(|(id, _)| id == request_id).is_some() {
            current.is_dying = true;
            self.killed.notify_one();
        }
    }

    async fn next(&self) -> Response<Full<Bytes>> {
        let is_dying = {
            let mut current = self.current();
            current.has_started = true;
            current.is_dying
        };
        if is_dying {
            return pending().await;
        }
        let Job { invocation, payload, reply, runner } = loop {
            match self.waiting.lock().await.recv().await {
                None => return status(StatusCode::GONE),
                // Nobody waits for it any more.
                Some(job) if job.reply.is_closed() => {}
                Some(job) => break job,
            }
        };
        let deadline = invocation.deadline.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (high, low) = (rand::random::<u32>(), rand::random::<u64>());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() & 0xffff_ffff;
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", &invocation.request_id)
            .header("lambda-runtime-deadline-ms", deadline.to_string())
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:local")
            .header("lambda-runtime-trace-id", format!("Root=1-{since:08x}-{high:08x}{low:016x};Sampled=0"))
            .header("content-type", "application/json")
            .body(Full::from(payload));
        let mut current = self.current();
        current.invocation = Some((invocation.request_id, reply));
        let _ = runner.set(self.clone());
        drop(current);
        response.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// Hands the outcome to whoever waits for it. An invocation that this process does not have is refused.
    fn finish(&self, id: &str, outcome: Result<Vec<u8>, FunctionError>) -> Response<Full<Bytes>> {
        let mut current = self.current();
        match current.invocation.take_if(|(request_id, _)| request_id == id) {
            Some((_, reply)) => {
                let _ = reply.send(outcome);
                status(StatusCode::ACCEPTED)
            }
            None => status(StatusCode::BAD_REQUEST),
        }
    }
}

async fn reported_in(body: Incoming) -> FunctionError {
    match Limited::new(body, LARGEST_ANSWER).collect().await {
        Ok(body) => reported(&body.to_bytes()),
        Err(_) => FunctionError::new("Unhandled", "the function's error broke off"),
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
