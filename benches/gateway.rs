//! Round trips through the local gateway, beside a plain WebSocket echo in the same run.
//!
//! ```sh
//! cargo bench --bench gateway --no-default-features --features local
//! ```
//!
//! The gateway's way is the longer one: it selects the route, makes the event's JSON, runs the router on it, reads the
//! answer's JSON, and sends its body. Client, gateway and echo share the machine, in alternating rounds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench that panics has failed, which is all it can do"
)]

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use lambda_websocket::local::Gateway;
use lambda_websocket::{Message, Response, Router};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

const ROUND: Duration = Duration::from_millis(700);
const ROUNDS: usize = 5;

fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4096)
}

/// The same library as the gateway's, with the same settings, and nothing else.
async fn plain_echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut socket = accept_async_with_config(stream, Some(config())).await.unwrap();
                while let Some(Ok(frame)) = socket.next().await {
                    if frame.is_text() && socket.send(frame).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    format!("ws://{address}/dev")
}

async fn connect(url: &str, count: usize) -> Vec<WebSocketStream<TcpStream>> {
    let address = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
    let mut clients = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        clients.push(client_async_with_config(url, stream, Some(config())).await.unwrap().0);
    }
    clients
}

/// How many round trips all clients make in a second, each waiting for one answer before the next question.
async fn round_trips(clients: Vec<WebSocketStream<TcpStream>>) -> (f64, Vec<WebSocketStream<TcpStream>>) {
    let start = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut count = 0_u64;
                while start.elapsed() < ROUND {
                    client.send(Frame::text(r#"{"action":"echo","message":"hello"}"#)).await.unwrap();
                    client.next().await.unwrap().unwrap();
                    count += 1;
                }
                (count, client)
            })
        })
        .collect();
    let (mut sum, mut clients) = (0, Vec::new());
    for task in tasks {
        let (count, client) = task.await.unwrap();
        sum += count;
        clients.push(client);
    }
    (sum as f64 / start.elapsed().as_secs_f64(), clients)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let router = Router::new()
        .on("echo", |event: Message| async move { Ok(Response::ok().body(event.body.to_text().into_owned())) });
    let gateway = Gateway::builder("dev").router(router).two_way("echo").start().await.unwrap();
    let plain = plain_echo().await;
    for connections in [1, 50] {
        let (mut ours, mut theirs) = (connect(&gateway.url(), connections).await, connect(&plain, connections).await);
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let rate;
            (rate, ours) = round_trips(ours).await;
            us.push(rate);
            let rate;
            (rate, theirs) = round_trips(theirs).await;
            them.push(rate);
        }
        let (us, them) = (median(us), median(them));
        println!(
            "figure gateway_round_trips_{connections}: {us:.0}/s vs {them:.0}/s = {:.2} (goal at least 0.5)",
            us / them
        );
    }
    gateway.shutdown().await;
}
