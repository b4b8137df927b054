//! Processing of one event: concurrency, message groups, and the partial batch response.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lambda_events::sqs::SqsBatchResponse;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::incoming::{Delivered, Incoming};
use super::outcome::Outcome;
use super::work::Leases;
use super::{UnfinishedJob, Worker};
use crate::clock;
use crate::event::within_deadline;

/// Reserved at the end of the invocation for reporting unfinished jobs.
const MARGIN: Duration = Duration::from_millis(500);
/// The part of the margin in which leases of unfinished jobs may be released.
const RELEASE: Duration = Duration::from_millis(250);

impl<T, R> Worker<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    /// Processes one event until 500 ms before the deadline.
    ///
    /// Returns the partial batch response for SQS, and `None` for other sources.
    ///
    /// # Errors
    ///
    /// [`UnfinishedJob::Event`] if the event contains no messages from a supported source;
    /// [`UnfinishedJob::Job`] if a job from SNS or EventBridge must be retried.
    ///
    /// # Panics
    ///
    /// Panics if called outside of a tokio runtime with its timer enabled.
    pub async fn handle(&self, event: Value, deadline: SystemTime) -> Result<Option<SqsBatchResponse>, UnfinishedJob> {
        let Incoming { is_sqs, messages } = Incoming::read(event)?;
        // Messages still in this map at the deadline are retried.
        let late = || "there was no time for it".to_owned();
        let open = messages.iter().enumerate().map(|(index, message)| (index, (message.message_id.clone(), late())));
        let open: Mutex<BTreeMap<usize, (String, String)>> = Mutex::new(open.collect());
        let lock = || open.lock().unwrap_or_else(PoisonError::into_inner);
        let leases = Leases::default();
        let work = stream::iter(in_groups(messages)).for_each_concurrent(self.shared.concurrency, |group| async {
            for (index, message) in group {
                // A panic in a hook or in the store affects only this message.
                let work = AssertUnwindSafe(self.shared.work_on(message, &leases)).catch_unwind().await;
                match work.unwrap_or_else(|_| Outcome::panicked()) {
                    Outcome::Done => drop(lock().remove(&index)),
                    // The rest of the group waits for this message.
                    Outcome::Retry(reason) => {
                        if let Some((message_id, why)) = lock().get_mut(&index) {
                            tracing::warn!(%message_id, %reason, "the message is retried");
                            *why = reason;
                        }
                        return;
                    }
                    // The message moves to the dead-letter queue. The rest of the group has been
                    // delivered as often without being run, so stopping here would move it there
                    // too.
                    Outcome::GivenUp(reason) => {
                        if let Some((_, why)) = lock().get_mut(&index) {
                            *why = reason;
                        }
                    }
                }
            }
        });
        let left = deadline.duration_since(clock::now()).unwrap_or_default().saturating_sub(MARGIN);
        let _ = timeout(left, within_deadline(deadline, work)).await;
        // Lets other workers acquire the leases of unfinished jobs before they expire.
        let _ = timeout(RELEASE, self.shared.release(leases)).await;
        let open = std::mem::take(&mut *lock());
        match open.into_values().collect::<Vec<_>>() {
            open if is_sqs => {
                let mut response = SqsBatchResponse::default();
                response.set_failures(open.into_iter().map(|(message_id, _)| message_id));
                Ok(Some(response))
            }
            open => match open.into_iter().next() {
                None => Ok(None),
                Some((_, reason)) => Err(UnfinishedJob::Job { reason }),
            },
        }
    }
}

/// Groups messages by FIFO message group, in order; other messages are groups of one.
fn in_groups(messages: Vec<Delivered>) -> Vec<Vec<(usize, Delivered)>> {
    let mut groups: Vec<Vec<(usize, Delivered)>> = Vec::new();
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for (index, message) in messages.into_iter().enumerate() {
        let known = message.group.as_ref().and_then(|name| by_name.get(name)).copied();
        match known.and_then(|at| groups.get_mut(at)) {
            Some(group) => group.push((index, message)),
            None => {
                if let Some(name) = &message.group {
                    by_name.insert(name.clone(), groups.len());
                }
                groups.push(vec![(index, message)]);
            }
        }
    }
    groups
}
