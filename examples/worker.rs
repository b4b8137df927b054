//! A function behind a queue that runs slow jobs and pushes their results to clients.
//!
//! It runs the jobs that [enqueue](enqueue.rs) puts into the queue. The client gets
//! `{"id":7,"progress":{"added":6,"of":6}}` for each progress report, and finally
//! `{"id":7,"result":21}`.
//!
//! The function needs `REPLY_KEY` in its environment, the permissions and environment of a function
//! that pushes, and an event source mapping with `ReportBatchItemFailures`. If `IDEMPOTENCY_TABLE`
//! is set, it runs each job once, even if the queue delivers it several times.

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

/// The `maxReceiveCount` of the queue in `examples/deploy/queue.yaml`.
///
/// After this many deliveries a job is given up, and its client is told.
const MAX_RECEIVE_COUNT: u32 = 5;

/// The job: adds numbers, and reports progress after every hundred.
async fn sum(task: Task<Sum>) -> Result<u64> {
    let numbers = &task.job.numbers;
    let mut sum = 0_u64;
    let mut added: usize = 0;
    for hundred in numbers.chunks(100) {
        // A retry cannot succeed, so the client is told at once.
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
        // As long as the function timeout.
        let lease = env::var("IDEMPOTENCY_LEASE").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
        let store = DynamoDb::new(table).await.with_lease(Duration::from_secs(lease));
        worker = worker.with_idempotency_store(store);
    }
    worker.run().await
}
