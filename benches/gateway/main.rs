//! Round trips through the local gateway, compared with a plain WebSocket echo in the same run.
//!
//! ```sh
//! cargo bench --bench gateway --no-default-features --features local
//! ```
//!
//! Also measures functions as processes, ten thousand idle connections to a gateway in another
//! process (which need as many open files: `ulimit -n`), and a hundred thousand messages while
//! functions are killed. `benches/peers/run` compares with other local gateways.
//!
//! The gateway does more than the echo: it selects the route, serializes the event as JSON, runs
//! the router on it, parses the response's JSON, and sends its body. Client, gateway and echo share
//! the machine, in alternating rounds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench that panics has failed, which is all it can do"
)]

mod client;
mod idle;
mod kills;

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use lambda_websocket::local::{Function, Gateway, Process};
use lambda_websocket::{Json, Message, Response, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async_with_config;

use self::client::{Socket, config, connect, round_trips};

const ROUND: Duration = Duration::from_millis(700);
const ROUNDS: usize = 5;

/// An echo with the gateway's WebSocket library and settings, and nothing else.
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

/// The function that every gateway runs.
///
/// `echo` returns the message; `number` returns its number with the process id.
fn echo() -> Router {
    Router::new()
        .on("echo", |event: Message| async move { Ok(Response::ok().body(event.body.to_text().into_owned())) })
        .on("number", |event: Message| async move {
            let mut answer: Value = event.body.json()?;
            answer["pid"] = std::process::id().into();
            Ok(Json(answer))
        })
}

/// The function as processes: this program, started with `--function`.
fn processes(instances: usize) -> Function {
    Function::process(Process::new("echo", std::env::current_exe().unwrap()).arg("--function").instances(instances))
}

/// A gateway to compare, with its connections.
struct Contender {
    name: &'static str,
    clients: Vec<Socket>,
    rates: Vec<f64>,
}

impl Contender {
    async fn round(&mut self) {
        let (rate, clients) = round_trips(std::mem::take(&mut self.clients), ROUND).await;
        self.clients = clients;
        self.rates.push(rate);
    }

    fn median(&mut self) -> f64 {
        self.rates.sort_by(f64::total_cmp);
        self.rates[self.rates.len() / 2]
    }
}

/// Other local gateways, if they are running.
fn peers() -> Vec<(&'static str, String)> {
    [("ministack", "MINISTACK_URL"), ("serverless-offline", "SERVERLESS_OFFLINE_URL")]
        .into_iter()
        .filter_map(|(name, variable)| Some((name, std::env::var(variable).ok()?)))
        .collect()
}

async fn compare(urls: &[(&'static str, String)], connections: usize) {
    let mut contenders = Vec::new();
    for (name, url) in urls {
        contenders.push(Contender { name, clients: connect(url, connections).await, rates: Vec::new() });
    }
    for _ in 0..ROUNDS {
        for contender in &mut contenders {
            contender.round().await;
        }
    }
    let rates: Vec<(&str, f64)> = contenders.iter_mut().map(|contender| (contender.name, contender.median())).collect();
    let rate = |name: &str| rates.iter().find(|(known, _)| *known == name).unwrap().1;
    let figure = |what: &str, peer: &str, goal: &str| {
        let (us, them) = (rate(what), rate(peer));
        let ratio = us / them;
        println!("figure gateway_{what}_vs_{peer}_{connections}: {us:.0}/s vs {them:.0}/s = {ratio:.2} (goal {goal})");
    };
    figure("in_process", "plain_echo", "at least 0.5");
    for (peer, _) in peers() {
        figure("in_process", peer, "at least 20");
        figure("as_processes", peer, "at least 10");
    }
    if peers().is_empty() {
        figure("as_processes", "plain_echo", "none");
    }
}

fn main() {
    // A small function has one thread; a gateway has several.
    let (one, more) = (tokio::runtime::Builder::new_current_thread, tokio::runtime::Builder::new_multi_thread);
    match std::env::args().nth(1).unwrap_or_default().as_str() {
        "--function" => one().enable_all().build().unwrap().block_on(lambda_websocket::run(echo())).unwrap(),
        "--serve" => more().enable_all().build().unwrap().block_on(idle::serve()),
        _ => more().enable_all().build().unwrap().block_on(measure()),
    }
}

async fn measure() {
    let gateway = |function| Gateway::builder("dev").function(["echo"], function).route_response("echo").start();
    let in_process = gateway(Function::router(echo())).await.unwrap();
    let as_processes = gateway(processes(4)).await.unwrap();
    let mut urls = vec![
        ("in_process", in_process.url()),
        ("as_processes", as_processes.url()),
        ("plain_echo", plain_echo().await),
    ];
    urls.extend(peers());
    for connections in [1, 50] {
        compare(&urls, connections).await;
    }
    in_process.shutdown().await;
    as_processes.shutdown().await;
    if peers().is_empty() {
        idle::idle(10_000).await;
        kills::kills(100_000).await;
    }
}
