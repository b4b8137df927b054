//! What metrics and spans add to an event, compared with hand-written ones.
//!
//! The hand-written code has the same span, counter, and histogram.
//!
//! ```sh
//! cargo bench --bench observability --no-default-features --features metrics,runtime
//! ```
//!
//! The recorder is that of CloudWatch's embedded metric format, flushed after every 50 events. The
//! subscriber formats JSON. Both discard their output. Each row runs in a separate process, because
//! a process can install only one recorder and one subscriber.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench that panics has failed, which is all it can do"
)]

use std::env;
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use lambda_websocket::{Event, Json, Message, Router};
use metrics_cloudwatch_embedded::{Builder, Collector};
use tracing::Instrument as _;

const EVENT: &str = r#"{"requestContext":{"routeKey":"say","messageId":"Kb7qAd4-PHcCIhw=","eventType":"MESSAGE","stage":"dev","connectedAt":1700000000000,"requestTimeEpoch":1700000005000,"identity":{"sourceIp":"203.0.113.7"},"requestId":"Kb7qAF22PHcEdGg=","domainName":"a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com","connectionId":"Kb7p2d5_vHcCIhw=","apiId":"a1b2c3d4e5"},"body":"{\"action\":\"say\",\"message\":\"hello\"}","isBase64Encoded":false}"#;

const ROWS: [(&str, &str); 5] = [
    ("nothing", "nothing is installed"),
    ("metrics", "recorder"),
    ("spans", "subscriber"),
    ("both", "recorder and subscriber"),
    ("by-hand", "the same by hand"),
];

#[derive(serde::Deserialize)]
struct Say {
    message: String,
}

fn finish<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn event() -> Event {
    Event::from_slice(black_box(EVENT.as_bytes())).unwrap()
}

/// Handles one event and finishes its response.
fn ours(router: &Router) {
    black_box(finish(router.handle(event())).unwrap());
}

/// Does the same work without a router: one span, one counter, one histogram.
fn by_hand() {
    let Event::Message(message) = event() else { panic!() };
    let context = message.request_context().clone();
    let span = tracing::info_span!(
        "websocket",
        request_id = %context.request_id,
        connection_id = %context.connection_id,
        route_key = %context.route_key,
        trace_id = tracing::field::Empty,
    );
    let answer = async {
        let start = Instant::now();
        let say: Say = serde_json::from_slice(message.body.as_bytes()).unwrap();
        let answer = serde_json::to_string(&say.message.len()).unwrap();
        let route = context.route_key.to_string();
        metrics::histogram!("by_hand_seconds", "route" => route.clone()).record(start.elapsed().as_secs_f64());
        metrics::counter!("by_hand", "route" => route, "code" => "ok").increment(1);
        answer
    };
    black_box(finish(answer.instrument(span)));
}

fn work(row: &str, times: usize) -> f64 {
    let collector = matches!(row, "metrics" | "both" | "by-hand")
        .then(|| -> &'static Collector { Builder::new().cloudwatch_namespace("bench").init().unwrap() });
    if matches!(row, "spans" | "both" | "by-hand") {
        tracing_subscriber::fmt().json().with_writer(io::sink).init();
    }
    let router = Router::new().on("say", |event: Message<Say>| async move { Ok(Json(event.body.message.len())) });
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for round in 0..times {
            match row {
                "by-hand" => by_hand(),
                _ => ours(&router),
            }
            if round % 50 == 49
                && let Some(collector) = collector
            {
                collector.flush(io::sink()).unwrap();
            }
        }
        best = best.min(start.elapsed().as_secs_f64() / times as f64);
    }
    best * 1e9
}

/// Returns the instructions of one event: the difference between a long and a short run.
fn instructions(row: &str) -> Option<u64> {
    let count = |times: &str| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().ok()?)
            .args(["--row", row, times])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stderr).ok()?;
        text.lines().find(|line| line.contains("Collected :"))?.rsplit(' ').next()?.parse::<u64>().ok()
    };
    // Each run repeats its events five times.
    Some((count("1100")? - count("100")?) / 5000)
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, row, times] = &arguments[..]
        && flag == "--row"
    {
        println!("{}", work(row, times.parse().unwrap()));
        return;
    }
    let mut first = None;
    println!("{:<26} {:>8} {:>10} {:>14} {:>10}", "installed", "ns", "more ns", "instructions", "more");
    for (row, title) in ROWS {
        let output = Command::new(env::current_exe().unwrap()).args(["--row", row, "20000"]).output().unwrap();
        let nanoseconds: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let counted = instructions(row).unwrap_or_default();
        let (base, base_counted) = *first.get_or_insert((nanoseconds, counted));
        println!(
            "{title:<26} {nanoseconds:>8.0} {:>10.0} {counted:>14} {:>10}",
            nanoseconds - base,
            counted.saturating_sub(base_counted)
        );
    }
}
