//! Pushes over `aws-sdk-apigatewaymanagement`.

mod http;

use std::fmt;
use std::time::{Duration, SystemTime};

use ::http::StatusCode;
use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_apigatewaymanagement::config::Config;
use aws_sdk_apigatewaymanagement::config::retry::RetryConfig;
use aws_sdk_apigatewaymanagement::config::timeout::TimeoutConfig;
use aws_sdk_apigatewaymanagement::error::SdkError;
use aws_sdk_apigatewaymanagement::{Client, config};
use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::{Blob, DateTime};
use base64::Engine as _;

use self::http::Replaceable;
use super::roots::{self, UntrustedRoot};
use super::{ConnectionInfo, Endpoint, InvalidEndpoint, Payload, Push, PushError};
use crate::event::{ConnectionId, Region};

/// A transport over the AWS SDK's client.
///
/// The SDK's own retries are disabled, because they stop after about a hundred per process and
/// never retry a 429 without a body. The connect timeout is 3 seconds. TLS is rustls on ring, which
/// trusts the system's certificates. A connection on which an attempt timed out is not used again.
#[derive(Clone)]
pub struct Sdk {
    client: Client,
    endpoint: Endpoint,
}

impl Sdk {
    /// Creates a transport to an endpoint, with credentials and region of the environment.
    ///
    /// The credential sources are those of the AWS SDK: environment, profile, web identity,
    /// container, instance. The feature `sso` adds IAM Identity Center and credential processes,
    /// which profiles can name. The region of the endpoint takes precedence.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::NoRegion`] when neither the endpoint nor the environment names a region.
    pub async fn new(endpoint: &Endpoint) -> Result<Self, InvalidEndpoint> {
        let http = Replaceable::new(endpoint.as_str(), TlsContext::default());
        let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
        let loader = match endpoint.region() {
            Some(region) => loader.region(config::Region::new(region.to_string())),
            None => loader,
        };
        Self::build(&loader.load().await, http, endpoint)
    }

    /// Creates a transport to an endpoint, with credentials and region of a loaded configuration.
    ///
    /// Use it for an assumed role, for a custom credentials provider, and to share cached
    /// credentials with other SDK clients. The region of the endpoint takes precedence. HTTP
    /// client, timeouts, and retries are those of this crate; for a custom HTTP client use
    /// [`with_http_client`](Self::with_http_client).
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::NoRegion`] when neither the endpoint nor the configuration names a
    /// region.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use lambda_websocket::{Pusher, push::{Endpoint, Sdk}};
    /// # async fn pusher() -> Result<Pusher, lambda_websocket::push::InvalidEndpoint> {
    /// let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    /// Ok(Pusher::new(Sdk::from_config(&config, &Endpoint::from_env()?)?))
    /// # }
    /// ```
    pub fn from_config(config: &SdkConfig, endpoint: &Endpoint) -> Result<Self, InvalidEndpoint> {
        let http = Replaceable::new(endpoint.as_str(), TlsContext::default());
        let config = match endpoint.region() {
            Some(region) => config.to_builder().region(config::Region::new(region.to_string())).build(),
            None => config.clone(),
        };
        Self::build(&config, http, endpoint)
    }

    fn build(shared: &SdkConfig, http: Replaceable, endpoint: &Endpoint) -> Result<Self, InvalidEndpoint> {
        if shared.region().is_none() {
            return Err(InvalidEndpoint::NoRegion { url: endpoint.to_string() });
        }
        Ok(Self::from_builder(config::Builder::from(shared), http, endpoint))
    }

    /// Creates a transport to an endpoint, with static credentials.
    ///
    /// Use it for a local gateway or an emulator, which accept any credentials. On AWS use
    /// [`new`](Self::new).
    pub fn with_static_credentials(
        endpoint: &Endpoint,
        region: &Region,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
    ) -> Self {
        let credentials = Credentials::new(access_key_id, secret_access_key, None, None, "static");
        let builder = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(credentials)
            .region(config::Region::new(region.to_string()));
        Self::from_builder(builder, Replaceable::new(endpoint.as_str(), TlsContext::default()), endpoint)
    }

    /// Also trusts this root certificate in DER form, such as an emulator's or a proxy's.
    ///
    /// It replaces the HTTP clients of [`with_http_client`](Self::with_http_client), which have to
    /// trust the certificate themselves.
    ///
    /// # Errors
    ///
    /// [`UntrustedRoot`] when the bytes are not a certificate.
    pub fn with_root_certificate(mut self, der: impl Into<Vec<u8>>) -> Result<Self, UntrustedRoot> {
        let der = der.into();
        let text = base64::engine::general_purpose::STANDARD.encode(&der);
        // The SDK would panic.
        roots::add(&mut rustls::RootCertStore::empty(), der)?;
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        let trusted = TrustStore::default().with_pem_certificate(pem.into_bytes());
        let tls = TlsContext::builder().with_trust_store(trusted).build();
        let http = Replaceable::new(self.endpoint.as_str(), tls.map_err(UntrustedRoot::new)?);
        self.client = Client::from_conf(self.client.config().to_builder().http_client(http).build());
        Ok(self)
    }

