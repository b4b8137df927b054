//! How does the result of a slow job get to the client that asked? By a function behind the queue, which pushes it there.
//!
//! It takes the jobs that [enqueue](enqueue.rs) puts into the queue. The client gets
//! `{"id":7,"progress":{"added":3,"of":6}}` now and then, and `{"id":7,"result":21}` at last.
//!
//! Needs `REPLY_KEY` in its environment, what a function needs to push, and an event source mapping with
//! `ReportBatchItemFailures`. With `IDEMPOTENCY_TABLE` it runs each job once, though queues may deliver it several times.

use std::env;
use std::time::Duration;

use lambda_websocket::reply::{DynamoDb, Keys, Task, Worker};
use lambda_websocket::route::{Error, ErrorCode};
use lambda_websocket::{Pusher, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
pub struct Sum {
    pub numbers: Vec<u64>,
}

#[derive(Serialize)]
struct Added {
    added: usize,
    of: usize,
}

/// That of the queue in `examples/deploy/queue.yaml`: after so many deliveries a job is given up, and its client hears of it.
const MAX_RECEIVE_COUNT: u32 = 5;

/// The job: it tells how far it is after every hundred numbers.
async fn sum(task: Task<Sum>) -> Result<u64> {
    let numbers = &task.job.numbers;
    let mut sum = 0_u64;
    let mut added: usize = 0;
    for hundred in numbers.chunks(100) {
        // No attempt will do better, so the client is told at once.
        let overflow = || Error::client(ErrorCode::new("overflow"), "the sum is more than 2^64 - 1");
        sum = hundred.iter().try_fold(sum, |sum, number| sum.checked_add(*number)).ok_or_else(overflow)?;
        added = added.saturating_add(hundred.len());
        task.progress(&Added { added, of: numbers.len() }).await?;
    }
    Ok(sum)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let keys =
        Keys::new("example", env::var("REPLY_KEY").map_err(|_| "set REPLY_KEY to a secret of 32 bytes or more")?)?;
    let mut worker = Worker::new(Pusher::from_env().await?, keys, sum).with_max_receive_count(MAX_RECEIVE_COUNT);
    if let Ok(table) = env::var("IDEMPOTENCY_TABLE") {
        // As long as the function may run.
        let lease = env::var("IDEMPOTENCY_LEASE").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
        let store = DynamoDb::new(table).await.with_lease(Duration::from_secs(lease));
        worker = worker.with_idempotency_store(store);
    }
    worker.run().await
}
