//! A function as a process: its own binary, which the gateway starts and serves the Lambda Runtime API.
//!
//! See [the Runtime API](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::FunctionError;
use super::endpoint::reported;
use crate::event::Invocation;

/// Lambda's limit on the answer of a synchronous invocation.
const LARGEST_ANSWER: usize = 6 * 1024 * 1024;
/// How many invocations wait for an instance, before the next one fails as it does on AWS when it throttles.
const QUEUE: usize = 1024;
/// How long a process that died at once is left alone.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// A function as a process: a `provided` bootstrap in any language, or any program that speaks the Lambda Runtime API.
///
/// The process is started when it is first needed, restarted when it dies, and ends with the gateway. It inherits the
/// environment of this process. What it prints is logged with the function's name.
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::local::{Function, Gateway, Process};
///
/// # async fn start() -> Result<Gateway, Box<dyn std::error::Error>> {
/// let on_connect = Process::new("on-connect", "target/debug/examples/on_connect").env("RUST_LOG", "info");
/// Ok(Gateway::builder("dev").function(["$connect"], Function::process(on_connect)).start().await?)
/// # }
/// ```
#[derive(Clone)]
pub struct Process {
    name: String,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    instances: usize,
}

impl Process {
    /// The function of this name, which is this program.
    pub fn new(name: impl Into<String>, program: impl Into<OsString>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            instances: 1,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable of the environment, beside those that Lambda sets.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts up to this many processes when invocations wait; it is 1 unless set, and at least 1.
    ///
    /// Each handles one invocation at a time, as an execution environment of Lambda does.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances.max(1);
        self
    }

    fn spawn(&self, runtime_api: &str) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
            .env("AWS_LAMBDA_FUNCTION_NAME", &self.name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("_HANDLER", "bootstrap")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Leaves out arguments and environment, which may hold keys.
impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("instances", &self.instances)
            .finish_non_exhaustive()
    }
}

/// The instances of one function, and the invocations that wait for them.
pub(super) struct Pool {
    process: Arc<Process>,
    jobs: mpsc::Sender<Job>,
    waiting: Waiting,
    count: Mutex<Count>,
    /// Dropped with the pool, which ends the instances.
    alive: watch::Sender<()>,
}

type Waiting = Arc<tokio::sync::Mutex<mpsc::Receiver<Job>>>;

#[derive(Default)]
struct Count {
    instances: usize,
    /// Invocations that wait or run.
    invocations: usize,
}

struct Job {
    invocation: Invocation,
    payload: Vec<u8>,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Vec<u8>, FunctionError>>;

impl Pool {
    pub(super) fn new(process: Process) -> Self {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        Self {
            process: Arc::new(process),
            jobs,
            waiting: Arc::new(tokio::sync::Mutex::new(waiting)),
            count: Mutex::default(),
            alive: watch::Sender::new(()),
        }
    }

    pub(super) async fn invoke(&self, invocation: Invocation, payload: Vec<u8>) -> Result<Vec<u8>, FunctionError> {
        let (reply, answer) = oneshot::channel();
        if self.jobs.try_send(Job { invocation, payload, reply }).is_err() {
            return Err(FunctionError::new("TooManyRequestsException", "too many invocations wait for the function"));
        }
        let _counted = Counted::new(self);
        let answer = answer.await;
        answer.unwrap_or_else(|_| Err(FunctionError::new("Runtime.ExitError", "the function's process ended")))
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An invocation that waits or runs. One more than there are instances starts another instance.
struct Counted<'a>(&'a Pool);

impl<'a> Counted<'a> {
    fn new(pool: &'a Pool) -> Self {
        let mut count = pool.count();
        count.invocations = count.invocations.saturating_add(1);
        if count.invocations > count.instances && count.instances < pool.process.instances {
            count.instances = count.instances.saturating_add(1);
            let instance = Instance { waiting: Arc::clone(&pool.waiting), current: Arc::default() };
            tokio::spawn(keep_running(Arc::clone(&pool.process), instance, pool.alive.subscribe()));
        }
        Self(pool)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut count = self.0.count();
        count.invocations = count.invocations.saturating_sub(1);
    }
}

/// One process and what it works on.
#[derive(Clone)]
struct Instance {
    waiting: Waiting,
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    invocation: Option<(String, Reply)>,
    /// Whether the process has asked for an invocation, so that its start was a success.
    has_started: bool,
    init_error: Option<FunctionError>,
}

/// Starts the process, serves it, and starts it again when it dies.
async fn keep_running(process: Arc<Process>, instance: Instance, mut alive: watch::Receiver<()>) {
    loop {
        let died = tokio::select! {
            died = run_once(&process, &instance) => died,
            // Only the end of the pool changes this.
            _ = alive.changed() => return,
        };
        tracing::warn!(function = %process.name, error = %died, "the function's process ended");
        let Current { invocation, has_started, init_error } = std::mem::take(&mut *instance.current());
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

    async fn next(&self) -> Response<Full<Bytes>> {
        self.current().has_started = true;
        let Some(Job { invocation, payload, reply }) = self.waiting.lock().await.recv().await else {
            return status(StatusCode::GONE);
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
        self.current().invocation = Some((invocation.request_id, reply));
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
