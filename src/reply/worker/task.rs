//! One job, as the worker's function sees it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::event::CorrelationId;
use crate::push::{PushError, Pusher};
use crate::reply::ReplyAddress;

/// A job and the client that waits for it.
///
/// Clones of what is in it are cheap, so that a part of the work can be given to a task of its own.
pub struct Task<T> {
    /// What is to be done.
    pub job: T,
    address: Arc<ReplyAddress>,
    pusher: Pusher,
}

impl<T> Task<T> {
    pub(super) fn new(job: T, address: Arc<ReplyAddress>, pusher: Pusher) -> Self {
        Self { job, address, pusher }
    }

    /// Where the result will go.
    pub fn address(&self) -> &ReplyAddress {
        &self.address
    }

    /// Which question it is.
    pub fn correlation_id(&self) -> &CorrelationId {
        self.address.correlation_id()
    }

    /// Tells the client how far the job is: it gets `{"correlationId": "…", "progress": …}`. Whether it is still there.
    ///
    /// When it is not, the job may save the rest of the work, or go on for whoever
    /// [stores](crate::reply::Worker::on_unanswered) the result.
    ///
    /// # Errors
    ///
    /// As of [`Pusher::send`], but for [`PushError::Gone`].
    pub async fn progress<P: Serialize + Sync + ?Sized>(&self, progress: &P) -> Result<bool, PushError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Progress<'a, P: ?Sized> {
            correlation_id: &'a CorrelationId,
            progress: &'a P,
        }
        let update = Progress { correlation_id: self.correlation_id(), progress };
        match self.pusher.send(self.address.connection_id(), &update).await {
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
