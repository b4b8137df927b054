//! Round trips through the local gateway, beside a plain WebSocket echo in the same run.
//!
//! ```sh
//! cargo bench --bench gateway --no-default-features --features local
//! ```
//!
//! Then ten thousand idle connections to a gateway in another process: how fast they come, what each costs in memory, and
//! whether every `$disconnect` runs when all leave at once. Both processes need as many open files (`ulimit -n`).
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

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use lambda_websocket::local::Gateway;
use lambda_websocket::{Disconnect, Message, Response, Router};
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

/// An API that counts its disconnects and tells who asks.
fn counting() -> Router {
    let disconnects = Arc::new(AtomicU64::new(0));
    let asked = Arc::clone(&disconnects);
    Router::new()
        .on("$disconnect", move |_: Disconnect| {
            disconnects.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        })
        .on("count", move |_: Message| {
            let count = asked.load(Ordering::SeqCst).to_string();
            async move { Ok(Response::ok().body(count)) }
        })
}

/// The gateway alone in its process, until its standard input ends.
async fn serve() {
    let gateway = Gateway::builder("dev").router(counting()).two_way("count").start().await.unwrap();
    println!("{}", gateway.url());
    std::io::stdout().flush().unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
}

struct Served(Child);

impl Served {
    fn start() -> (Self, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        (Self(child), url.trim().to_owned())
    }

    /// Resident memory in KiB; `None` where there is no `/proc`.
    fn memory(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn count(asker: &mut WebSocketStream<TcpStream>) -> u64 {
    asker.send(Frame::text(r#"{"action":"count"}"#)).await.unwrap();
    asker.next().await.unwrap().unwrap().to_text().unwrap().parse().unwrap()
}

async fn idle(connections: usize) {
    let (served, url) = Served::start();
    let mut asker = connect(&url, 1).await.remove(0);
    let before = served.memory();
    let start = Instant::now();
    let clients = connect(&url, connections).await;
    let rate = connections as f64 / start.elapsed().as_secs_f64();
    println!("figure gateway_connects: {rate:.0}/s, one after the other");
    match before.zip(served.memory()) {
        Some((before, after)) => {
            let each = (after - before) / connections as f64;
            println!("figure gateway_idle_memory: {each:.1} KiB for each of {connections} connections (goal under 12)");
        }
        None => println!("figure gateway_idle_memory: not measured, since there is no /proc"),
    }
    let start = Instant::now();
    drop(clients);
    let expected = connections as u64;
    while count(&mut asker).await < expected && start.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (seen, took) = (count(&mut asker).await, start.elapsed().as_millis());
    println!("figure gateway_leave_at_once: {seen} of {connections} $disconnects within {took} ms (goal all)");
}

#[tokio::main]
async fn main() {
    if std::env::args().any(|argument| argument == "--serve") {
        return serve().await;
    }
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
    idle(10_000).await;
}
