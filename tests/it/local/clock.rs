//! Under tokio's paused clock the gateway and its functions skip hours.

use std::time::Duration;

use lambda_websocket::local::Gateway;
use lambda_websocket::{Json, Message, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

fn router() -> Router {
    Router::new()
        .on("slow", |_: Message| async {
            sleep(Duration::from_secs(60)).await;
            Ok(())
        })
        .on("when", |event: Message| async move {
            let since = event.request_context().request_time.duration_since(std::time::UNIX_EPOCH)?;
            Ok(Json(since.as_secs()))
        })
}

#[tokio::test(start_paused = true)]
async fn msg_4_and_lim_3_paused_clock_skips_timeouts() {
    let gateway = Gateway::builder("dev").router(router()).route_response("when").start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap().with_timeout(Duration::from_secs(100_000));
    let start = Instant::now();
    client.send_json(&json!({"action": "slow"})).await.unwrap();
    assert_eq!(client.next_json().await.unwrap()["message"], "Endpoint request timed out");
    assert_eq!(start.elapsed().as_secs(), 29);
    let when = async |client: &mut lambda_websocket::local::Client| {
        client.send_json(&json!({"action": "when"})).await.unwrap();
        client.next_json().await.unwrap().as_u64().unwrap()
    };
    let before = when(&mut client).await;
    sleep(Duration::from_secs(500)).await;
    assert!((499..=501).contains(&(when(&mut client).await - before)));
    let idle_since = Instant::now();
    assert_eq!(client.closed().await.unwrap(), (1001, "Going away".to_owned()));
    assert_eq!(idle_since.elapsed().as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn msg_4_each_route_has_its_own_limit() {
    let hangs = || async {
        sleep(Duration::from_secs(60)).await;
        Ok(())
    };
    let router = Router::new().on("quick", move |_: Message| hangs()).on("slow", move |_: Message| hangs());
    let limits = [("quick", 2), ("slow", 10)].map(|(key, seconds)| (key, Duration::from_secs(seconds)));
    let builder = Gateway::builder("dev").router(router).integration_timeout(limits[1].1);
    let gateway = builder.route_timeout("quick", limits[0].1).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap().with_timeout(Duration::from_secs(100));
    for (key, limit) in limits {
        let start = Instant::now();
        client.send_json(&json!({"action": key})).await.unwrap();
        assert_eq!(client.next_json().await.unwrap()["message"], "Endpoint request timed out");
        assert_eq!(start.elapsed().as_secs(), limit.as_secs(), "{key}");
    }
    let error = Gateway::builder("dev").route_timeout("none", limits[0].1).start().await.unwrap_err();
    assert_eq!(error.to_string(), "the route \"none\" has no function");
}

#[tokio::test(start_paused = true)]
async fn lim_3_paused_clock_skips_two_hours() {
    let gateway = Gateway::builder("dev").router(router()).route_response("when").start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    let start = Instant::now();
    loop {
        sleep(Duration::from_secs(300)).await;
        let sent = client.send_json(&json!({"action": "when"})).await;
        match client.next_json().await {
            Ok(Value::Number(_)) if sent.is_ok() => {}
            _ => break,
        }
    }
    assert_eq!(start.elapsed().as_secs(), 7200);
}

#[tokio::test(start_paused = true)]
async fn paused_clock_skips_a_million_seconds_quickly() {
    let gateway = Gateway::builder("dev").router(router()).lifetime(Duration::from_secs(10_000_000));
    let gateway = gateway.idle_timeout(Duration::from_secs(10_000_000)).start().await.unwrap();
    let _client = gateway.connect("").await.unwrap();
    let real = std::time::Instant::now();
    for _ in 0..1000 {
        sleep(Duration::from_secs(1000)).await;
    }
    assert!(real.elapsed() < Duration::from_secs(10), "{:?}", real.elapsed());
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_is_disconnected_after_30_seconds() {
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let (_deaf, _) = tokio_tungstenite::client_async(gateway.url(), stream).await.unwrap();
    let id = gateway.connections().remove(0);
    let pusher = gateway.pusher().without_retries();
    while pusher.send_text(&id, "x".repeat(100_000)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_secs(25)).await;
    assert_eq!(gateway.connections().len(), 1);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(gateway.connections().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn unanswered_close_frame_ends_the_connection_after_2_seconds() {
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let (mut silent, _) = tokio_tungstenite::client_async(gateway.url(), stream).await.unwrap();
    gateway.pusher().close(&gateway.connections()[0]).await.unwrap();
    let start = Instant::now();
    let mut rest = Vec::new();
    silent.get_mut().read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xe8]);
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn incomplete_request_times_out() {
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let mut half_a_head = TcpStream::connect(gateway.address()).await.unwrap();
    half_a_head.write_all(b"GET /dev HTTP/1.1\r\nHost: ").await.unwrap();
    let mut answer = Vec::new();
    let start = Instant::now();
    let _ = half_a_head.read_to_end(&mut answer).await;
    assert!((119..=125).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());

    let mut half_a_body = TcpStream::connect(gateway.address()).await.unwrap();
    let request = b"POST /dev/@connections/AAAAAAAAAAAAAAA= HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx";
    half_a_body.write_all(request).await.unwrap();
    let mut status = [0; 12];
    let start = Instant::now();
    half_a_body.read_exact(&mut status).await.unwrap();
    assert_eq!(std::str::from_utf8(&status).unwrap(), "HTTP/1.1 408");
    assert_eq!(start.elapsed().as_secs(), 10);
}
