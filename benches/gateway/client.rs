//! The client used by every measurement.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

pub type Socket = WebSocketStream<TcpStream>;

pub fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4096)
}

pub async fn connect(url: &str, count: usize) -> Vec<Socket> {
    let address = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
    let mut clients = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        clients.push(client_async_with_config(url, stream, Some(config())).await.unwrap().0);
    }
    clients
}

/// Returns the round trips per second of all clients together.
///
/// Each client waits for one response before it sends the next message.
pub async fn round_trips(clients: Vec<Socket>, round: Duration) -> (f64, Vec<Socket>) {
    let start = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut count = 0_u64;
                while start.elapsed() < round {
                    client.send(Frame::text(r#"{"action":"echo","message":"hello"}"#)).await.unwrap();
                    let answer = client.next().await.unwrap().unwrap();
                    assert!(answer.to_text().unwrap().contains("hello"), "{answer}");
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
