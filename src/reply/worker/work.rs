//! Processing of one message, from its body to the client's reply.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use super::delivery;
use super::incoming::Delivered;
use super::outcome::{JobFailure, MessageRejection, Outcome, PANICKED, Undelivered};
use super::store::{Claim, IdempotencyStore, LeaseOwner};
use super::task::Delivery;
use super::{Shared, Task, Trust};
use crate::clock;
use crate::event::chain;
use crate::metrics::{self, JobTimer};
use crate::push::{MAX_PAYLOAD_BYTES, Payload, PushError, Pusher};
use crate::reply::sealed::Binding;
use crate::reply::{IdempotencyKey, InvalidAddress, Job, ReplyAddress};
use crate::route::failure::INTERNAL;
use crate::route::protocol::{Addressee, ErrorBody};
use crate::route::{Error, ErrorCode};

/// The leases that running jobs have acquired or requested.
pub(super) type Leases = Mutex<BTreeSet<(IdempotencyKey, LeaseOwner)>>;

impl<T, R> Shared<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    pub(super) async fn work_on(&self, message: Delivered, leases: &Leases) -> Outcome {
        let timer = JobTimer::start();
        let (outcome, label) = match self.accept(message) {
            Ok(task) => {
                let span = task.span(self.on_trace.as_ref());
                let outcome = self.run_once(task, leases).instrument(span).await;
                let label = match outcome {
                    Outcome::Done => "done",
                    Outcome::Retry(_) => "retried",
                    Outcome::GivenUp(_) => "given_up",
                };
                (outcome, label)
            }
            Err(rejection) => (self.reject(&rejection), "rejected"),
        };
        timer.end(label);
        outcome
    }

    /// Checks everything about a message that can be checked before running its job.
    fn accept(&self, message: Delivered) -> Result<Task<T>, MessageRejection> {
        let message_id = message.message_id.clone();
        let (receive_count, trace) = (message.receive_count, message.trace);
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
            Ok(job) => {
                // There is a last delivery only if the source counts deliveries and a maximum is
                // set.
                let is_last = receive_count.zip(self.max_receive_count).is_some_and(|(count, max)| count >= max);
                let delivery = Delivery { message_id, receive_count, is_last, trace };
                Ok(Task { job, address, pusher: pusher.clone(), format: self.format.clone(), delivery })
            }
            // The error's own message quotes the input.
            Err(error) => {
                let expected = if error.is_data() { "a value of the worker's job type" } else { "JSON" };
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
            // A retry cannot help: the address stays expired.
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
        // Recorded before the request, because the lease may exist before its response arrives.
        lock().insert((key.clone(), owner.clone()));
        let outcome = match store.acquire(&key, &owner).await {
            Ok(Claim::Acquired) => {
                let outcome = AssertUnwindSafe(self.run(task)).catch_unwind().await;
                let outcome = outcome.unwrap_or_else(|_| Outcome::panicked());
                let stored = match &outcome {
                    // The client of a job that is given up has been told, and must be told only
                    // once.
                    Outcome::Done | Outcome::GivenUp(_) => store.complete(&key).await,
                    Outcome::Retry(_) => store.release(&key, &owner).await,
                };
                if let Err(error) = stored {
                    // The lease expires; a completed job may then run again.
                    tracing::warn!(error = %chain(&*error), "the outcome was not stored");
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
        let to = Recipient { address: Arc::clone(&task.address), pusher: task.pusher.clone() };
        let delivery = task.delivery.clone();
        // Both the handler and the future that it returns may panic.
        let job = AssertUnwindSafe(async { (self.handler)(task).await }).catch_unwind();
        match job.await.unwrap_or_else(|_| Err(Error::message(PANICKED))) {
            Ok(result) => self.deliver(&to, result).await,
            Err(error) => self.fail(&to, &delivery, error).await,
        }
    }

    async fn deliver(&self, to: &Recipient, result: R) -> Outcome {
        let correlation_id = to.address.correlation_id();
        let reason = match serde_json::to_string(&result).map_err(|source| PushError::NotJson { source }) {
            Ok(json) => match to.send(self.format.result(correlation_id, &json)).await {
                Ok(()) => return Outcome::Done,
                Err(error) => error,
            },
            Err(error) => error,
        };
        match &reason {
            PushError::Gone { .. } => {}
            // Only the error's own message is logged: its source may quote the result.
            PushError::TooLarge { .. } | PushError::NotJson { .. } | PushError::BadRequest { .. } => {
                tracing::error!(error = %reason, "the result cannot be delivered");
            }
            PushError::Forbidden { .. }
            | PushError::Credentials { .. }
            | PushError::Untrusted { .. }
            | PushError::OtherApi { .. }
            | PushError::Unexpected { .. } => {
                // No result is delivered until an operator fixes this; the queue keeps the messages
                // until then.
                tracing::error!(error = %chain(&reason), "the worker cannot push");
                return Outcome::Retry(chain(&reason));
            }
            PushError::Throttled { .. }
            | PushError::SlowConsumer { .. }
            | PushError::Unavailable { .. }
            | PushError::Unreachable { .. }
            | PushError::TimedOut { .. }
            | PushError::Interrupted => return Outcome::Retry(chain(&reason)),
        }
        let error = match &reason {
            PushError::TooLarge { size } => Some(Error::reply_too_large(*size, MAX_PAYLOAD_BYTES)),
            PushError::NotJson { .. } => Some(Error::message("the result failed to serialize as JSON")),
            // Nothing can be pushed to this connection.
            _ => None,
        };
        if let Some(error) = error {
            match self.send_error(to, &error).await {
                Ok(()) | Err(PushError::Gone { .. }) => {}
                // The client has not been told, so the job is retried.
                Err(untold) => return Outcome::Retry(chain(&untold)),
            }
        }
        metrics::undelivered(reason.kind());
        // The client has received its last frame, so a panic in the hook does not cause a retry.
        if let Some(hook) = &self.on_undelivered {
            let undelivered = Undelivered { correlation_id: correlation_id.clone(), result, reason };
            if AssertUnwindSafe(async { hook(undelivered).await }).catch_unwind().await.is_err() {
                tracing::error!("the hook of the worker panicked");
            }
        }
        Outcome::Done
    }

    /// Decides whether a failed job is final, and tells the client and the hook.
    async fn fail(&self, to: &Recipient, delivery: &Delivery, error: Error) -> Outcome {
        let error = self.errors.apply(error);
        let is_over = error.is_for_client() || delivery.is_last;
        let failure = JobFailure::new(&error, &to.address, delivery, is_over);
        failure.log();
        let told = match is_over {
            true => self.send_error(to, &error).await,
            false => Ok(()),
        };
        let outcome = match (told, error.is_for_client()) {
            // The client has not been told, so the job is retried.
            (Err(untold), _) if !matches!(untold, PushError::Gone { .. }) => Outcome::Retry(chain(&untold)),
            (_, true) => Outcome::Done,
            (_, false) if is_over => Outcome::GivenUp(error.log_text()),
            (_, false) => Outcome::Retry(error.log_text()),
        };
        if let Some(hook) = &self.on_error
            && AssertUnwindSafe(async { hook(failure).await }).catch_unwind().await.is_err()
        {
            tracing::error!("the hook of the worker panicked");
        }
        outcome
    }

    /// Sends an error to the client instead of the result.
    async fn send_error(&self, to: &Recipient, error: &Error) -> Result<(), PushError> {
        let request_id = to.address.request_id().filter(|_| *error.code() == ErrorCode::INTERNAL);
        let in_log = request_id.map(|id| serde_json::json!({"requestId": id}));
        let details = error.details().or(in_log.as_ref());
        let body = ErrorBody { code: error.code(), message: error.client_text().unwrap_or(INTERNAL), details };
        let addressee = Addressee::Id(to.address.correlation_id());
        match to.send(self.format.error(addressee, body)).await {
            Err(PushError::TooLarge { size }) => {
                let message = Error::reply_too_large(size, MAX_PAYLOAD_BYTES).to_string();
                to.send(
                    self.format.error(addressee, ErrorBody { code: error.code(), message: &message, details: None }),
                )
                .await
            }
            sent => sent,
        }
    }
}

/// The client that waits for a job.
struct Recipient {
    address: Arc<ReplyAddress>,
    pusher: Pusher,
}

impl Recipient {
    async fn send(&self, frame: String) -> Result<(), PushError> {
        delivery::send(&self.pusher, &self.address, &Payload::new(frame)?).await
    }
}

async fn release(store: &dyn IdempotencyStore, key: &IdempotencyKey, owner: &LeaseOwner) {
    if let Err(error) = store.release(key, owner).await {
        tracing::warn!(error = %chain(&*error), "failed to release a lease: it expires by itself");
    }
}
