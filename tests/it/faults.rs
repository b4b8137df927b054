//! Fault injection with real sockets and real processes. The unit tests of `local::rules` cover faults without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_websocket::event::ConnectionId;
use lambda_websocket::local::{Client, ClientError, Fault, Function, Gateway, When};
use lambda_websocket::push::{PushError, Sdk};
use lambda_websocket::{Connect, Disconnect, Json, Message, Pusher, Router};
use serde_json::json;

use crate::function::bootstrap;

async fn whoami(client: &mut Client) -> ConnectionId {
    client.send_json(&json!({"action": "whoami"})).await.unwrap();
    serde_json::from_value(client.next_json().await.unwrap()).unwrap()
}

/// Starts a gateway with one client, and counts its `$disconnect` invocations.
async fn one() -> (Gateway, Client, ConnectionId, Arc<AtomicUsize>) {
    let disconnects = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&disconnects);
    let router = Router::new()
        .on("whoami", |event: Message| async move { Ok(Json(event.connection_id().clone())) })
        .on("$disconnect", move |_: Disconnect| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        });
    let gateway = Gateway::builder("dev").router(router).route_response("whoami").seed(3).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    let id = whoami(&mut client).await;
    (gateway, client, id, disconnects)
}

/// Returns two pushers to the same connections: one in process, one over HTTP with the SDK.
fn pushers(gateway: &Gateway) -> [Pusher; 2] {
    let region = "us-east-1".parse().unwrap();
    let sdk = Sdk::with_static_credentials(&gateway.endpoint(), &region, "any", "any");
    [gateway.pusher(), Pusher::new(sdk)]
}

#[tokio::test]
async fn mgt_7_pusher_retries_transient_faults() {
    let (gateway, mut client, id, _) = one().await;
    for (number, pusher) in pushers(&gateway).into_iter().enumerate() {
        let pusher = pusher.with_attempt_timeout(Duration::from_millis(300)).with_random(|| 0.0);
        for fault in [Fault::PostThrottled, Fault::PostFailed, Fault::PostUnanswered] {
            gateway.inject(fault, When::Next(2));
            pusher.send_text(&id, format!("{number} {fault:?}")).await.unwrap();
            assert_eq!(client.next_text().await.unwrap(), format!("{number} {fault:?}"));
        }
        gateway.inject(Fault::PostGone, When::Next(1));
        assert!(matches!(pusher.send_text(&id, "x").await, Err(PushError::Gone { .. })));
        gateway.inject(Fault::PostAnswerLost, When::Next(1));
        pusher.send_text(&id, "twice").await.unwrap();
        for _ in 0..2 {
            assert_eq!(client.next_text().await.unwrap(), "twice");
        }
    }
}

#[tokio::test]
async fn mgt_7_slow_consumer_is_throttled_without_loss() {
    let (gateway, mut client, id, _) = one().await;
    let pusher = gateway.pusher().without_retries();
    gateway.inject(Fault::SlowConsumer, When::On(id.clone()));
    let mut sent = 0;
    let refused = loop {
        match pusher.send_text(&id, sent.to_string()).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10_000, "a buffer has an end");
    };
    assert!(matches!(refused, PushError::Throttled { .. }), "{refused}");
    assert_eq!(sent, 256);
    gateway.clear_faults();
    for number in 0..sent {
        assert_eq!(client.next_text().await.unwrap(), number.to_string());
    }
}

