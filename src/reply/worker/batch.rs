//! One event: which of its messages are worked on at a time, and which are retried.

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
use super::{NotDone, Worker};
use crate::clock;
use crate::event::within_deadline;

/// What is left of the invocation to say which jobs are not done.
const MARGIN: Duration = Duration::from_millis(500);
/// What of it may go into releasing the leases of jobs that are not finished.
const RELEASE: Duration = Duration::from_millis(250);

impl<T, R> Worker<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    /// Works on one event until 500 ms before this deadline.
    ///
    /// Returns the partial batch response for SQS, and nothing for the other sources.
    ///
    /// # Errors
    ///
    /// [`NotDone::Event`] for an event that brings no jobs; [`NotDone::Job`] when a job from SNS or EventBridge is to be retried.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its timer enabled.
    pub async fn handle(&self, event: Value, deadline: SystemTime) -> Result<Option<SqsBatchResponse>, NotDone> {
        let Incoming { is_sqs, messages } = Incoming::read(event)?;
        // What is still in here when the time is up is retried.
        let late = || "there was no time for it".to_owned();
        let open = messages.iter().enumerate().map(|(index, message)| (index, (message.message_id.clone(), late())));
        let open: Mutex<BTreeMap<usize, (String, String)>> = Mutex::new(open.collect());
        let lock = || open.lock().unwrap_or_else(PoisonError::into_inner);
        let leases = Leases::default();
        let work = stream::iter(in_groups(messages)).for_each_concurrent(self.shared.concurrency, |group| async {
            for (index, message) in group {
                // A panic of a hook or of the store is the message's alone, too.
                let work = AssertUnwindSafe(self.shared.work_on(message, &leases)).catch_unwind().await;
                match work.unwrap_or_else(|_| Outcome::panicked()) {
                    Outcome::Done => drop(lock().remove(&index)),
                    // What follows in the group waits for it.
                    Outcome::Retry(reason) => {
                        if let Some((message_id, why)) = lock().get_mut(&index) {
                            tracing::warn!(%message_id, %reason, "the message is retried");
                            *why = reason;
                        }
                        return;
                    }
                    // It is on its way to the dead-letter queue. What follows has been delivered as often without being run, so
                    // it would come there with it.
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
        // Other workers need not wait until the leases of unfinished jobs end by themselves.
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
                Some((_, reason)) => Err(NotDone::Job { reason }),
            },
        }
    }
}

/// The messages of a FIFO queue's group one after the other; all others by themselves.
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
