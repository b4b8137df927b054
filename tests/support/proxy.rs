//! A proxy between a client and a server that counts requests and injects faults.

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

/// What the proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Forwards it, and returns its response.
    Passes,
    /// Does not forward it: the sender was killed before.
    DiesBefore,
    /// Forwards it, and drops its response: the sender was killed after.
    DiesAfter,
    /// Forwards it, and breaks the connection before the response.
    BreaksAfter,
    /// Responds that DynamoDB is throttling.
    Throttled,
    /// Responds that DynamoDB left some items of a batch unprocessed.
    Unprocessed,
    /// Responds that DynamoDB failed.
    Fails,
}

type Plan = dyn Fn(usize, &str) -> Fate + Send + Sync;

struct State {
    plan: Arc<Plan>,
    /// The number of requests since the plan was set.
    count: usize,
    /// By operation: the number of requests, and the capacity that DynamoDB reports for them.
    consumed: BTreeMap<String, (usize, f64)>,
}

/// A running proxy, which ends with its runtime.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// How many senders have been killed.
    deaths: watch::Sender<usize>,
}

impl Proxy {
    /// Starts a proxy to the DynamoDB at this address.
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
                    // One upstream connection for each client connection.
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

    /// Sets what happens to each request from now on, by its number from 0 and its operation.
    pub fn plan(&self, plan: impl Fn(usize, &str) -> Fate + Send + Sync + 'static) {
        let mut state = self.state.lock().unwrap();
        state.plan = Arc::new(plan);
        state.count = 0;
        state.consumed.clear();
        self.deaths.send_replace(0);
    }

    /// Returns requests and capacity units by operation, since the plan was set.
    pub fn consumed(&self) -> BTreeMap<String, (usize, f64)> {
        self.state.lock().unwrap().consumed.clone()
    }

    /// Waits until the sender of a request has been killed.
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
        // No signature is verified here, so the request may be changed.
        body["ReturnConsumedCapacity"] = json!("TOTAL");
        let body = serde_json::to_vec(&body).unwrap();
        let mut request = Request::post("/").header("host", "dynamodb").header("content-length", body.len());
        for name in ["x-amz-target", "content-type", "authorization", "x-amz-date"] {
            request = request.header(name, &parts.headers[name]);
        }
        let response = {
            let mut sender = sender.lock().await;
            // A server may close an idle connection; the client retries.
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

/// The connection is closed without a response.
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