#[tokio::test]
async fn pushes_to_half_open_socket_are_lost() {
    let (gateway, client, id, disconnects) = one().await;
    gateway.inject(Fault::HalfOpen, When::On(id.clone()));
    gateway.pusher().send_text(&id, "lost").await.unwrap();
    let mut client = client.with_timeout(Duration::from_millis(100));
    assert!(matches!(client.next_text().await, Err(ClientError::TimedOut { .. })));
    drop(client);
    tokio::time::sleep(Duration::from_millis(100)).await;
    gateway.pusher().send_text(&id, "lost").await.unwrap();
    assert_eq!(disconnects.load(Ordering::SeqCst), 0, "nobody has noticed");
    gateway.pusher().close(&id).await.unwrap();
    gateway.shutdown().await;
    assert_eq!(disconnects.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn dis_1_lost_disconnect_is_never_invoked() {
    let (gateway, client, _, disconnects) = one().await;
    gateway.inject(Fault::DisconnectLost, When::Next(1));
    client.close(1000, "").await.unwrap();
    let client = gateway.connect("").await.unwrap();
    client.close(1000, "").await.unwrap();
    gateway.shutdown().await;
    assert_eq!(disconnects.load(Ordering::SeqCst), 1, "of two");
}

#[tokio::test]
async fn con_6_push_to_unopened_connection_returns_gone() {
    let (told, mut connected) = tokio::sync::mpsc::unbounded_channel();
    let router = Router::new().on("$connect", move |event: Connect| {
        let _ = told.send(event.connection_id().clone());
        async { Ok(()) }
    });
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    gateway.inject(Fault::OpenLate(Duration::from_millis(300)), When::Next(1));
    let pusher = gateway.pusher();
    let early = async {
        let id = connected.recv().await.unwrap();
        (pusher.send_text(&id, "early").await, id)
    };
    let (client, (early, id)) = tokio::join!(gateway.connect(""), early);
    assert!(matches!(early, Err(PushError::Gone { .. })));
    pusher.send_text(&id, "in time").await.unwrap();
    assert_eq!(client.unwrap().next_text().await.unwrap(), "in time");
}

#[tokio::test]
async fn msg_3_killed_invocation_fails_alone() {
    let (gateway, mut client, id, _) = one().await;
    gateway.inject(Fault::FunctionKilled(Duration::ZERO), When::Next(1));
    client.send_json(&json!({"action": "whoami"})).await.unwrap();
    assert_eq!(client.next_json().await.unwrap()["message"], "Internal server error");
    assert_eq!(whoami(&mut client).await, id);
}

#[tokio::test]
async fn killed_process_is_restarted() {
    let gateway = Gateway::builder("dev")
        .function(["$default"], Function::process(bootstrap()))
        .route_response("$default")
        .start()
        .await
        .unwrap();
    let mut client = gateway.connect("").await.unwrap();
    client.send_json(&json!({})).await.unwrap();
    let first = client.next_json().await.unwrap()["pid"].clone();
    gateway.inject(Fault::FunctionKilled(Duration::from_millis(200)), When::Next(1));
    client.send_json(&json!({"do": "sleep"})).await.unwrap();
    assert_eq!(client.next_json().await.unwrap()["message"], "Internal server error");
    client.send_json(&json!({})).await.unwrap();
    let second = client.next_json().await.unwrap()["pid"].clone();
    assert!(second.is_u64() && second != first, "{first} {second}");
}

#[tokio::test]
async fn msg_3_every_message_gets_one_reply_despite_killed_functions() {
    const CLIENTS: usize = 8;
    const EACH: u64 = 60;
    let function = Function::process(bootstrap().instances(3));
    let gateway = Gateway::builder("dev")
        .function(["$default"], function)
        .route_response("$default")
        .seed(11)
        .start()
        .await
        .unwrap();
    gateway.inject(Fault::FunctionKilled(Duration::from_micros(300)), When::Sometimes(0.1));
    let gateway = Arc::new(gateway);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let mut client = gateway.connect("").await.unwrap().with_timeout(Duration::from_secs(30));
                let (mut answered, mut killed) = (0, 0);
                while answered < EACH {
                    client.send_json(&json!({"number": answered})).await.unwrap();
                    let answer = client.next_json().await.unwrap();
                    match answer.get("message") {
                        Some(message) => {
                            assert_eq!(message, "Internal server error");
                            killed += 1;
                        }
                        None => {
                            assert_eq!(answer["number"], answered, "the answer to this message, and once");
                            answered += 1;
                        }
                    }
                }
                killed
            })
        })
        .collect();
    let mut killed = 0;
    for client in clients {
        killed += client.await.unwrap();
    }
    assert!(killed > 10, "{killed} were killed");
}
