//! One job, as the worker's function sees it.

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
/// Clones of what is in it are cheap, so that a part of the work can be given to a task of its own.
pub struct Task<T> {
    /// What to do.
    pub job: T,
    pub(super) address: Arc<ReplyAddress>,
    pub(super) pusher: Pusher,
    pub(super) format: ReplyFormat,
    pub(super) delivery: Delivery,
}

/// Which delivery of its message a job came with.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message_id: String,
    /// Unknown of sources that do not count.
    pub(super) receive_count: Option<u32>,
    /// Whether the queue gives the message up when it fails now.
    pub(super) is_last: bool,
    /// The trace that the queue names.
    pub(super) trace: Option<TraceContext>,
}

impl<T> Task<T> {
    /// Returns how often the queue has delivered the message, this time included. SNS and EventBridge do not say.
    pub fn receive_count(&self) -> Option<u32> {
        self.delivery.receive_count
    }

    /// Returns the address of the client.
    pub fn address(&self) -> &ReplyAddress {
        &self.address
    }

    /// Returns the id that replies to the request carry.
    pub fn correlation_id(&self) -> &CorrelationId {
        self.address.correlation_id()
    }

    /// Returns the job's key, which is the same each time the queue delivers it.
    ///
    /// Pass it to services that take an idempotency key, so that what the job does there is done once.
    pub fn idempotency_key(&self) -> IdempotencyKey {
        self.address.idempotency_key()
    }

    /// Returns the trace that the job is a part of: that of the request, or else the one that the queue names.
    pub fn trace(&self) -> Option<TraceContext> {
        self.address.trace().or(self.delivery.trace)
    }

    /// The span of the work on the job and on its reply.
    pub(super) fn span(&self, on_trace: Option<&OnTrace>) -> Span {
        let (request_id, trace) = (self.address.request_id(), self.trace());
        // Of the highest level, so that lines of every level say which job they are about.
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

    /// Sends the client `{"id":…,"progress":…}`, and returns whether it is still connected.
    ///
    /// If it is not, the job may save the rest of the work, or go on for a hook that
    /// [stores](crate::reply::Worker::on_undelivered) the result.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent; otherwise as of
    /// [`Pusher::send_payload`], but for [`PushError::Gone`].
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
