//! A stub of `@connections` with configurable latency, refusals, and failures. It records its
//! responses.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// The behavior of the stub. Probabilities are from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behavior {
    pub latency: Duration,
    /// The share of stale connections.
    pub gone: f64,
    /// The share of throttled attempts; the next fields are shares of attempts, too.
    pub throttled: f64,
    pub failed: f64,
    pub forbidden: f64,
    pub stalled: f64,
    pub seed: u64,
    /// Whether to skip recording responses, which takes memory for every connection.
    pub forgets: bool,
}

/// The status of an attempt without a response.
pub const STALLED: u16 = 0;

/// The statuses that each connection's pushes received.
pub type Log = Arc<Mutex<HashMap<String, Vec<u16>>>>;

impl Behavior {
    /// Returns the status for this attempt, counted from 0.
    pub fn answer(&self, id: &str, attempt: usize) -> u16 {
        let draw = |what: &str, attempt: usize| {
            let mut hasher = DefaultHasher::new();
            (self.seed, what, id, attempt).hash(&mut hasher);
            (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
        };
        if draw("gone", 0) < self.gone {
            return 410;
        }
        let mut draw = draw("attempt", attempt);
        for (probability, status) in
            [(self.throttled, 429), (self.failed, 500), (self.forbidden, 403), (self.stalled, STALLED)]
        {
            if draw < probability {
                return status;
            }
            draw -= probability;
        }
        200
    }

    pub fn log(&self, log: &Log, id: &str) -> u16 {
        if self.forgets {
            return self.answer(id, 0);
        }
        let mut log = log.lock().unwrap();
        let answers = log.entry(id.to_owned()).or_default();
        let status = self.answer(id, answers.len());
        answers.push(status);
        status
    }
}

/// A running stub, which ends with its runtime.
pub struct Stub {
    pub address: SocketAddr,
    pub log: Log,
    /// How many requests came over HTTP/2.
    pub over_http_2: Arc<AtomicUsize>,
}

/// How the stub is reached: with TLS and a server configuration, over HTTP/1.1 or HTTP/2.
pub type Tls = Option<tokio_rustls::TlsAcceptor>;

impl Stub {
    pub async fn start(behavior: Behavior, tls: Tls) -> Self {
        Self::start_with_streams(behavior, tls, 128).await
    }

    /// Starts a stub with this many concurrent streams per HTTP/2 connection; API Gateway allows 128.
    pub async fn start_with_streams(behavior: Behavior, tls: Tls, streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stub = Self { address: listener.local_addr().unwrap(), log: Log::default(), over_http_2: Arc::default() };
        let (shared, over_http_2) = (Arc::clone(&stub.log), Arc::clone(&stub.over_http_2));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (log, over_http_2, tls) = (Arc::clone(&shared), Arc::clone(&over_http_2), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, None, streams, behavior, log).await,
                        Some(tls) => {
                            // A client that does not trust the certificate disconnects.
                            if let Ok(stream) = tls.accept(stream).await {
                                let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                                serve(stream, is_h2.then_some(over_http_2), streams, behavior, log).await;
                            }
                        }
                    }
                });
            }
        });
        stub
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http_2: Option<Arc<AtomicUsize>>,
    streams: u32,
    behavior: Behavior,
    log: Log,
) {
    let is_http_2 = http_2.is_some();
    let service = service_fn(move |request: Request<Incoming>| {
        if let Some(count) = &http_2 {
            count.fetch_add(1, Ordering::SeqCst);
        }
        let log = Arc::clone(&log);
        async move { Ok::<_, Infallible>(answer(request, behavior, &log).await) }
    });
    let stream = TokioIo::new(stream);
    let _ = match is_http_2 {
        true => {
            let mut http_2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http_2.max_concurrent_streams(streams).serve_connection(stream, service).await
        }
        false => hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await,
    };
}

async fn answer(request: Request<Incoming>, behavior: Behavior, log: &Log) -> Response<Full<Bytes>> {
    let id = request.uri().path().rsplit('/').next().unwrap_or_default().replace("%3D", "=");
    let is_ping = id == "ping";
    let _ = request.into_body().collect().await;
    if !behavior.latency.is_zero() {
        tokio::time::sleep(behavior.latency).await;
    }
    let mut response = Response::new(Full::default());
    if is_ping {
        return response;
    }
    let status = behavior.log(log, &id);
    if status == STALLED {
        std::future::pending::<()>().await;
    }
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let error_type = match status {
        403 => "ForbiddenException",
        410 => "GoneException",
        429 => "LimitExceededException",
        _ => "",
    };
    if !error_type.is_empty() {
        response.headers_mut().insert("x-amzn-errortype", error_type.parse().unwrap());
    }
    response
}

/// Returns the `number`th of any number of connection ids.
pub fn connection_id(number: usize) -> lambda_websocket::event::ConnectionId {
    format!("{number:013}Aa=").parse().unwrap()
}
