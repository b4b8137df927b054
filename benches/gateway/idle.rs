//! Ten thousand idle connections: connection rate, memory per connection, and simultaneous
//! disconnects.
//!
//! Checks that every `$disconnect` runs when all connections close at once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use lambda_websocket::local::Gateway;
use lambda_websocket::{Disconnect, Message, Response, Router};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::client::{Socket, connect};

/// An API that counts its disconnects and returns the count.
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

/// Runs the gateway alone in this process until its standard input closes.
pub async fn serve() {
    let gateway = Gateway::builder("dev").router(counting()).route_response("count").start().await.unwrap();
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

async fn count(asker: &mut Socket) -> u64 {
    asker.send(Frame::text(r#"{"action":"count"}"#)).await.unwrap();
    asker.next().await.unwrap().unwrap().to_text().unwrap().parse().unwrap()
}

pub async fn idle(connections: usize) {
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
