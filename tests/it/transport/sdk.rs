//! The transport over the AWS SDK.

use lambda_websocket::push::Sdk;

use super::*;

#[path = "suite.rs"]
#[allow(clippy::duplicate_mod, reason = "every transport has the suite")]
mod suite;

fn at(url: &str) -> Pusher {
    let endpoint: Endpoint = url.parse().unwrap();
    let region = Region::new("eu-central-1").unwrap();
    Pusher::new(Sdk::with_static_credentials(&endpoint, &region, "AKIDEXAMPLE", "secret"))
}

#[tokio::test]
async fn missing_region_is_an_error() {
    // Only if the environment of the test run has no region, either.
    let endpoint: Endpoint = "https://ws.example.com/chat".parse().unwrap();
    match Sdk::new(&endpoint).await {
        Err(error) => assert_eq!(
            error.to_string(),
            "no region to sign for: the endpoint https://ws.example.com/chat does not name one, so set AWS_REGION"
        ),
        Ok(_) => assert!(["AWS_REGION", "AWS_DEFAULT_REGION"].iter().any(|name| std::env::var_os(name).is_some())),
    }
}
