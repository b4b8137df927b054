//! Shutting down a gateway: new connections are refused, and every resource is released.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lambda_websocket::local::Gateway;
use lambda_websocket::push::PushError;
use lambda_websocket::{Connect, Message, Router};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::child::{ask, has_ended, process};
use lambda_websocket::local::Function;

#[tokio::test]
async fn functions_holding_a_pusher_are_dropped_with_the_gateway() {
    let builder = Gateway::builder("dev");
    let pusher = builder.pusher();
    let held = Arc::new(());
    let freed: Weak<()> = Arc::downgrade(&held);
    let router = Router::new().on("push", move |_: Message| {
        let (_pusher, _held) = (pusher.clone(), Arc::clone(&held));
        async { Ok(()) }
    });
    let gateway = builder.router(router).function(["$default"], Function::process(process("beside")));
    let gateway = gateway.route_response("$default").start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    let pid = ask(&mut client, "").await["pid"].clone();
    gateway.shutdown().await;
    assert!(freed.upgrade().is_none(), "the route is still there");
    has_ended(&pid).await;
}

#[tokio::test]
async fn dropped_gateway_frees_its_functions() {
    let builder = Gateway::builder("dev");
    let pusher = builder.pusher();
    let held = Arc::new(());
    let freed: Weak<()> = Arc::downgrade(&held);
    let router = Router::new().on("push", move |_: Message| {
        let (_pusher, _held) = (pusher.clone(), Arc::clone(&held));
        async { Ok(()) }
    });
    let gateway = builder.router(router).start().await.unwrap();
    let client = gateway.connect("").await.unwrap();
    drop(gateway);
    assert!(freed.upgrade().is_none(), "the route is still there");
    drop(client);
}

#[tokio::test]
async fn push_after_gateway_drop_returns_gone() {
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let _client = gateway.connect("").await.unwrap();
    let (id, pusher) = (gateway.connections().remove(0), gateway.pusher());
    drop(gateway);
    // The gateway's tasks have not run since, so it is still in memory.
    assert!(matches!(pusher.send_text(&id, "late").await, Err(PushError::Gone { .. })));
}

#[tokio::test]
async fn shutdown_refuses_pending_handshake() {
    let (asked, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let (go, gate) = tokio::sync::watch::channel(false);
    let router = Router::new().on("$connect", move |_: Connect| {
        let (asked, mut gate) = (asked.clone(), gate.clone());
        async move {
            asked.send(())?;
            gate.wait_for(|open| *open).await?;
            Ok(())
        }
    });
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    let (address, url) = (gateway.address(), gateway.url());
    let connecting = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        tokio_tungstenite::client_async(url, stream).await.map(drop)
    });
    waiting.recv().await.unwrap();
    let start = Instant::now();
    let ending = tokio::spawn(gateway.shutdown());
    let answer = connecting.await.unwrap();
    let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = answer else { panic!("{answer:?}") };
    assert_eq!(response.status(), 503);
    assert!(!ending.is_finished(), "the function still runs");
    go.send(true).unwrap();
    ending.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn shutdown_refuses_new_connections() {
    let (asked, mut working) = tokio::sync::mpsc::unbounded_channel();
    let (go, gate) = tokio::sync::watch::channel(false);
    let router = Router::new().on("work", move |_: Message| {
        let (asked, mut gate) = (asked.clone(), gate.clone());
        async move {
            asked.send(())?;
            gate.wait_for(|open| *open).await?;
            Ok(())
        }
    });
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    let mut early = TcpStream::connect(gateway.address()).await.unwrap();
    early.write_all(b"GET /dev HTTP/1.1\r\nHost: 127.0.0.1\r\n").await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    client.send_json(&json!({"action": "work"})).await.unwrap();
    working.recv().await.unwrap();
    let ending = tokio::spawn(gateway.shutdown());
    assert_eq!(client.closed().await.unwrap().0, 1001);
    let rest = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // The gateway closes the socket, or responds to what it has read before it closes.
    let _ = early.write_all(rest.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = early.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
    go.send(true).unwrap();
    ending.await.unwrap();
}
