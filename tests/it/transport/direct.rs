//! The transport without the AWS SDK.

mod credentials;

use aws_credential_types::Credentials;
use lambda_websocket::push::Direct;

use super::*;

#[path = "suite.rs"]
#[allow(clippy::duplicate_mod, reason = "every transport has the suite")]
mod suite;

fn at(url: &str) -> Pusher {
    let endpoint = url.parse::<Endpoint>().unwrap().with_region(Region::new("eu-central-1").unwrap());
    Pusher::new(Direct::new(&endpoint, Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")).unwrap())
}

#[tokio::test]
async fn missing_region_is_an_error() {
    // Only if the environment of the test run has no region, either.
    let endpoint: Endpoint = "https://ws.example.com/chat".parse().unwrap();
    match Direct::new(&endpoint, Credentials::new("id", "secret", None, None, "test")) {
        Err(error) => assert_eq!(
            error.to_string(),
            "no region to sign for: the endpoint https://ws.example.com/chat does not name one, so set AWS_REGION"
        ),
        Ok(_) => assert!(std::env::var_os("AWS_REGION").is_some()),
    }
}

#[tokio::test]
async fn transport_at_another_endpoint_shares_the_credentials() {
    use wiremock::matchers::{header_regex, path_regex};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    let endpoint: Endpoint = "http://127.0.0.1:1/dev".parse().unwrap();
    let endpoint = endpoint.with_region(Region::new("eu-central-1").unwrap());
    let direct = Direct::new(&endpoint, Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")).unwrap();
    let server = MockServer::start().await;
    Mock::given(path_regex("^/other/@connections/"))
        .and(header_regex("authorization", "Credential=AKIDEXAMPLE/[0-9]{8}/us-west-2/"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let other: Endpoint = format!("{}/other", server.uri()).parse().unwrap();
    let other = direct.at(&other.with_region(Region::new("us-west-2").unwrap())).unwrap();
    Pusher::new(other).send_text(&crate::stub::connection_id(1), "x").await.unwrap();
}
