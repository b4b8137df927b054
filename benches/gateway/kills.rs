//! A hundred thousand messages to functions as processes that are killed repeatedly.
//!
//! Every message gets exactly one response: its own, or one that says that its function died.
//! Messages whose function died are sent again until all have their own response.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use lambda_websocket::local::Gateway;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::client::{Socket, connect};
use super::processes;

const CLIENTS: usize = 50;
/// A process is killed after this many responses.
const KILL_EVERY: u64 = 500;

struct Client {
    socket: Socket,
    /// The number of responses that said that the function died.
    died: u64,
}

/// Sends `numbers` and returns once each has its own response.
async fn ask(client: &mut Client, numbers: std::ops::Range<usize>, answered: &Mutex<(u64, BTreeSet<u64>)>) {
    for number in numbers {
        loop {
            let text = json!({"action": "number", "number": number}).to_string();
            client.socket.send(Frame::text(text.clone())).await.unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(35), client.socket.next()).await;
            let answer = answer.expect("an answer is lost").unwrap().unwrap();
            let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
            if answer["message"] == "Internal server error" {
                client.died += 1;
                continue;
            }
            assert_eq!(answer["number"], number, "the answer to another message, or one twice");
            let mut answered = answered.lock().unwrap();
            answered.0 += 1;
            answered.1.insert(answer["pid"].as_u64().unwrap());
            break;
        }
    }
}

pub async fn kills(messages: usize) {
    let gateway =
        Gateway::builder("dev").function(["number"], processes(4)).route_response("number").start().await.unwrap();
    let answered = Arc::new(Mutex::new((0_u64, BTreeSet::new())));
    let start = Instant::now();
    let each = messages / CLIENTS;
    let clients: Vec<_> = connect(&gateway.url(), CLIENTS)
        .await
        .into_iter()
        .enumerate()
        .map(|(index, socket)| {
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                let mut client = Client { socket, died: 0 };
                ask(&mut client, index * each..(index + 1) * each, &answered).await;
                // No further response may arrive.
                let more = tokio::time::timeout(Duration::from_millis(500), client.socket.next()).await;
                assert!(more.is_err(), "an answer came twice: {more:?}");
                client.died
            })
        })
        .collect();
    let killer = {
        let answered = Arc::clone(&answered);
        tokio::spawn(async move {
            let (mut kills, mut dead) = (0_u64, BTreeSet::new());
            loop {
                tokio::time::sleep(Duration::from_millis(2)).await;
                let victim = {
                    let answered = answered.lock().unwrap();
                    if answered.0 >= messages as u64 {
                        return kills;
                    }
                    if answered.0 / KILL_EVERY <= kills {
                        continue;
                    }
                    answered.1.iter().rev().find(|pid| !dead.contains(*pid)).copied()
                };
                if let Some(pid) = victim {
                    dead.insert(pid);
                    if Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success() {
                        kills += 1;
                    }
                }
            }
        })
    };
    let mut died = 0;
    for client in clients {
        died += client.await.unwrap();
    }
    let took = start.elapsed();
    let (total, pids) = answered.lock().unwrap().clone();
    let kills = killer.await.unwrap();
    assert_eq!(total, messages as u64);
    assert!(kills > 0 && died <= kills, "{died} invocations died of {kills} kills");
    println!(
        "figure gateway_kills: {total} of {messages} messages answered once, {kills} kills of {} processes, {died} invocations \
         died and were asked again, {:.1} s (goal all)",
        pids.len(),
        took.as_secs_f64()
    );
    gateway.shutdown().await;
}
