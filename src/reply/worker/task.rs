//! One job, as the worker's function sees it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::delivery;
use crate::event::CorrelationId;
use crate::push::{Payload, PushError, Pusher};
use crate::reply::frame::Frame;
use crate::reply::{IdempotencyKey, ReplyAddress};

/// A job and the client that waits for its result.
///
/// Clones of what is in it are cheap, so that a part of the work can be given to a task of its own.
pub struct Task<T> {
    /// What to do.
    pub job: T,
    pub(super) address: Arc<ReplyAddress>,
    pub(super) pusher: Pusher,
}

impl<T> Task<T> {
    pub(super) fn new(job: T, address: Arc<ReplyAddress>, pusher: Pusher) -> Self {
        Self { job, address, pusher }
    }

    /// Returns the address of the client.
    pub fn address(&self) -> &ReplyAddress {
        &self.address
    }

    /// Returns the id of the request.
    pub fn correlation_id(&self) -> &CorrelationId {
        self.address.correlation_id()
    }

    /// Returns the job's key, which is the same each time the queue delivers it.
    ///
    /// Pass it to services that take an idempotency key, so that what the job does there is done once.
    pub fn idempotency_key(&self) -> IdempotencyKey {
        self.address.idempotency_key()
    }

    /// Sends the client `{"correlationId": "…", "progress": …}`, and returns whether it is still connected.
    ///
    /// If it is not, the job may save the rest of the work, or go on for a hook that
    /// [stores](crate::reply::Worker::on_undelivered) the result.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent; otherwise as of
    /// [`Pusher::send_payload`], but for [`PushError::Gone`].
    pub async fn progress<P: Serialize + Sync + ?Sized>(&self, progress: &P) -> Result<bool, PushError> {
        let payload = Payload::json(&Frame::progress(self.correlation_id(), progress))?;
        match delivery::send(&self.pusher, &self.address, &payload).await {
            Ok(()) => Ok(true),
            Err(PushError::Gone { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Shows the correlation id alone.
impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("address", &self.address).finish_non_exhaustive()
    }
}
