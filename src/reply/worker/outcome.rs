//! What becomes of messages and results that do not go their way.

use std::fmt;

use lambda_runtime::Diagnostic;

use super::task::Delivery;
use crate::event::{ApiId, CorrelationId, RequestId, Stage, chain};
use crate::push::PushError;
use crate::reply::{IdempotencyKey, InvalidAddress, ReplyAddress};
use crate::route::{Error, ErrorCode};

/// A result that cannot be delivered, now or later.
#[non_exhaustive]
pub struct Undelivered<R> {
    /// The id that the reply would have carried.
    pub correlation_id: CorrelationId,
    /// The result.
    pub result: R,
    /// Why it cannot be delivered.
    ///
    /// [`PushError::Gone`] when the client has disconnected, [`PushError::TooLarge`] and [`PushError::NotJson`] when the result
    /// is not one that a push can carry, [`PushError::BadRequest`] when API Gateway does not take the connection's id.
    pub reason: PushError,
}

/// Leaves out the result and the id, which are the client's.
impl<R> fmt::Debug for Undelivered<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered").field("reason", &self.reason.to_string()).finish_non_exhaustive()
    }
}

/// A message whose job this worker does not run. It quotes nothing of the message, so it may be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageRejection {
    /// It is not a job that the worker takes.
    #[error("the message {message_id} is not a job: expected {expected}")]
    NotAJob {
        /// The message.
        message_id: String,
        /// What was expected.
        expected: &'static str,
    },
    /// Its address cannot be used.
    #[error("the message {message_id} has no address to reply to")]
    Address {
        /// The message.
        message_id: String,
        /// What is wrong with it.
        source: InvalidAddress,
    },
    /// Its client is connected to another API or stage than those for which the worker has a pusher.
    #[error(
        "the message {message_id} is for a client of {api_id}/{stage}, for which the worker has no pusher: add one by \
         `Worker::with_pusher_for`"
    )]
    OtherApi {
        /// The message.
        message_id: String,
        /// The API.
        api_id: ApiId,
        /// The stage.
        stage: Stage,
    },
}

/// The invocation has to be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotDone {
    /// The event comes from neither SQS nor SNS nor EventBridge.
    #[error("the event is of another kind: expected one of SQS, SNS or EventBridge")]
    Event,
    /// A job is not done, and its source does not know partial batch responses.
    #[error("a job is not done: {reason}")]
    Job {
        /// Why not.
        reason: String,
    },
}

impl From<NotDone> for Diagnostic {
    fn from(error: NotDone) -> Self {
        Self { error_type: "lambda_websocket::NotDone".to_owned(), error_message: chain(&error) }
    }
}

/// A job that has failed. `Display` is for the log: it quotes nothing of a client's error.
#[derive(Debug, Clone)]
pub struct JobFailure {
    code: ErrorCode,
    text: String,
    is_final: bool,
    delivery: Delivery,
    request_id: Option<RequestId>,
    idempotency_key: IdempotencyKey,
}

impl JobFailure {
    pub(super) fn new(error: &Error, address: &ReplyAddress, delivery: &Delivery, is_final: bool) -> Self {
        Self {
            code: error.code().clone(),
            text: error.log_text(),
            is_final,
            delivery: delivery.clone(),
            request_id: address.request_id().cloned(),
            idempotency_key: address.idempotency_key(),
        }
    }

    /// Returns the code that the client gets, once the failure is final.
    pub fn code(&self) -> &ErrorCode {
        &self.code
    }

    /// Returns whether the client is told: the error is for the client, or this was the last delivery of the message.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Returns the id of the queue's message.
    pub fn message_id(&self) -> &str {
        &self.delivery.message_id
    }

    /// Returns how often the queue has delivered the message, where it says so.
    pub fn receive_count(&self) -> Option<u32> {
        self.delivery.receive_count
    }

    /// Returns the gateway's id of the request, if it is known.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// Returns the key of the job.
    pub fn idempotency_key(&self) -> &IdempotencyKey {
        &self.idempotency_key
    }

    pub(super) fn log(&self) {
        let code = self.code.as_str();
        match (self.is_final, self.code.status().is_client_error()) {
            // The queue's own line says why the message is retried.
            (false, _) => {}
            (true, true) => tracing::warn!(code, reason = %self.text, "the job was refused"),
            (true, false) => tracing::error!(code, error = %self.text, "the job failed for good"),
        }
    }
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => write!(f, "refused with {}", self.code),
            text => f.write_str(text),
        }
    }
}

/// What becomes of one message.
pub(super) enum Outcome {
    Done,
    Retry(String),
    /// The client was told, and the queue passes the message to its dead-letter queue.
    GivenUp(String),
}

pub(super) const PANICKED: &str = "the job panicked";

impl Outcome {
    pub(super) fn panicked() -> Self {
        Self::Retry(PANICKED.to_owned())
    }
}
