//! One job, as the handler sees it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tracing::Span;

use super::delivery;
use crate::event::{CorrelationId, OnTrace, TraceContext};
use crate::push::{Payload, PushError, Pusher};
use crate::reply::{IdempotencyKey, ReplyAddress};
use crate::route::ReplyFormat;

/// A job and the client that waits for its result.
///
/// Its parts are cheap to clone, so that you can move part of the work to a separate async task.
pub struct Task<T> {
    /// The deserialized job.
    pub job: T,
    pub(super) address: Arc<ReplyAddress>,
    pub(super) pusher: Pusher,
    pub(super) format: ReplyFormat,
    pub(super) delivery: Delivery,
}

/// The delivery of a message that a job came with.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message_id: String,
    /// `None` if the source does not count deliveries.
    pub(super) receive_count: Option<u32>,
    /// Whether the message moves to the dead-letter queue if the job fails now.
    pub(super) is_last: bool,
    /// The trace named by the queue.
    pub(super) trace: Option<TraceContext>,
}

impl<T> Task<T> {
    /// Returns how often the message has been delivered, including this delivery.
    ///
    /// Returns `None` for SNS and EventBridge, which do not count deliveries.
    pub fn receive_count(&self) -> Option<u32> {
        self.delivery.receive_count
    }

    /// Returns the reply address of the client.
    pub fn address(&self) -> &ReplyAddress {
        &self.address
    }

    /// Returns the correlation id that replies to the request carry.
    pub fn correlation_id(&self) -> &CorrelationId {
        self.address.correlation_id()
    }

    /// Returns the job's key, which is the same in each delivery.
    ///
    /// Pass it to services that accept an idempotency key, so that the job's effects there happen
    /// once.
    pub fn idempotency_key(&self) -> IdempotencyKey {
        self.address.idempotency_key()
    }

    /// Returns the trace that the job belongs to.
    ///
    /// This is the request's trace or, if it has none, the trace named by the queue.
    pub fn trace(&self) -> Option<TraceContext> {
        self.address.trace().or(self.delivery.trace)
    }

    /// Creates the span for running the job and sending its reply.
    pub(super) fn span(&self, on_trace: Option<&OnTrace>) -> Span {
        let (request_id, trace) = (self.address.request_id(), self.trace());
        // At the highest level, so that log lines of every level name their job.
        let span = tracing::error_span!(
            "job",
            message_id = self.delivery.message_id,
            request_id = request_id.map(display),
            connection_id = %self.address.connection_id(),
            trace_id = trace.map(|trace| trace.trace_id()),
        );
        if let (Some(hook), Some(trace)) = (on_trace, trace) {
            hook(&span, trace);
        }
        span
    }

    /// Sends `{"id":…,"progress":…}` and returns whether the client is still connected.
    ///
    /// If the client has disconnected, the job may stop, or continue for a hook that
    /// [stores](crate::reply::Worker::on_undelivered) the result.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] if the value fails to serialize as JSON and [`PushError::TooLarge`]
    /// if the frame exceeds the maximum payload, before anything is sent; otherwise the errors of
    /// [`Pusher::send_payload`], except [`PushError::Gone`].
    pub async fn progress<P: Serialize + Sync + ?Sized>(&self, progress: &P) -> Result<bool, PushError> {
        let json = serde_json::to_string(progress).map_err(|source| PushError::NotJson { source })?;
        let payload = Payload::new(self.format.progress(self.correlation_id(), &json))?;
        match delivery::send(&self.pusher, &self.address, &payload).await {
            Ok(()) => Ok(true),
            Err(PushError::Gone { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Shows the request id and the delivery.
impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("address", &self.address).field("delivery", &self.delivery).finish_non_exhaustive()
    }
}
