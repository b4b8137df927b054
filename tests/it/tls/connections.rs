//! The number of connections that pushes open.

use lambda_websocket::push::Sdk;

use super::*;
use crate::line::Line;

#[tokio::test]
async fn cold_broadcast_over_http_2_opens_one_connection() {
    for name in ["direct", "sdk"] {
        let (root, config) = authority("localhost", &["h2", "http/1.1"]);
        let behavior = Behavior { latency: Duration::from_millis(5), ..Behavior::default() };
        let stub = Stub::start(behavior, Some(Arc::new(config).into())).await;
        let line = Line::start(stub.address).await;
        let endpoint: Endpoint = format!("https://localhost:{}/dev", line.address.port()).parse().unwrap();
        let region = Region::new("eu-central-1").unwrap();
        let pusher = match name {
            "direct" => {
                let credentials = Credentials::new("id", "secret", None, None, "test");
                let direct = Direct::new(&endpoint.with_region(region), credentials).unwrap();
                Pusher::new(direct.with_root_certificate(root).unwrap())
            }
            _ => {
                let sdk = Sdk::with_static_credentials(&endpoint, &region, "id", "secret");
                Pusher::new(sdk.with_root_certificate(root).unwrap())
            }
        };
        let report = pusher.broadcast((0..64).map(connection_id), "x").unwrap().await;
        assert_eq!((report.delivered, line.count()), (64, 1), "{name}: {report}");
    }
}

#[tokio::test]
async fn http_1_endpoint_gets_one_connection_per_concurrent_push() {
    let (root, config) = authority("localhost", &["http/1.1"]);
    let behavior = Behavior { latency: Duration::from_millis(50), ..Behavior::default() };
    let stub = Stub::start(behavior, Some(Arc::new(config).into())).await;
    let line = Line::start(stub.address).await;
    let endpoint: Endpoint = format!("https://localhost:{}/dev", line.address.port()).parse().unwrap();
    let credentials = Credentials::new("id", "secret", None, None, "test");
    let direct = Direct::new(&endpoint.with_region(Region::new("eu-central-1").unwrap()), credentials).unwrap();
    let pusher = Pusher::new(direct.with_root_certificate(root).unwrap()).with_concurrency(16);
    let report = pusher.broadcast((0..64).map(connection_id), "x").unwrap().await;
    assert_eq!(report.delivered, 64, "{report}");
    assert!((2..=32).contains(&line.count()), "{}", line.count());
}

#[tokio::test]
async fn warm_up_connects() {
    for (name, is_sdk) in [("direct", false), ("sdk", true)] {
        let (root, config) = authority("localhost", &["h2"]);
        let stub = Stub::start(Behavior::default(), Some(Arc::new(config).into())).await;
        let line = Line::start(stub.address).await;
        let endpoint: Endpoint = format!("https://localhost:{}/dev", line.address.port()).parse().unwrap();
        let region = Region::new("eu-central-1").unwrap();
        let pusher = if is_sdk {
            let sdk = Sdk::with_static_credentials(&endpoint, &region, "id", "secret");
            Pusher::new(sdk.with_root_certificate(root).unwrap())
        } else {
            let credentials = Credentials::new("id", "secret", None, None, "test");
            let direct = Direct::new(&endpoint.with_region(region), credentials).unwrap();
            Pusher::new(direct.with_root_certificate(root).unwrap())
        };
        pusher.warm_up().await.unwrap();
        assert_eq!(line.count(), 1, "{name}");
        assert!(stub.log.lock().unwrap().is_empty(), "{name}: no connection was asked about");
        pusher.send_text(&connection_id(1), "x").await.unwrap();
        assert_eq!(line.count(), 1, "{name}");
    }
}
