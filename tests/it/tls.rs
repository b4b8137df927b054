//! The `Direct` transport over TLS, against a server whose certificate is signed by a test authority.

mod connections;
mod dead;
mod proxied;
mod streams;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_credential_types::Credentials;
use lambda_websocket::Pusher;
use lambda_websocket::event::Region;
use lambda_websocket::push::{Direct, Endpoint, PushError};

use crate::authority::authority;
use crate::stub::{Behavior, Stub, connection_id};

/// Starts a server for `localhost` with these protocols. Returns it, its authority, and a transport that does not trust it.
async fn server(protocols: &[&str]) -> (Stub, Vec<u8>, Direct) {
    let (root, config) = authority("localhost", protocols);
    let stub = Stub::start(Behavior::default(), Some(Arc::new(config).into())).await;
    let endpoint: Endpoint = format!("https://localhost:{}/dev", stub.address.port()).parse().unwrap();
    let endpoint = endpoint.with_region(Region::new("eu-central-1").unwrap());
    let direct = Direct::new(&endpoint, Credentials::new("id", "secret", None, None, "test")).unwrap();
    (stub, root, direct)
}

#[tokio::test]
async fn pushes_work_over_tls_with_http_1_and_http_2() {
    for protocols in [&["http/1.1"] as &[&str], &["h2", "http/1.1"], &["h2"], &[]] {
        let (stub, root, direct) = server(protocols).await;
        let pusher = Pusher::new(direct.with_root_certificate(root).unwrap());
        pusher.warm_up().await.unwrap();
        pusher.send_text(&connection_id(1), "hello").await.unwrap();
        let report = pusher.broadcast((0..200).map(connection_id), "hello").unwrap().await;
        assert_eq!(report.delivered, 200, "{protocols:?}: {report}");
        assert_eq!(stub.log.lock().unwrap().len(), 200);
        let over_http_2 = stub.over_http_2.load(Ordering::SeqCst);
        assert_eq!(over_http_2, if protocols.contains(&"h2") { 202 } else { 0 }, "{protocols:?}");
    }
}

#[tokio::test]
async fn untrusted_certificate_fails_without_retries() {
    let (stub, _, direct) = server(&["http/1.1"]).await;
    let pusher = Pusher::new(direct).with_timeout(Duration::from_secs(60));
    let start = std::time::Instant::now();
    let error = pusher.send_text(&connection_id(1), "hello").await.unwrap_err();
    assert!(matches!(error, PushError::Untrusted { .. }), "{error:?}");
    assert_eq!(error.to_string(), "the endpoint's certificate is not trusted");
    assert!(start.elapsed() < Duration::from_secs(30), "it is not tried again");
    assert!(matches!(pusher.warm_up().await, Err(PushError::Untrusted { .. })));
    assert!(stub.log.lock().unwrap().is_empty(), "nothing has left");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_an_error() {
    let (root, config) = authority("elsewhere.example", &[]);
    let stub = Stub::start(Behavior::default(), Some(Arc::new(config).into())).await;
    let endpoint: Endpoint = format!("https://localhost:{}/dev", stub.address.port()).parse().unwrap();
    let endpoint = endpoint.with_region(Region::new("eu-central-1").unwrap());
    let direct = Direct::new(&endpoint, Credentials::new("id", "secret", None, None, "test")).unwrap();
    let pusher = Pusher::new(direct.with_root_certificate(root).unwrap());
    assert!(matches!(pusher.send_text(&connection_id(1), "x").await, Err(PushError::Untrusted { .. })));
}

#[tokio::test]
async fn invalid_certificate_is_refused() {
    let (_stub, _, direct) = server(&[]).await;
    let error = direct.with_root_certificate(b"-----BEGIN CERTIFICATE-----".to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "the bytes are not a DER-encoded certificate");
}
