//! A stream of tokens, compared with one push for each token.
//!
//! Frames and times are measured in virtual time: exact, and the same in every run. Valgrind's
//! callgrind, which this program runs on itself, counts instructions, over a transport that does
//! nothing.

use std::process::Command;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use lambda_websocket::Pusher;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::{ConnectionInfo, Payload, Push, PushError};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::stub::connection_id;

const TOKEN: Duration = Duration::from_millis(5);
const LATENCY: Duration = Duration::from_millis(20);

/// A transport that succeeds after this time, or at once if it is zero.
#[derive(Debug)]
struct After(Duration);

#[async_trait::async_trait]
impl Push for After {
    async fn post(&self, _: &ConnectionId, _: &Payload) -> Result<(), PushError> {
        if !self.0.is_zero() {
            sleep(self.0).await;
        }
        Ok(())
    }
    async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        unreachable!()
    }
    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        unreachable!()
    }
}

/// The payload for one token in the hand-written version.
#[derive(Serialize)]
struct Token {
    seq: usize,
    chunk: &'static str,
}

/// Tokens that arrive one by one, as from a socket: each has to be awaited.
fn one_by_one(count: usize) -> impl Stream<Item = &'static str> + Send {
    stream::iter(0..count).then(|_| async {
        tokio::task::yield_now().await;
        " token"
    })
}

/// Sends tokens in this way, this many times.
pub fn repeat(way: &str, times: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (pusher, id) = (Pusher::new(After(Duration::ZERO)), connection_id(7));
    runtime.block_on(async {
        match way {
            "gathered" => {
                let report = pusher.stream(&id, stream::iter(std::iter::repeat_n(" token", times))).await;
                assert_eq!((report.tokens, report.is_success()), (times as u64, true));
            }
            "frame_each" => {
                let streaming = pusher.stream(&id, one_by_one(times)).with_max_latency(Duration::ZERO);
                let report = streaming.await;
                assert_eq!((report.tokens, report.is_success()), (times as u64, true));
            }
            _ => {
                let mut tokens = std::pin::pin!(one_by_one(times));
                let mut seq = 0;
                while let Some(chunk) = tokens.next().await {
                    pusher.send(&id, &Token { seq, chunk }).await.unwrap();
                    seq += 1;
                }
            }
        }
    });
}

fn instructions(way: &str) -> Option<u64> {
    let count = |times: &str| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().ok()?)
            .args(["--stream", way, times])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stderr).ok()?;
        let line = text.lines().find(|line| line.contains("Collected :"))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    Some((count("11000")? - count("1000")?) / 10_000)
}

pub fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let tokens = || {
            stream::iter(0..1000).then(|_| async {
                sleep(TOKEN).await;
                " token"
            })
        };
        let (pusher, id) = (Pusher::new(After(LATENCY)), connection_id(7));
        let start = Instant::now();
        let mut by_hand = std::pin::pin!(tokens());
        while let Some(token) = by_hand.next().await {
            pusher.send_text(&id, token).await.unwrap();
        }
        let one_by_one = start.elapsed();
        for latency in [50, 0] {
            let streaming = pusher.stream(&id, tokens()).with_max_latency(Duration::from_millis(latency));
            let report = streaming.await;
            assert!(report.is_success(), "{report}");
            println!(
                "figure stream_1000_tokens_latency_{latency}: {} frames, {} ms vs 1000 pushes, {} ms = {:.3} (goal none)",
                report.frames,
                report.elapsed.as_millis(),
                one_by_one.as_millis(),
                report.elapsed.as_secs_f64() / one_by_one.as_secs_f64()
            );
        }
    });
    let sends = instructions("sends");
    for way in ["gathered", "frame_each"] {
        match instructions(way).zip(sends) {
            Some((ours, sends)) => println!(
                "figure stream_token_{way} instructions: {ours} vs {sends} of a send = {:.3} (goal none)",
                ours as f64 / sends as f64
            ),
            None => println!("figure stream_token_{way} instructions: not counted, since valgrind did not run"),
        }
    }
}
