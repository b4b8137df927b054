//! What becomes of messages and results that do not go their way.

use std::fmt;

use lambda_runtime::Diagnostic;

use crate::event::{ApiId, CorrelationId, Stage, chain};
use crate::push::PushError;
use crate::reply::InvalidAddress;

/// A result that cannot be delivered, now or later.
#[non_exhaustive]
pub struct Undelivered<R> {
    /// The id of the request.
    pub correlation_id: CorrelationId,
    /// The result.
    pub result: R,
    /// Why it cannot be delivered.
    ///
    /// [`PushError::Gone`] when the client has disconnected, [`PushError::TooLarge`] and [`PushError::NotJson`] when the result
    /// is not one that a push can carry, [`PushError::BadRequest`] when API Gateway does not take the connection's id.
    pub reason: PushError,
}

/// Leaves out the result, which is the client's.
impl<R> fmt::Debug for Undelivered<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered")
            .field("correlation_id", &self.correlation_id)
            .field("reason", &self.reason.to_string())
            .finish_non_exhaustive()
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

/// What becomes of one message.
pub(super) enum Outcome {
    Done,
    Retry(String),
}

impl Outcome {
    pub(super) fn panicked() -> Self {
        Self::Retry("the job panicked".to_owned())
    }
}
