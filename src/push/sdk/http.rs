//! The SDK's HTTP client, replaced when a connection may be dead.
//!
//! The SDK drops a request that nobody waits for any longer. Over HTTP/2 that closes only its
//! stream, so the next request would use the same dead connection.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;

use crate::push::opening::Opening;

/// Shorter than the time after which API Gateway closes an idle connection.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// A replaceable HTTP client. Clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Replaceable {
    shared: Arc<Shared>,
}

struct Shared {
    make: Box<dyn Fn() -> SharedHttpClient + Send + Sync>,
    /// The client, and the number of clients before it.
    current: RwLock<(u64, SharedHttpClient)>,
    /// `https://` and the host of the endpoint, whose pushes share one HTTP/2 connection. Empty
    /// without TLS.
    origin: String,
    opening: Opening,
}

impl Replaceable {
    /// Creates clients over rustls on ring.
    pub(super) fn new(endpoint: &str, tls: TlsContext) -> Self {
        Self::of(endpoint, move || client(&tls))
    }

    /// Creates clients with this function.
    pub(super) fn of(endpoint: &str, make: impl Fn() -> SharedHttpClient + Send + Sync + 'static) -> Self {
        let origin = match endpoint.split_once("://") {
            Some(("https", rest)) => format!("https://{}/", rest.split('/').next().unwrap_or_default()),
            _ => String::new(),
        };
        let current = RwLock::new((0, make()));
        Self { shared: Arc::new(Shared { make: Box::new(make), current, origin, opening: Opening::default() }) }
    }
}

fn client(tls: &TlsContext) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls.clone())
        .pool_idle_timeout(POOL_IDLE)
        .build_https()
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Shared {
    fn current(&self) -> (u64, SharedHttpClient) {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends further requests over new connections. Requests under way may still complete.
    fn replace(&self, number: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 == number {
            *current = (number.wrapping_add(1), (self.make)());
        }
        self.opening.closed();
    }
}

impl HttpClient for Replaceable {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let (number, client) = self.shared.current();
        let connector = client.http_connector(settings, components);
        SharedHttpConnector::new(Connector { connector, number, shared: Arc::clone(&self.shared) })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.shared.current().1.validate_base_client_config(components, config)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, config: &ConfigBag) -> Result<(), BoxError> {
        self.shared.current().1.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.shared.current().1.connector_metadata()
    }
}

#[derive(Debug)]
struct Connector {
    connector: SharedHttpConnector,
    number: u64,
    shared: Arc<Shared>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // Without TLS there is no HTTP/2, and dropping a request closes its connection.
        if self.shared.origin.is_empty() || !request.uri().starts_with(&self.shared.origin) {
            return self.connector.call(request);
        }
        let mut unanswered = Unanswered { number: self.number, shared: Some(Arc::clone(&self.shared)) };
        let (connector, shared) = (self.connector.clone(), Arc::clone(&self.shared));
        HttpConnectorFuture::new(async move {
            let lead = shared.opening.enter().await;
            let answer = connector.call(request).await;
            // After an error, the pool has already dropped the connection.
            unanswered.answered();
            match (&answer, lead) {
                (Ok(_), Some(lead)) => lead.opened(),
                (Err(_), _) => shared.opening.closed(),
                (Ok(_), None) => {}
            }
            answer
        })
    }
}

/// A request that may be dropped before its response; then its client is replaced.
struct Unanswered {
    number: u64,
    shared: Option<Arc<Shared>>,
}

impl Unanswered {
    fn answered(&mut self) {
        self.shared = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.replace(self.number);
        }
    }
}
