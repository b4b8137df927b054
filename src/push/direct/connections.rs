//! The connections that carry the requests.

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::uri::Scheme;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::proxy::Connector;
use crate::push::PushError;
use crate::push::opening::Opening;
use crate::push::roots::{self, UntrustedRoot};

/// Responses of `@connections` are small.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;
/// Shorter than the time after which API Gateway closes an idle connection.
const POOL_IDLE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The interval and the timeout of HTTP/2 pings while requests are under way.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

type HttpsClient = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// A connection pool for one host. Clones share it.
#[derive(Clone)]
pub(super) struct Connections {
    roots: Arc<RootCertStore>,
    tls: ClientConfig,
    proxies: Arc<Matcher>,
    connector: HttpsConnector<Connector>,
    /// The client, and the number of clients before it.
    current: Arc<Mutex<(u64, Arc<HttpsClient>)>>,
    opening: Opening,
}

impl Connections {
    /// Creates a pool that trusts these roots.
    pub(super) fn new(roots: RootCertStore) -> Result<Self, rustls::Error> {
        Self::build(Arc::new(roots), Arc::new(Matcher::builder().build()))
    }

    /// Returns a new pool that also trusts this root certificate.
    pub(super) fn with_root_certificate(&self, der: Vec<u8>) -> Result<Self, UntrustedRoot> {
        let mut roots = RootCertStore::clone(&self.roots);
        roots::add(&mut roots, der)?;
        Self::build(Arc::new(roots), Arc::clone(&self.proxies)).map_err(UntrustedRoot::new)
    }

    /// Returns a new pool whose connections go through these proxies.
    pub(super) fn with_proxies(&self, proxies: Matcher) -> Self {
        Self::over(Arc::clone(&self.roots), self.tls.clone(), Arc::new(proxies))
    }

    fn build(roots: Arc<RootCertStore>, proxies: Arc<Matcher>) -> Result<Self, rustls::Error> {
        // Named explicitly, because a process with two providers has no default.
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        Ok(Self::over(roots, tls, proxies))
    }

    fn over(roots: Arc<RootCertStore>, tls: ClientConfig, proxies: Arc<Matcher>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // Otherwise Nagle's algorithm delays small HTTP/2 frames.
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Connector { tcp, proxies: Arc::clone(&proxies) });
        let current = Arc::new(Mutex::new((0, client(&connector))));
        Self { roots, tls, proxies, connector, current, opening: Opening::default() }
    }

    /// Returns the same pool, for requests to another host.
    pub(super) fn to_another_host(&self) -> Self {
        Self { opening: Opening::default(), ..self.clone() }
    }

    /// Sends a request and reads the response.
    pub(super) async fn call(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, PushError> {
        // With TLS the endpoint may speak HTTP/2. Without it, dropping a request closes its
        // connection.
        if request.uri().scheme() != Some(&Scheme::HTTPS) {
            return answer(self.current().1.request(request).await).await;
        }
        let lead = self.opening.enter().await;
        let (number, client) = self.current();
        let mut unanswered = Unanswered { number: Some(number), connections: self };
        let response = match lead {
            None => client.request(request).await,
            Some(lead) => {
                let mut captured = capture_connection(&mut request);
                let connecting = Box::pin(async move {
                    captured.wait_for_connection_metadata().await;
                    lead.opened();
                });
                match select(client.request(request), connecting).await {
                    Either::Left((response, _)) => response,
                    Either::Right(((), response)) => response.await,
                }
            }
        };
        let outcome = answer(response).await;
        unanswered.number = None;
        if outcome.is_err() {
            self.opening.closed();
        }
        outcome
    }

    fn current(&self) -> (u64, Arc<HttpsClient>) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends further requests over new connections. Requests under way may still complete.
    fn replace(&self, number: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 == number {
            *current = (number.wrapping_add(1), client(&self.connector));
        }
        self.opening.closed();
    }
}

fn client(connector: &HttpsConnector<Connector>) -> Arc<HttpsClient> {
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector.clone());
    Arc::new(client)
}

async fn answer(response: Result<Response<Incoming>, ClientError>) -> Result<Response<Bytes>, PushError> {
    match response {
        Ok(response) => read(response).await,
        Err(error) if is_untrusted(&error) => Err(PushError::Untrusted { source: Box::new(error) }),
        Err(error) => Err(PushError::Unreachable { source: Box::new(error) }),
    }
}

async fn read(response: Response<Incoming>) -> Result<Response<Bytes>, PushError> {
    let (head, body) = response.into_parts();
    // Without a body there is nothing to wait for.
    let body = match body.is_end_stream() {
        true => Bytes::new(),
        false => Limited::new(body, MAX_RESPONSE_BYTES)
            .collect()
            .await
            .map_err(|source| PushError::Unreachable { source })?
            .to_bytes(),
    };
    Ok(Response::from_parts(head, body))
}

/// A request that may be dropped before its response: its connection may be dead.
///
/// Such a connection is not used again. Over HTTP/2, dropping a request only closes its stream.
struct Unanswered<'a> {
    /// The number of its client, until the response has arrived.
    number: Option<u64>,
    connections: &'a Connections,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.connections.replace(number);
        }
    }
}

/// Returns whether the endpoint's certificate was rejected, which is permanent.
fn is_untrusted(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
            return true;
        }
        // `source` of an I/O error skips its inner error.
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    false
}
