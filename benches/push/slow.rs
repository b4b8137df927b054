//! A broadcast with clients that do not read.
//!
//! It runs in virtual time: the figures are exact, and the same in every run.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_websocket::Pusher;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::{ConnectionInfo, Payload, Push, PushError};
use tokio::time::{Instant, sleep};

use super::stub::connection_id;

const RECIPIENTS: usize = 10_000;
const LATENCY: Duration = Duration::from_millis(15);

/// Responds after 15 ms: with 429 for slow connections, and with 200 for the others.
#[derive(Debug, Clone)]
struct Api {
    slow: Arc<HashSet<ConnectionId>>,
    last_delivery: Arc<Mutex<Instant>>,
}

#[async_trait::async_trait]
impl Push for Api {
    async fn post(&self, id: &ConnectionId, _: &Payload) -> Result<(), PushError> {
        sleep(LATENCY).await;
        if self.slow.contains(id) {
            return Err(PushError::Throttled { connection_id: id.clone() });
        }
        *self.last_delivery.lock().unwrap() = Instant::now();
        Ok(())
    }
    async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        unreachable!()
    }
    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        unreachable!()
    }
}

/// Returns the time until the last delivery, and from there to the report.
async fn broadcast(slow: HashSet<ConnectionId>) -> (Duration, Duration) {
    let start = Instant::now();
    let api = Api { slow: Arc::new(slow), last_delivery: Arc::new(Mutex::new(start)) };
    let count = api.slow.len();
    let pusher = Pusher::new(api.clone()).with_timeout(Duration::from_secs(29));
    let report = pusher.broadcast((0..RECIPIENTS).map(connection_id), "hello").unwrap().await;
    assert_eq!((report.delivered, report.slow_consumers().count()), (RECIPIENTS - count, count), "{report}");
    let last = *api.last_delivery.lock().unwrap();
    (last - start, last.elapsed())
}

pub fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (alone, _) = broadcast(HashSet::new()).await;
        println!("figure broadcast_slow_0: last delivery after {} ms", alone.as_millis());
        for count in [1, 8, 64, 500] {
            let spread = (0..count).map(|number| number * (RECIPIENTS / count));
            for (place, slow) in [("spread", spread.collect::<Vec<_>>()), ("first", (0..count).collect())] {
                let (last, after) = broadcast(slow.into_iter().map(connection_id).collect()).await;
                println!(
                    "figure broadcast_slow_{count}_{place}: last delivery after {} ms vs {} ms = {:.2} (goal 1.3); {} ms more \
                     until the report (goal 5000)",
                    last.as_millis(),
                    alone.as_millis(),
                    last.as_secs_f64() / alone.as_secs_f64(),
                    after.as_millis()
                );
            }
        }
    });
}
