//! The time from the start of a process to its first push.

use std::process::Command;
use std::time::Instant;

use lambda_websocket::Pusher;
use lambda_websocket::event::Region;
use lambda_websocket::push::{Direct, Sdk};

use super::contenders::endpoint;
use super::server::Server;
use super::stub::{Behavior, connection_id};

/// Pushes once and prints how long the push took, in microseconds.
///
/// With `warmed`, the pusher is warmed up before.
pub async fn push(what: &str) {
    let address = std::env::var("STUB").unwrap();
    let pusher = match what {
        "sdk" => {
            let region = Region::new("us-east-1").unwrap();
            Pusher::new(Sdk::with_static_credentials(&endpoint(&address), &region, "id", "secret"))
        }
        _ => {
            let endpoint: lambda_websocket::push::Endpoint = format!("http://{address}/dev").parse().unwrap();
            let credentials = aws_credential_types::Credentials::new("id", "secret", None, None, "bench");
            Pusher::new(Direct::new(&endpoint.with_region(Region::new("us-east-1").unwrap()), credentials).unwrap())
        }
    };
    if what == "warmed" {
        pusher.warm_up().await.unwrap();
    }
    let start = Instant::now();
    pusher.send_text(&connection_id(1), "hello").await.unwrap();
    println!("{}", start.elapsed().as_micros());
}

pub fn measure() {
    let server = Server::start(Behavior { forgets: true, ..Behavior::default() });
    for what in ["direct", "warmed", "sdk"] {
        let mut runs: Vec<(u128, u128)> = (0..21)
            .map(|_| {
                let start = Instant::now();
                let ran = Command::new(std::env::current_exe().unwrap())
                    .args(["--first", what])
                    .env("STUB", &server.address)
                    .output()
                    .unwrap();
                assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
                (start.elapsed().as_micros(), String::from_utf8(ran.stdout).unwrap().trim().parse().unwrap())
            })
            .collect();
        runs.sort_unstable();
        let whole = runs[runs.len() / 2].0 as f64 / 1000.0;
        runs.sort_unstable_by_key(|run| run.1);
        let push = runs[runs.len() / 2].1 as f64 / 1000.0;
        println!(
            "figure first_push_{what}: {whole:.1} ms from spawn to end of the process, {push:.2} ms of it the push"
        );
    }
}
