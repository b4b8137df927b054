//! AWS clients that share the application's configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::timeout::TimeoutConfig;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::{Direct, Endpoint, Sdk};
use lambda_websocket::registry::{self, Registry as _};
use lambda_websocket::{Pusher, authorizer::ticket, rate_limit, reply};
use wiremock::matchers::{body_string_contains, method};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// An HTTP client that counts its uses.
#[derive(Debug, Clone)]
struct Counting(SharedHttpClient, Arc<AtomicUsize>);

impl Counting {
    fn new() -> Self {
        let client =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        Self(client, Arc::default())
    }
}

impl HttpClient for Counting {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.http_connector(settings, components)
    }
}

fn config(server: &MockServer) -> SdkConfig {
    let credentials = Credentials::new("AKIDOWN", "secret", Some("session".to_owned()), None, "test");
    SdkConfig::builder()
        .endpoint_url(server.uri())
        .region(aws_config::Region::new("eu-west-3"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// Starts a server that responds to every request, standing in for all AWS services.
async fn server() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200).set_body_string("{}")).mount(&server).await;
    server
}

/// Sends at least one request with each of the types that store data in a table.
async fn use_tables(config: &SdkConfig) {
    registry::DynamoDb::from_config("connections", config).warm_up().await.unwrap();
    reply::DynamoDb::from_config("jobs", config).create_table().await.unwrap();
    ticket::DynamoDb::from_config("tickets", config).create_table().await.unwrap();
    rate_limit::DynamoDb::from_config("buckets", config).create_table().await.unwrap();
}

fn authorization(request: &Request) -> &str {
    request.headers["authorization"].to_str().unwrap()
}

#[tokio::test]
async fn tables_use_the_shared_credentials_endpoint_and_http_client() {
    let server = server().await;
    // With and without the behavior version that `aws_config`'s loader would set.
    for has_version in [true, false] {
        let http = Counting::new();
        let mut config = config(&server).to_builder();
        config.set_http_client(Some(SharedHttpClient::new(http.clone())));
        config.set_behavior_version(has_version.then(BehaviorVersion::latest));
        server.reset().await;
        Mock::given(method("POST")).respond_with(ResponseTemplate::new(200).set_body_string("{}")).mount(&server).await;
        use_tables(&config.build()).await;
        let requests = server.received_requests().await.unwrap();
        for table in ["connections", "jobs", "tickets", "buckets"] {
            let quoted = format!("\"{table}\"");
            assert!(requests.iter().any(|request| String::from_utf8_lossy(&request.body).contains(&quoted)), "{table}");
        }
        for request in &requests {
            let scope = authorization(request).split(['=', ',']).nth(1).unwrap();
            assert!(scope.starts_with("AKIDOWN/") && scope.ends_with("/eu-west-3/dynamodb/aws4_request"), "{scope}");
            assert_eq!(request.headers["x-amz-security-token"], "session");
        }
        assert_eq!(http.1.load(Ordering::SeqCst), requests.len(), "all of them through this client");
    }
}

#[tokio::test]
async fn default_http_client_and_timeouts_are_used() {
    let server = server().await;
    use_tables(&config(&server)).await;
    assert!(server.received_requests().await.unwrap().len() >= 4);
}

#[tokio::test]
async fn configured_timeouts_override_defaults() {
    let server = MockServer::start().await;
    let slow = ResponseTemplate::new(200).set_body_string("{}").set_delay(Duration::from_secs(60));
    Mock::given(method("POST")).respond_with(slow).mount(&server).await;
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(50)).build();
    let config = config(&server).to_builder().timeout_config(timeouts).build();
    let registry = registry::DynamoDb::from_config("connections", &config).with_timeout(Duration::from_secs(2));
    registry.warm_up().await.unwrap_err();
    let attempts = server.received_requests().await.unwrap().len();
    assert!(attempts >= 2, "an attempt was given up after 50 ms, so that there was time for others: {attempts}");
}

#[tokio::test]
async fn assumed_role_signs_table_and_push_requests() {
    let server = MockServer::start().await;
    let assumed = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
        <Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
        <SessionToken>of-the-role</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>\
        </AssumeRoleResult></AssumeRoleResponse>";
    Mock::given(body_string_contains("Action=AssumeRole"))
        .respond_with(ResponseTemplate::new(200).set_body_raw(assumed, "text/xml"))
        .with_priority(1)
        .mount(&server)
        .await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200).set_body_string("{}")).mount(&server).await;
    let base = aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(server.uri())
        .region("eu-west-3")
        .credentials_provider(Credentials::new("AKIDOWN", "secret", None, None, "test"))
        .http_client(Counting::new())
        .load()
        .await;
    let role =
        AssumeRoleProvider::builder("arn:aws:iam::123456789012:role/pushes").configure(&base).session_name("test");
    let role = SharedCredentialsProvider::new(role.build().await);
    let config = base.to_builder().credentials_provider(role.clone()).build();

    use_tables(&config).await;
    let endpoint: Endpoint = format!("{}/dev", server.uri()).parse().unwrap();
    let endpoint = endpoint.with_region(lambda_websocket::event::Region::new("eu-west-3").unwrap());
    let id = ConnectionId::new("L0SM9cOFvHcCIhw=").unwrap();
    Pusher::new(Sdk::from_config(&config, &endpoint).unwrap()).send_text(&id, "by the SDK").await.unwrap();
    Pusher::new(Direct::new(&endpoint, role).unwrap()).send_text(&id, "without it").await.unwrap();

    let requests = server.received_requests().await.unwrap();
    let (for_roles, others): (Vec<_>, Vec<_>) =
        requests.iter().partition(|request| String::from_utf8_lossy(&request.body).contains("Action=AssumeRole"));
    assert!(!for_roles.is_empty() && for_roles.iter().all(|request| authorization(request).contains("AKIDOWN/")));
    for request in others {
        assert!(authorization(request).contains("ASIAROLE/"), "{}", authorization(request));
        assert_eq!(request.headers["x-amz-security-token"], "of-the-role");
    }
}
