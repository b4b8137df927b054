//! One message: from its text to the result at the client.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::delivery;
use super::incoming::Delivered;
use super::outcome::{MessageRejection, Outcome, Undelivered};
use super::store::{Claim, IdempotencyStore, LeaseOwner};
use super::{Shared, Task, Trust};
use crate::clock;
use crate::event::{CorrelationId, chain};
use crate::push::{Payload, PushError, Pusher};
use crate::reply::frame::{ErrorCode, Frame};
use crate::reply::sealed::Binding;
use crate::reply::{IdempotencyKey, InvalidAddress, Job, ReplyAddress};

/// The leases that jobs under way have, or have asked for.
pub(super) type Leases = Mutex<BTreeSet<(IdempotencyKey, LeaseOwner)>>;

impl<T, R> Shared<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    pub(super) async fn work_on(&self, message: Delivered, leases: &Leases) -> Outcome {
        match self.accept(message) {
            Ok(task) => self.run_once(task, leases).await,
            Err(rejection) => self.reject(&rejection),
        }
    }

    /// Checks everything about a message that can be checked before its job runs.
    fn accept(&self, message: Delivered) -> Result<Task<T>, MessageRejection> {
        let message_id = message.message_id.clone();
        let job = match message.job() {
            Ok(job) => job,
            Err(expected) => return Err(MessageRejection::NotAJob { message_id, expected }),
        };
        let address = match self.open(&job) {
            Ok(address) => Arc::new(address),
            Err(source) => return Err(MessageRejection::Address { message_id, source }),
        };
        let pusher = match address.endpoint().api() {
            None => self.pushers.default(),
            Some((api_id, stage)) => match self.pushers.find(address.connection_id(), api_id, stage) {
                Ok(pusher) => pusher,
                Err(_) => {
                    let (api_id, stage) = (api_id.clone(), stage.clone());
                    return Err(MessageRejection::OtherApi { message_id, api_id, stage });
                }
            },
        };
        match job.decode() {
            Ok(job) => Ok(Task::new(job, address, pusher.clone())),
            // The error itself quotes what it found.
            Err(error) => {
                let expected = if error.is_data() { "what the worker takes" } else { "JSON" };
                Err(MessageRejection::NotAJob { message_id, expected })
            }
        }
    }

    fn open(&self, job: &Job) -> Result<ReplyAddress, InvalidAddress> {
        let now = clock::now();
        match &self.trust {
            Trust::Bound(keys) => job.open(keys, now),
            Trust::MaybeUnbound(keys) => job.reply_to().open(Binding::MaybeTo(job.json()), keys, now),
            Trust::Unsigned => job.reply_to().open_unchecked(now),
        }
    }

    fn reject(&self, rejection: &MessageRejection) -> Outcome {
        if let Some(hook) = &self.on_rejection {
            hook(rejection);
        }
        match rejection {
            // It does not become younger.
            MessageRejection::Address { source: InvalidAddress::Expired { .. }, .. } => Outcome::Done,
            _ => {
                let reason = chain(rejection);
                tracing::error!(%reason, "the message was rejected");
                Outcome::Retry(reason)
            }
        }
    }

    async fn run_once(&self, task: Task<T>, leases: &Leases) -> Outcome {
        let Some(store) = &self.store else { return self.run(task).await };
        let lock = || leases.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, owner) = (task.idempotency_key(), LeaseOwner::random());
        // Ahead of the request: a lease may be there though its answer has not come yet.
        lock().insert((key.clone(), owner.clone()));
        let outcome = match store.acquire(&key, &owner).await {
            Ok(Claim::Acquired) => {
                let id = task.correlation_id().clone();
                let outcome = AssertUnwindSafe(self.run(task)).catch_unwind().await;
                let outcome = outcome.unwrap_or_else(|_| Outcome::panicked());
                let stored = match &outcome {
                    Outcome::Done => store.complete(&key).await,
                    Outcome::Retry(_) => store.release(&key, &owner).await,
                };
                if let Err(error) = stored {
                    // The lease ends by itself; a job that was done may be done once more.
                    tracing::warn!(correlation_id = %id, error = %chain(&*error), "the outcome was not stored");
                }
                outcome
            }
            Ok(Claim::Completed) => Outcome::Done,
            Ok(Claim::InProgress) => Outcome::Retry("another worker is running the job".to_owned()),
            Err(error) => {
                release(&**store, &key, &owner).await;
                Outcome::Retry(chain(&*error))
            }
        };
        lock().remove(&(key, owner));
        outcome
    }

    pub(super) async fn release(&self, leases: Leases) {
        let Some(store) = &self.store else { return };
        let leases = leases.into_inner().unwrap_or_else(PoisonError::into_inner);
        join_all(leases.iter().map(|(key, owner)| release(&**store, key, owner))).await;
    }

    async fn run(&self, task: Task<T>) -> Outcome {
        let (address, pusher) = (Arc::clone(&task.address), task.pusher.clone());
        let correlation_id = address.correlation_id();
        let result = match (self.handler)(task).await {
            Ok(result) => result,
            Err(error) => return Outcome::Retry(chain(&*error)),
        };
        let delivered = match Payload::json(&Frame::result(correlation_id, &result)) {
            Ok(payload) => delivery::send(&pusher, &address, &payload).await,
            Err(error) => Err(error),
        };
        let reason = match delivered {
            Ok(()) => return Outcome::Done,
            Err(error) => error,
        };
        match &reason {
            PushError::Gone { .. } => {}
            // Its own text says what happened; what is behind it may quote the result.
            PushError::TooLarge { .. } | PushError::NotJson { .. } | PushError::BadRequest { .. } => {
                tracing::error!(%correlation_id, error = %reason, "the result cannot be delivered");
            }
            PushError::Forbidden { .. }
            | PushError::Credentials { .. }
            | PushError::Untrusted { .. }
            | PushError::OtherApi { .. }
            | PushError::Unexpected { .. } => {
                // Until an operator mends it, no result is delivered: the messages are kept for then.
                tracing::error!(%correlation_id, error = %chain(&reason), "the worker cannot push");
                return Outcome::Retry(chain(&reason));
            }
            PushError::Throttled { .. }
            | PushError::SlowConsumer { .. }
            | PushError::Unavailable { .. }
            | PushError::Unreachable { .. }
            | PushError::TimedOut { .. }
            | PushError::Interrupted => return Outcome::Retry(chain(&reason)),
        }
        send_error(&pusher, &address, &reason).await;
        if let Some(hook) = &self.on_undelivered {
            hook(Undelivered { correlation_id: correlation_id.clone(), result, reason }).await;
        }
        Outcome::Done
    }
}

/// Sends the client an error instead of the result, if that can be delivered.
async fn send_error(pusher: &Pusher, address: &ReplyAddress, reason: &PushError) {
    let correlation_id: &CorrelationId = address.correlation_id();
    let (code, message) = match reason {
        PushError::TooLarge { size } => (
            ErrorCode::TooLarge,
            format!("the result has {size} bytes, and a message carries at most {}", crate::push::LARGEST_PAYLOAD),
        ),
        PushError::NotJson { .. } => (ErrorCode::Internal, "the result cannot be sent".to_owned()),
        // Nothing can be pushed to this connection.
        _ => return,
    };
    let sent = match Payload::json(&Frame::error(correlation_id, code, &message)) {
        Ok(payload) => delivery::send(pusher, address, &payload).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::warn!(%correlation_id, error = %chain(&error), "the client does not know that it gets no result");
    }
}

async fn release(store: &dyn IdempotencyStore, key: &IdempotencyKey, owner: &LeaseOwner) {
    if let Err(error) = store.release(key, owner).await {
        tracing::warn!(error = %chain(&*error), "a lease was not released: it ends by itself");
    }
}
