//! Results that cannot be delivered, rejected messages, and failed jobs.

use std::fmt;

use lambda_runtime::Diagnostic;

use super::task::Delivery;
use crate::event::{ApiId, CorrelationId, RequestId, Stage, chain};
use crate::push::PushError;
use crate::reply::{IdempotencyKey, InvalidAddress, ReplyAddress};
use crate::route::{Error, ErrorCode};

/// A result that cannot be delivered, even by a retry.
#[non_exhaustive]
pub struct Undelivered<R> {
    /// The id that the reply would have carried.
    pub correlation_id: CorrelationId,
    /// The result of the job.
    pub result: R,
    /// The error that prevented the delivery.
    ///
    /// [`PushError::Gone`] if the client has disconnected, [`PushError::TooLarge`] and
    /// [`PushError::NotJson`] if a push cannot carry the result, [`PushError::BadRequest`] if API
    /// Gateway rejects the connection id.
    pub reason: PushError,
}

/// Omits the result and the correlation id, which are the client's data.
impl<R> fmt::Debug for Undelivered<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered").field("reason", &self.reason.to_string()).finish_non_exhaustive()
    }
}

/// A message whose job this worker does not run.
///
/// It does not quote the message, so it may be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageRejection {
    /// The message is not a job that the worker accepts.
    #[error("the message {message_id} is not a job: expected {expected}")]
    NotAJob {
        /// The id of the message.
        message_id: String,
        /// The expected form.
        expected: &'static str,
    },
    /// The message's reply address cannot be used.
    #[error("the message {message_id} has no address to reply to")]
    Address {
        /// The id of the message.
        message_id: String,
        /// What is wrong with the address.
        source: InvalidAddress,
    },
    /// The worker has no pusher for the client's API and stage.
    #[error(
        "the message {message_id} is for a client of {api_id}/{stage}, for which the worker has no pusher: add one by \
         `Worker::with_pusher_for`"
    )]
    OtherApi {
        /// The id of the message.
        message_id: String,
        /// The client's API.
        api_id: ApiId,
        /// The client's stage.
        stage: Stage,
    },
}

/// The invocation failed and must be retried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnfinishedJob {
    /// The event does not come from SQS, SNS, or EventBridge, or cannot be parsed.
    #[error("the event is of another kind: expected one of SQS, SNS or EventBridge")]
    Event,
    /// A job must be retried, and its source does not support partial batch responses.
    #[error("a job is not done: {reason}")]
    Job {
        /// Why the job must be retried.
        reason: String,
    },
}

impl From<UnfinishedJob> for Diagnostic {
    fn from(error: UnfinishedJob) -> Self {
        Self { error_type: "lambda_websocket::UnfinishedJob".to_owned(), error_message: chain(&error) }
    }
}

/// A job that has failed.
///
/// Its `Display` output is for logs: it contains no text of an error for the client.
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

    /// Returns the error code that the client gets once the failure is final.
    pub fn code(&self) -> &ErrorCode {
        &self.code
    }

    /// Returns whether the failure is final, so that the client is told.
    ///
    /// It is final if the error is for the client, or if this was the message's last delivery.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Returns the id of the queue message.
    pub fn message_id(&self) -> &str {
        &self.delivery.message_id
    }

    /// Returns how often the message has been delivered, if the queue counts deliveries.
    pub fn receive_count(&self) -> Option<u32> {
        self.delivery.receive_count
    }

    /// Returns API Gateway's id of the request, if it is known.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// Returns the job's idempotency key.
    pub fn idempotency_key(&self) -> &IdempotencyKey {
        &self.idempotency_key
    }

    pub(super) fn log(&self) {
        let code = self.code.as_str();
        match (self.is_final, self.code.status().is_client_error()) {
            // The log line about the retried message contains the reason.
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

/// The outcome of one message.
pub(super) enum Outcome {
    Done,
    Retry(String),
    /// The client was told, and the queue moves the message to its dead-letter queue.
    GivenUp(String),
}

pub(super) const PANICKED: &str = "the job panicked";

impl Outcome {
    pub(super) fn panicked() -> Self {
        Self::Retry(PANICKED.to_owned())
    }
}
