//! The cost of sealing and opening an address, and the throughput of a worker.
//!
//! The worker is compared with a hand-written loop.
//!
//! ```sh
//! cargo bench --bench reply --no-default-features --features worker
//! ```
//!
//! Valgrind's callgrind, which this program runs on itself, counts instructions, also those of the
//! signature alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench that panics has failed, which is all it can do"
)]

use std::env;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use lambda_websocket::Pusher;
use lambda_websocket::event::{ConnectionId, CorrelationId};
use lambda_websocket::push::Recorder;
use lambda_websocket::reply::{Job, Keys, ReplyAddress, Task, Worker};
use serde_json::{Value, json};

fn keys() -> Keys {
    Keys::new("k", [7; 32]).unwrap()
}

fn address() -> ReplyAddress {
    let endpoint = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev".parse().unwrap();
    let id = ConnectionId::new("L0SM9cOFvHcCIhw=").unwrap();
    let expiry = SystemTime::now() + Duration::from_secs(7200);
    ReplyAddress::new(id, endpoint, CorrelationId::new("Kb7qAF22PHcEdGg=").unwrap(), expiry)
}

fn repeat(what: &str, times: usize) {
    let (keys, address, now) = (keys(), address(), SystemTime::now());
    let job = Job::seal(&json!({"number": 1}), &address, &keys).unwrap();
    let text = job.reply_to().as_str().as_bytes();
    let key = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(&[7; 32]).unwrap();
    for _ in 0..times {
        match what {
            "seal" => drop(black_box(Job::seal(black_box(&json!({"number": 1})), &address, black_box(&keys)))),
            "open" => drop(black_box(job.open(black_box(&keys), now))),
            _ => drop(black_box(hmac::Mac::finalize(hmac::Mac::chain_update(key.clone(), black_box(text))))),
        }
    }
}

fn instructions(what: &str) -> Option<u64> {
    let count = |times: &str| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().ok()?)
            .args(["--repeat", what, times])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stderr).ok()?;
        let line = text.lines().find(|line| line.contains("Collected :"))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    Some((count("220")? - count("20")?) / 200)
}

/// A batch of ten jobs, as in an event from SQS.
fn batch() -> Value {
    let keys = keys();
    let records = (0..10).map(|number| {
        let job = Job::seal(&json!({"number": number}), &address(), &keys).unwrap();
        json!({"messageId": format!("m{number}"), "receiptHandle": "r", "body": serde_json::to_string(&job).unwrap(),
            "attributes": {}, "messageAttributes": {}, "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:1:q", "awsRegion": "eu-central-1"})
    });
    json!({"Records": records.collect::<Vec<_>>()})
}

/// A typical hand-written loop: no signatures, panic handling, or groups; one job at a time.
async fn by_hand(event: Value, pusher: &Pusher) -> SqsBatchResponse {
    let event: SqsEvent = serde_json::from_value(event).unwrap();
    let mut response = SqsBatchResponse::default();
    for record in event.records {
        let body: Value = serde_json::from_str(&record.body.unwrap()).unwrap();
        let job: Value = serde_json::from_str(body["job"].as_str().unwrap()).unwrap();
        let id = ConnectionId::new("L0SM9cOFvHcCIhw=").unwrap();
        let answer = json!({"id": "Kb7qAF22PHcEdGg=", "result": job["number"]});
        if pusher.send(&id, &answer).await.is_err() {
            response.add_failure(record.message_id.unwrap());
        }
    }
    response
}

async fn jobs_per_second() -> (f64, f64) {
    let event = batch();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        // A recorder stores every push, so each round gets a new one.
        let worker = Worker::new(Pusher::new(Recorder::new()), keys(), |task: Task<Value>| async move {
            Ok(task.job["number"].as_u64())
        });
        let start = Instant::now();
        for _ in 0..200 {
            let deadline = SystemTime::now() + Duration::from_secs(60);
            let response = worker.handle(event.clone(), deadline).await.unwrap().unwrap();
            assert!(response.batch_item_failures.is_empty());
        }
        ours.push(2000.0 / start.elapsed().as_secs_f64());
        let pusher = Pusher::new(Recorder::new());
        let start = Instant::now();
        for _ in 0..200 {
            assert!(by_hand(event.clone(), &pusher).await.batch_item_failures.is_empty());
        }
        theirs.push(2000.0 / start.elapsed().as_secs_f64());
    }
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    (ours[7], theirs[7])
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, what, times] = arguments.as_slice()
        && flag == "--repeat"
    {
        return repeat(what, times.parse().unwrap());
    }
    let bare = instructions("bare");
    for what in ["seal", "open"] {
        match instructions(what).zip(bare) {
            Some((ours, bare)) => {
                let ratio = ours as f64 / bare as f64;
                println!(
                    "figure reply_{what} instructions: {ours} vs {bare} of the HMAC alone = {ratio:.2} (goal none)"
                );
            }
            None => println!("figure reply_{what} instructions: not counted, since valgrind did not run (goal none)"),
        }
    }
    println!(
        "figure reply_address_length: {} bytes",
        Job::seal(&1, &address(), &keys()).unwrap().reply_to().as_str().len()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ours, theirs) = runtime.block_on(jobs_per_second());
    println!("figure worker_jobs: {ours:.0}/s vs {theirs:.0}/s by hand = {:.2} (goal none)", ours / theirs);
}
