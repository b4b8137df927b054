//! Stands between a client and a server, counts what passes, and does to requests what it is told to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on, and its answer back.
    Passes,
    /// It is not passed on, nor answered: whoever made it was killed before.
    DiesBefore,
    /// It is passed on, and its answer is lost: whoever made it was killed after.
    DiesAfter,
    /// It is passed on, and the connection breaks before the answer.
    BreaksAfter,
    /// DynamoDB has too much to do.
    Throttled,
    /// DynamoDB has left some of a batch undone.
    Unprocessed,
    /// DynamoDB failed.
    Fails,
}

type Plan = dyn Fn(usize, &str) -> Fate + Send + Sync;

struct State {
    plan: Arc<Plan>,
    /// How many requests have come since the plan was made.
    count: usize,
    /// By operation: requests, and what DynamoDB says that they consume.
    consumed: BTreeMap<String, (usize, f64)>,
}

/// A running proxy, which ends with its runtime.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// How many requests have died.
    deaths: watch::Sender<usize>,
}

impl Proxy {
    /// In front of the DynamoDB at this address.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State { plan: Arc::new(|_, _| Fate::Passes), count: 0, consumed: BTreeMap::new() };
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(state)),
            deaths: watch::Sender::new(0),
        };
        let running = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = running.clone();
                tokio::spawn(async move {
                    client.set_nodelay(true).unwrap();
                    // A connection upstream for each of the client's.
                    let server = TcpStream::connect(upstream).await.unwrap();
                    server.set_nodelay(true).unwrap();
                    let (sender, connection) =
                        hyper::client::conn::http1::handshake(TokioIo::new(server)).await.unwrap();
                    tokio::spawn(connection);
                    let sender = Arc::new(tokio::sync::Mutex::new(sender));
                    let service = service_fn(move |request| {
                        let (proxy, sender) = (proxy.clone(), Arc::clone(&sender));
                        async move { proxy.pass(request, &sender).await.ok_or(Broken) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(client), service)
                        .await;
                });
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this is done to each request, by its number from 0 and its operation.
    pub fn plan(&self, plan: impl Fn(usize, &str) -> Fate + Send + Sync + 'static) {
        let mut state = self.state.lock().unwrap();
        state.plan = Arc::new(plan);
        state.count = 0;
        state.consumed.clear();
        self.deaths.send_replace(0);
    }

    /// By operation, since the plan was made: requests and capacity units.
    pub fn consumed(&self) -> BTreeMap<String, (usize, f64)> {
        self.state.lock().unwrap().consumed.clone()
    }

    /// Comes when a request has died.
    pub async fn death(&self) {
        let mut deaths = self.deaths.subscribe();
        deaths.wait_for(|deaths| *deaths > 0).await.unwrap();
    }

    async fn pass(
        &self,
        request: Request<Incoming>,
        sender: &tokio::sync::Mutex<hyper::client::conn::http1::SendRequest<Full<Bytes>>>,
    ) -> Option<Response<Full<Bytes>>> {
        let operation = request.headers()["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
        let (parts, body) = request.into_parts();
        let mut body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        let fate = {
            let mut state = self.state.lock().unwrap();
            state.count += 1;
            (state.plan)(state.count - 1, &operation)
        };
        match fate {
            Fate::DiesBefore => {
                self.deaths.send_modify(|deaths| *deaths += 1);
                std::future::pending::<()>().await;
            }
            Fate::Throttled => return Some(refusal(StatusCode::BAD_REQUEST, "ThrottlingException")),
            Fate::Fails => return Some(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")),
            Fate::Unprocessed => {
                return Some(answer(&json!({"Responses": {}, "UnprocessedKeys": body["RequestItems"]})));
            }
            Fate::Passes | Fate::DiesAfter | Fate::BreaksAfter => {}
        }
        // No signature is checked here, so that the question may be changed.
        body["ReturnConsumedCapacity"] = json!("TOTAL");
        let body = serde_json::to_vec(&body).unwrap();
        let mut request = Request::post("/").header("host", "dynamodb").header("content-length", body.len());
        for name in ["x-amz-target", "content-type", "authorization", "x-amz-date"] {
            request = request.header(name, &parts.headers[name]);
        }
        let response = {
            let mut sender = sender.lock().await;
            // A server may close what was idle; whoever asks tries again.
            sender.ready().await.ok()?;
            sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.ok()?
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        if parts.status.is_success() {
            let said: Value = serde_json::from_slice(&body).unwrap();
            let units = |consumed: &Value| consumed["CapacityUnits"].as_f64().unwrap_or_default();
            let units = match &said["ConsumedCapacity"] {
                Value::Array(tables) => tables.iter().map(units).sum(),
                table => units(table),
            };
            let mut state = self.state.lock().unwrap();
            let (requests, total) = state.consumed.entry(operation).or_default();
            (*requests, *total) = (*requests + 1, *total + units);
        }
        match fate {
            Fate::DiesAfter => {
                self.deaths.send_modify(|deaths| *deaths += 1);
                std::future::pending().await
            }
            Fate::BreaksAfter => None,
            _ => {
                let mut response = Response::builder().status(parts.status);
                for name in ["content-type", "x-amzn-requestid"] {
                    if let Some(value) = parts.headers.get(name) {
                        response = response.header(name, value);
                    }
                }
                Some(response.body(Full::new(body)).unwrap())
            }
        }
    }
}

/// The connection is broken off.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken off")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

fn answer(json: &Value) -> Response<Full<Bytes>> {
    let body = Full::new(Bytes::from(json.to_string()));
    Response::builder().header("content-type", "application/x-amz-json-1.0").body(body).unwrap()
}

fn refusal(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let mut response = answer(&json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": ""}));
    *response.status_mut() = status;
    response
}