    /// Pushes through HTTP clients that a function creates, such as those for a proxy.
    ///
    /// The function is called at once, and again whenever an HTTP/2 connection did not respond in
    /// time, because the SDK's clients have no other way to stop using it. If the function returns
    /// clones of one client, that client keeps such a connection.
    ///
    /// The clients bring their own certificates:
    /// [`with_root_certificate`](Self::with_root_certificate) would replace them.
    ///
    /// # Examples
    ///
    /// Through the proxy that `HTTPS_PROXY` and `NO_PROXY` configure:
    ///
    /// ```no_run
    /// use aws_smithy_http_client::proxy::ProxyConfig;
    /// use aws_smithy_http_client::tls::Provider;
    /// use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
    /// use aws_smithy_http_client::{Builder, Connector};
    /// use lambda_websocket::Pusher;
    /// use lambda_websocket::push::{Endpoint, InvalidEndpoint, Sdk};
    ///
    /// # async fn pusher() -> Result<Pusher, InvalidEndpoint> {
    /// let sdk = Sdk::new(&Endpoint::from_env()?).await?.with_http_client(|| {
    ///     Builder::new().build_with_connector_fn(|settings, components| {
    ///         let connector =
    ///             Connector::builder().proxy_config(ProxyConfig::from_env());
    ///         let connector =
    ///             connector.tls_provider(Provider::Rustls(CryptoMode::Ring));
    ///         connector
    ///             .connector_settings(settings.cloned().unwrap_or_default())
    ///             .build()
    ///     })
    /// });
    /// # Ok(Pusher::new(sdk))
    /// # }
    /// ```
    #[must_use]
    pub fn with_http_client(mut self, make: impl Fn() -> SharedHttpClient + Send + Sync + 'static) -> Self {
        let http = Replaceable::of(self.endpoint.as_str(), make);
        self.client = Client::from_conf(self.client.config().to_builder().http_client(http).build());
        self
    }

    fn from_builder(builder: config::Builder, http: Replaceable, endpoint: &Endpoint) -> Self {
        let config = builder
            .endpoint_url(endpoint.as_str())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(Duration::from_secs(3)).build())
            .sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new())
            .build();
        Self { client: Client::from_conf(config), endpoint: endpoint.clone() }
    }
}

#[async_trait]
impl Push for Sdk {
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        let size = payload.bytes().len();
        let request = self
            .client
            .post_to_connection()
            .connection_id(connection_id.as_str())
            .data(Blob::new(payload.bytes().clone()));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(meaning(connection_id, size, error)),
        }
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        let answer = self
            .client
            .get_connection()
            .connection_id(connection_id.as_str())
            .send()
            .await
            .map_err(|error| meaning(connection_id, 0, error))?;
        let time = |time: Option<DateTime>| time.and_then(|time| SystemTime::try_from(time).ok());
        let identity = answer.identity();
        let connected_at = time(answer.connected_at).unwrap_or(SystemTime::UNIX_EPOCH);
        let last_active_at = time(answer.last_active_at).unwrap_or(connected_at);
        Ok(ConnectionInfo::new(connected_at, last_active_at).with_client(
            identity.and_then(|identity| identity.source_ip()?.parse().ok()),
            identity.and_then(|identity| identity.user_agent()).filter(|agent| !agent.is_empty()).map(str::to_owned),
        ))
    }

    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        match self.client.delete_connection().connection_id(connection_id.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(meaning(connection_id, 0, error)),
        }
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    /// Requests `/ping`, which API Gateway reserves for itself; any response will do.
    async fn warm_up(&self) -> Result<(), PushError> {
        let any = ConnectionId::new("AAAAAAAAAAAAAAA=")
            .map_err(|error| PushError::Unreachable { source: Box::new(error) })?;
        let url = self.endpoint.as_str();
        let host =
            url.find("://").and_then(|at| url.get(at.saturating_add(3)..)?.find('/')?.checked_add(at)?.checked_add(3));
        let ping = format!("{}/ping", host.and_then(|end| url.get(..end)).unwrap_or(url));
        let request =
            self.client.get_connection().connection_id(any.as_str()).customize().mutate_request(move |request| {
                // It is a valid URL, because the endpoint is.
                let _ = request.set_uri(ping.as_str());
            });
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.raw_response().is_some() => Ok(()),
            Err(error) => Err(meaning(&any, 0, error)),
        }
    }
}

/// Classifies the raw response, because the SDK leaves a 410 or a 429 without a body untyped.
fn meaning<E>(connection_id: &ConnectionId, size: usize, error: SdkError<E, HttpResponse>) -> PushError
where
    E: std::error::Error + Send + Sync + 'static,
{
    if let Some(answer) = error.raw_response()
        && let Ok(status) = StatusCode::from_u16(answer.status().as_u16())
    {
        let error_type = answer.headers().get("x-amzn-errortype");
        let body = answer.body().bytes().unwrap_or_default();
        return match PushError::from_response(connection_id, size, status, error_type, body) {
            Some(meaning) => meaning,
            // A success that the SDK failed to parse.
            None => PushError::Unexpected { status, source: Box::new(error) },
        };
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = next {
        if cause.is::<CredentialsError>() {
            return PushError::Credentials { source: Box::new(error) };
        }
        next = cause.source();
    }
    PushError::Unreachable { source: Box::new(error) }
}

/// Leaves out the client, which holds credentials.
impl fmt::Debug for Sdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sdk").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}
