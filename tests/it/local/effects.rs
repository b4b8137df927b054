//! Functions are never invoked on the call stack of a close or a push.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_websocket::event::ConnectionId;
use lambda_websocket::local::Gateway;
use lambda_websocket::{Connect, Disconnect, Json, Message, Router};
use serde_json::json;

/// Runs a room in which each leaving member closes the next. Returns how many connections are open.
async fn room(size: usize) -> (usize, usize) {
    let builder = Gateway::builder("dev");
    let pusher = builder.pusher();
    let members: Arc<Mutex<Vec<ConnectionId>>> = Arc::default();
    let left = Arc::new(AtomicUsize::new(0));
    let (joining, leaving, count) = (Arc::clone(&members), Arc::clone(&members), Arc::clone(&left));
    let router = Router::new()
        .on("$connect", move |event: Connect| {
            joining.lock().unwrap().push(event.connection_id().clone());
            async { Ok(()) }
        })
        .on("$disconnect", move |event: Disconnect| {
            count.fetch_add(1, Ordering::SeqCst);
            let (pusher, members) = (pusher.clone(), Arc::clone(&leaving));
            async move {
                let next = {
                    let mut members = members.lock().unwrap();
                    members.retain(|member| member != event.connection_id());
                    members.pop()
                };
                if let Some(next) = next {
                    let _ = pusher.close(&next).await;
                }
                Ok(())
            }
        });
    let gateway = builder.router(router).start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..size {
        clients.push(gateway.connect("").await.unwrap());
    }
    let opened = members.lock().unwrap().len();
    drop(clients.pop());
    for _ in 0..3000 {
        if left.load(Ordering::SeqCst) >= size {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (opened, left.load(Ordering::SeqCst))
}

#[tokio::test]
async fn members_closing_each_other_do_not_overflow_the_stack() {
    assert_eq!(room(150).await, (150, 150));
}

#[test]
fn close_does_not_deadlock_with_the_disconnect_route() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(Mutex::new(0));
        let (seen, ended) = std::sync::mpsc::channel();
        let (shared, opened) = (Arc::clone(&state), Arc::new(Mutex::new(None)));
        let open = Arc::clone(&opened);
        let router = Router::new()
            .on("$connect", move |event: Connect| {
                *open.lock().unwrap() = Some(event.connection_id().clone());
                async { Ok(()) }
            })
            .on("$disconnect", move |_: Disconnect| {
                *shared.lock().unwrap() += 1;
                let _ = seen.send(());
                async { Ok(()) }
            });
        let gateway = runtime.block_on(Gateway::builder("dev").router(router).start()).unwrap();
        let _client = runtime.block_on(gateway.connect("")).unwrap();
        let id = opened.lock().unwrap().clone().unwrap();
        let pusher = gateway.pusher();
        let held = state.lock().unwrap();
        runtime.block_on(async { pusher.close(&id).await }).unwrap();
        drop(held);
        ended.recv().unwrap();
        let _ = done.send(*state.lock().unwrap());
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(1));
}

/// Returns the order in which twenty messages of one client are handled.
async fn order(seed: Option<u64>) -> Vec<u64> {
    let router = Router::new().on("$default", |event: Message| async move {
        let message: serde_json::Value = event.body.json()?;
        Ok(Json(message["n"].clone()))
    });
    let builder = Gateway::builder("dev").router(router).route_response("$default");
    let builder = match seed {
        Some(seed) => builder.seed(seed).interleave(),
        None => builder,
    };
    let gateway = builder.start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    for n in 0..20 {
        client.send_json(&json!({"n": n})).await.unwrap();
    }
    let mut order = Vec::new();
    for _ in 0..20 {
        order.push(client.next_json().await.unwrap().as_u64().unwrap());
    }
    order
}

#[tokio::test]
async fn msg_5_interleaved_messages_are_reordered() {
    let in_order: Vec<u64> = (0..20).collect();
    assert_eq!(order(None).await, in_order);
    let mut overtaken = 0;
    for seed in 0..5 {
        let mut seen = order(Some(seed)).await;
        overtaken += usize::from(seen != in_order);
        seen.sort_unstable();
        assert_eq!(seen, in_order, "each is answered once");
    }
    assert!(overtaken > 0);
}
