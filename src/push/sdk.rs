//! Pushing over `aws-sdk-apigatewaymanagement`.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_apigatewaymanagement::config::retry::RetryConfig;
use aws_sdk_apigatewaymanagement::config::timeout::TimeoutConfig;
use aws_sdk_apigatewaymanagement::config::{Config, SharedHttpClient};
use aws_sdk_apigatewaymanagement::error::SdkError;
use aws_sdk_apigatewaymanagement::{Client, config};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::{Blob, DateTime};
use http::StatusCode;

use super::{ConnectionInfo, Endpoint, InvalidEndpoint, Payload, Push, PushError};
use crate::event::{ConnectionId, Region};

/// The transport over the AWS SDK's client.
///
/// The SDK's own retries are off, since they stop after about a hundred in a process and never retry a 429 without a
/// body. It has 3 seconds to connect. TLS is rustls on ring.
#[derive(Clone)]
pub struct Sdk {
    client: Client,
    endpoint: Endpoint,
}

impl Sdk {
    /// A transport to this endpoint, with what the environment says of credentials and region.
    ///
    /// The sources are those of every AWS SDK: environment, profile, web identity, container, instance. The region is
    /// that of the endpoint where it names one.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::NoRegion`] when neither the endpoint nor the environment names a region.
    pub async fn new(endpoint: &Endpoint) -> Result<Self, InvalidEndpoint> {
        let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
        let loader = match endpoint.region() {
            Some(region) => loader.region(config::Region::new(region.to_string())),
            None => loader,
        };
        let shared = loader.load().await;
        if shared.region().is_none() {
            return Err(InvalidEndpoint::NoRegion { url: endpoint.to_string() });
        }
        Ok(Self::from_builder(config::Builder::from(&shared), endpoint))
    }

    /// A transport to this endpoint, with credentials that do not change.
    ///
    /// For a local gateway or an emulator, which take any; on AWS use [`new`](Self::new).
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
            .http_client(http_client())
            .region(config::Region::new(region.to_string()));
        Self::from_builder(builder, endpoint)
    }

    fn from_builder(builder: config::Builder, endpoint: &Endpoint) -> Self {
        let config = builder
            .endpoint_url(endpoint.as_str())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(Duration::from_secs(3)).build())
            .sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new())
            .build();
        Self { client: Client::from_conf(config), endpoint: endpoint.clone() }
    }
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https()
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
}

/// Classifies by the raw answer: the SDK gives a 410 or a 429 without a body no type.
fn meaning<E>(connection_id: &ConnectionId, size: usize, error: SdkError<E, HttpResponse>) -> PushError
where
    E: std::error::Error + Send + Sync + 'static,
{
    if let Some(answer) = error.raw_response()
        && let Ok(status) = StatusCode::from_u16(answer.status().as_u16())
    {
        let error_type = answer.headers().get("x-amzn-errortype");
        let body = answer.body().bytes().unwrap_or_default();
        return match PushError::of_answer(connection_id, size, status, error_type, body) {
            Some(meaning) => meaning,
            // A success that the SDK could not read.
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
