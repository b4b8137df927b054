//! Credentials that are rotated or lack permissions, and a wrong clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, future};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use lambda_websocket::Pusher;
use lambda_websocket::event::Region;
use lambda_websocket::push::{Direct, Endpoint, PushError};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::stub::connection_id;

/// Provides the key that is currently valid, and counts its calls.
#[derive(Debug, Clone, Default)]
struct Rotating {
    valid: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl Rotating {
    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl ProvideCredentials for Rotating {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let key = format!("KEY{}", self.valid.load(Ordering::SeqCst));
        future::ProvideCredentials::ready(Ok(Credentials::new(key, "secret", None, None, "test")))
    }
}

/// Starts a server with these responses. Returns it, and a pusher that does not retry.
async fn server(
    provider: &Rotating,
    answer: impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static,
) -> (MockServer, Pusher) {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let endpoint: Endpoint = format!("{}/dev", server.uri()).parse().unwrap();
    let endpoint = endpoint.with_region(Region::new("eu-central-1").unwrap());
    (server, Pusher::new(Direct::new(&endpoint, provider.clone()).unwrap()).without_retries())
}

fn forbidden(kind: &str) -> ResponseTemplate {
    ResponseTemplate::new(403).insert_header("x-amzn-ErrorType", kind)
}

#[tokio::test]
async fn credential_rotation_fails_no_push() {
    for kind in ["ExpiredTokenException", "InvalidSignatureException", "UnrecognizedClientException"] {
        let provider = Rotating::default();
        let valid = Arc::clone(&provider.valid);
        let (server, pusher) = server(&provider, move |request| {
            let expected = format!("Credential=KEY{}/", valid.load(Ordering::SeqCst));
            match request.headers["authorization"].to_str().unwrap().contains(&expected) {
                true => ResponseTemplate::new(200),
                false => forbidden(kind),
            }
        })
        .await;
        let report = pusher.broadcast((0..64).map(connection_id), "x").unwrap().await;
        assert_eq!((report.delivered, provider.asked()), (64, 1), "{kind}: {report}");
        provider.valid.store(1, Ordering::SeqCst);
        let report = pusher.broadcast((0..200).map(connection_id), "x").unwrap().await;
        assert_eq!((report.delivered, provider.asked()), (200, 2), "{kind}: {report}");
        assert!(server.received_requests().await.unwrap().len() <= 64 + 200 + 64);
    }
}

#[tokio::test]
async fn access_denied_does_not_refresh_credentials() {
    for (kind, most) in [("AccessDeniedException", 1), ("ForbiddenException", 1), ("ExpiredTokenException", 2)] {
        let provider = Rotating::default();
        let (_server, pusher) = server(&provider, move |_| forbidden(kind)).await;
        let report = pusher.broadcast((0..500).map(connection_id), "x").unwrap().await;
        assert_eq!((report.failed.len(), report.ids()), (500, 500), "{kind}: {report}");
        assert!(report.failed.iter().all(|failure| matches!(failure.error, PushError::Forbidden { .. })));
        assert!(provider.asked() <= most, "{kind}: {} times", provider.asked());
    }
}

#[tokio::test]
async fn wrong_clock_is_corrected_from_the_response() {
    for (ahead, hours) in [(true, 1), (false, 3)] {
        let provider = Rotating::default();
        let (server, pusher) = server(&provider, move |request| {
            let by = Duration::from_secs(hours * 3600);
            let now = if ahead { SystemTime::now() + by } else { SystemTime::now() - by };
            let now = Timestamp::try_from(now).unwrap();
            let signed = request.headers["x-amz-date"].to_str().unwrap();
            let minute = |time: Timestamp| time.strftime("%Y%m%dT%H%M").to_string();
            let near = [-60, 0, 60].map(|seconds| minute(now + jiff::SignedDuration::from_secs(seconds)));
            match near.iter().any(|minute| signed.starts_with(minute)) {
                true => ResponseTemplate::new(200),
                false => forbidden("InvalidSignatureException")
                    .insert_header("date", DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap()),
            }
        })
        .await;
        pusher.send_text(&connection_id(1), "x").await.unwrap();
        let report = pusher.broadcast((0..20).map(connection_id), "x").unwrap().await;
        assert_eq!((report.delivered, provider.asked()), (20, 1), "{report}");
        assert_eq!(server.received_requests().await.unwrap().len(), 22, "only the first was made again");
    }
}
