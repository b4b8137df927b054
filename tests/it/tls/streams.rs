//! An endpoint that accepts few concurrent streams per connection.

use super::*;
use crate::line::Line;

#[tokio::test]
async fn pushes_beyond_the_http_2_stream_limit_are_queued() {
    let (root, config) = authority("localhost", &["h2"]);
    let behavior = Behavior { latency: Duration::from_millis(20), ..Behavior::default() };
    let stub = Stub::start_with_streams(behavior, Some(Arc::new(config).into()), 10).await;
    let line = Line::start(stub.address).await;
    let endpoint: Endpoint = format!("https://localhost:{}/dev", line.address.port()).parse().unwrap();
    let credentials = Credentials::new("id", "secret", None, None, "test");
    let direct = Direct::new(&endpoint.with_region(Region::new("eu-central-1").unwrap()), credentials).unwrap();
    let pusher = Pusher::new(direct.with_root_certificate(root).unwrap());
    pusher.warm_up().await.unwrap();
    let start = std::time::Instant::now();
    let report = pusher.broadcast((0..200).map(connection_id), "x").unwrap().await;
    println!("{report}; {} connections, {:?}", line.count(), start.elapsed());
    assert_eq!((report.delivered, report.retries, line.count()), (200, 0, 1), "{report}");
}
