//! The DynamoDB client shared by all tables of this crate.

use std::time::Duration;

use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::{TimeoutConfig, TimeoutConfigBuilder};
#[cfg(any(feature = "rate-limit", feature = "tickets", feature = "worker"))]
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
#[cfg(any(feature = "rate-limit", feature = "tickets", feature = "worker"))]
use aws_sdk_dynamodb::types::BillingMode;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, KeySchemaElement, KeyType, ScalarAttributeType, TimeToLiveSpecification,
};
use aws_sdk_dynamodb::{Client, config};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Which side retries failed calls.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Retries {
    /// The SDK, with three attempts.
    #[cfg(any(feature = "rate-limit", feature = "tickets", feature = "worker"))]
    Sdk,
    /// The caller.
    Caller,
}

/// Creates a client with the credentials, region, and endpoint of the environment.
pub(crate) async fn client(retries: Retries) -> Client {
    from_config(&loader().load().await, retries)
}

/// Creates a client for an emulator at this URL, which accepts any credentials.
pub(crate) async fn with_endpoint_url(url: impl Into<String>, retries: Retries) -> Client {
    let credentials = aws_credential_types::Credentials::new("any", "any", None, None, "emulated");
    let loader = loader().endpoint_url(url).region("us-east-1").credentials_provider(credentials);
    from_config(&loader.load().await, retries)
}

/// Creates a client from a configuration, with defaults for missing settings.
pub(crate) fn from_config(shared: &SdkConfig, retries: Retries) -> Client {
    let mut config = config::Builder::from(shared);
    // The SDK has no default attempt timeout.
    let timeouts = shared.timeout_config().map(TimeoutConfig::to_builder).unwrap_or_default();
    config.set_timeout_config(Some(timeouts.take_unset_from(self::timeouts()).build()));
    if shared.http_client().is_none() {
        config.set_http_client(Some(http_client()));
    }
    if shared.behavior_version().is_none() {
        config.set_behavior_version(Some(BehaviorVersion::latest()));
    }
    Client::from_conf(match retries {
        #[cfg(any(feature = "rate-limit", feature = "tickets", feature = "worker"))]
        Retries::Sdk => config.build(),
        Retries::Caller => config.retry_config(RetryConfig::disabled()).build(),
    })
}

fn loader() -> ConfigLoader {
    // Requests for credentials use this HTTP client as well.
    aws_config::defaults(BehaviorVersion::latest()).http_client(http_client())
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https()
}

fn timeouts() -> TimeoutConfigBuilder {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(5))
        .operation_timeout(Duration::from_secs(15))
}

/// Defines a string attribute that is a key or a part of one.
pub(crate) fn text_attribute(name: &str) -> Result<AttributeDefinition, BoxError> {
    Ok(AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()?)
}

/// Defines a partition key or a sort key.
pub(crate) fn key(name: &str, key_type: KeyType) -> Result<KeySchemaElement, BoxError> {
    Ok(KeySchemaElement::builder().attribute_name(name).key_type(key_type).build()?)
}

/// Creates a table with this partition key and TTL attribute, unless it exists.
#[cfg(any(feature = "rate-limit", feature = "tickets", feature = "worker"))]
pub(crate) async fn create_store(client: &Client, table: &str, key: &str, expiry: &str) -> Result<(), BoxError> {
    let create = client.create_table().table_name(table).attribute_definitions(text_attribute(key)?);
    let create = create.key_schema(self::key(key, KeyType::Hash)?).billing_mode(BillingMode::PayPerRequest);
    match create.send().await {
        Ok(_) => let_expire(client, table, expiry).await,
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Enables TTL on this attribute.
pub(crate) async fn let_expire(client: &Client, table: &str, attribute: &str) -> Result<(), BoxError> {
    let expiry = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(true).build()?;
    client.update_time_to_live().table_name(table).time_to_live_specification(expiry).send().await?;
    Ok(())
}
