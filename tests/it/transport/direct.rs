//! The transport without the AWS SDK.

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
async fn without_a_region_there_is_nothing_to_sign_for() {
    // Only where the environment of the test run names none, either.
    let endpoint: Endpoint = "https://ws.example.com/chat".parse().unwrap();
    match Direct::new(&endpoint, Credentials::new("id", "secret", None, None, "test")) {
        Err(error) => assert_eq!(
            error.to_string(),
            "no region to sign for: the endpoint https://ws.example.com/chat does not name one, so set AWS_REGION"
        ),
        Ok(_) => assert!(std::env::var_os("AWS_REGION").is_some()),
    }
}
