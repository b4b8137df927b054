//! Many concurrent invocations in one process, as on Lambda Managed Instances.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lambda_websocket::push::Direct;
use lambda_websocket::{Json, Message, Pusher, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Notify, mpsc};

use crate::fixture;

/// How long a push takes, which is most of an invocation's time.
const PUSH: Duration = Duration::from_millis(20);

/// The Lambda Runtime API and `@connections` at one address.
struct Lambda {
    events: Mutex<std::vec::IntoIter<usize>>,
    invocations: usize,
    /// Pushes get their response once this many are pending.
    gate: Barrier,
    state: Mutex<State>,
    done: Notify,
}

#[derive(Default)]
struct State {
    open: HashMap<String, Instant>,
    most_open: usize,
    answers: BTreeMap<String, Value>,
    pushes: BTreeMap<String, String>,
    latencies: Vec<Duration>,
}

/// Returns the deadline of an invocation: each has its own connection, text, and deadline.
fn deadline(number: usize) -> u64 {
    let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 * 3600 + 7200;
    (base + number as u64) * 1000
}

impl Lambda {
    async fn start(at_once: usize, invocations: usize) -> (SocketAddr, Arc<Self>) {
        let events = (0..invocations).collect::<Vec<_>>().into_iter();
        let (gate, done) = (Barrier::new(at_once), Notify::new());
        let lambda = Arc::new(Self { events: Mutex::new(events), invocations, gate, state: Mutex::default(), done });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::clone(&lambda);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let lambda = Arc::clone(&served);
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let service = service_fn(move |request| {
                        let lambda = Arc::clone(&lambda);
                        async move { Ok::<_, Infallible>(lambda.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        (address, lambda)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = percent_decoded(head.uri.path());
        let path: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let body = body.collect().await.unwrap().to_bytes();
        match (&head.method, path.as_slice()) {
            (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => {
                let Some(number) = self.events.lock().unwrap().next() else { return std::future::pending().await };
                let id = format!("invocation-{number}");
                {
                    let mut state = self.state.lock().unwrap();
                    state.open.insert(id.clone(), Instant::now());
                    state.most_open = state.most_open.max(state.open.len());
                }
                let mut event = fixture::json("message");
                event["requestContext"]["connectionId"] = format!("connection-{number}").into();
                event["requestContext"]["requestId"] = format!("request-{number}").into();
                event["requestContext"]["routeKey"] = "work".into();
                event["body"] = json!({"action": "work", "number": number}).to_string().into();
                let response = Response::builder()
                    .header("lambda-runtime-aws-request-id", id)
                    .header("lambda-runtime-deadline-ms", deadline(number).to_string())
                    .header("lambda-runtime-trace-id", format!("Root=1-5759e988-{number:024x};Sampled=0"))
                    .header(
                        "lambda-runtime-invoked-function-arn",
                        "arn:aws:lambda:eu-central-1:123456789012:function:f",
                    );
                response.body(Full::from(event.to_string())).unwrap()
            }
            (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
                let answer: Value = serde_json::from_slice(&body).unwrap();
                let mut state = self.state.lock().unwrap();
                let since = state.open.remove(*id).expect("each invocation is answered once");
                state.latencies.push(since.elapsed());
                state.answers.insert((*id).to_owned(), answer);
                if state.answers.len() == self.invocations {
                    self.done.notify_one();
                }
                accepted()
            }
            (&Method::POST, ["@connections", id]) => {
                let text = String::from_utf8(body.to_vec()).unwrap();
                let old = self.state.lock().unwrap().pushes.insert((*id).to_owned(), text);
                assert_eq!(old, None, "each connection gets one push");
                self.gate.wait().await;
                tokio::time::sleep(PUSH).await;
                accepted()
            }
            (method, path) => panic!("{method} {path:?}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

fn percent_decoded(path: &str) -> String {
    path.replace("%40", "@").replace("%2D", "-")
}

fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("{}"));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// The function that the tests below start as a separate process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is a Lambda function, which other tests start"]
async fn function() {
    #[derive(serde::Deserialize)]
    struct Work {
        number: u64,
    }

    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let pusher = Pusher::new(Direct::from_env().unwrap());
    let router = Router::new().on("work", move |event: Message<Work>| {
        let pusher = pusher.clone();
        async move {
            pusher.send_text(event.connection_id(), format!("to {}", event.body.number)).await?;
            tracing::info!(number = event.body.number, "worked");
            let invocation = event.request_context().invocation().ok_or("there is no invocation")?;
            let deadline = invocation.deadline.duration_since(UNIX_EPOCH)?.as_millis();
            Ok(Json(json!({
                "number": event.body.number,
                "connection": event.connection_id(),
                "invocation": invocation.request_id,
                "deadline": u64::try_from(deadline)?,
            })))
        }
    });
    lambda_websocket::run(router).await.unwrap();
}

/// Runs all invocations in a process with this concurrency. Returns their outcome, its log, and the duration.
async fn run(at_once: usize, invocations: usize) -> (Arc<Lambda>, Vec<String>, Duration) {
    let (address, lambda) = Lambda::start(at_once, invocations).await;
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "runtime::concurrent::function", "--ignored", "--nocapture"])
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "f")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_MAX_CONCURRENCY", at_once.to_string())
        .env("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", format!("http://{address}"))
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let (line_read, mut lines) = mpsc::unbounded_channel();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = stdout.next_line().await {
            let _ = line_read.send(line);
        }
    });
    let started = Instant::now();
    tokio::time::timeout(Duration::from_secs(60), lambda.done.notified()).await.expect("all invocations end");
    let took = started.elapsed();
    let mut log = Vec::new();
    while log.iter().filter(|line: &&String| line.contains("worked")).count() < invocations {
        log.push(lines.recv().await.expect("the log has a line for each"));
    }
    child.kill().await.unwrap();
    (lambda, log, took)
}

async fn mixes_up_nothing(at_once: usize, invocations: usize) {
    let (lambda, log, took) = run(at_once, invocations).await;
    let mut state = lambda.state.lock().unwrap();
    assert_eq!(state.most_open, at_once, "invocations at a time");
    for number in 0..invocations {
        let answer = &state.answers[&format!("invocation-{number}")];
        assert_eq!(answer["statusCode"], 200, "{answer}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        let expected = json!({
            "number": number,
            "connection": format!("connection-{number}"),
            "invocation": format!("invocation-{number}"),
            "deadline": deadline(number),
        });
        assert_eq!(body, expected);
        assert_eq!(state.pushes[&format!("connection-{number}")], format!("to {number}"));
    }
    // Each line of the log is in the span of its own event.
    let mut lines = 0;
    for line in log.iter().filter(|line| line.contains("worked")) {
        let number = line.rsplit("number=").next().unwrap().trim();
        let trace = format!("trace_id=\"5759e988{:024x}\"", number.parse::<u64>().unwrap());
        for field in [format!("request_id=request-{number} "), format!("connection_id=connection-{number} "), trace] {
            assert!(line.contains(&field), "{field} in {line}");
        }
        lines += 1;
    }
    assert_eq!(lines, invocations);
    state.latencies.sort();
    let p99 = state.latencies[invocations * 99 / 100];
    println!("{at_once} at a time: {:.0} invocations/s, p99 {p99:?}", invocations as f64 / took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_concurrent_invocations_are_isolated() {
    mixes_up_nothing(64, 640).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_invocation_runs_at_a_time_by_default() {
    mixes_up_nothing(1, 64).await;
}
