//! Pushes messages to the client of an event.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::Stream;
use serde::Serialize;

use super::FromEvent;
use crate::event::{ConnectionId, Event};
use crate::push::{PendingStream, PushError, Pusher};
use crate::route::Result;

/// Pushes messages to the client of the event, in addition to the route's reply.
///
/// A handler can take it as an argument if the state of its router is a [`Pusher`] or implements
/// `AsRef<Pusher>`. In `$connect` the connection is not open yet, so every push fails with
/// [`PushError::Gone`].
///
/// # Examples
///
/// ```
/// use lambda_websocket::route::Sender;
/// use lambda_websocket::{Json, Pusher, Result, Router};
///
/// #[derive(serde::Deserialize)]
/// struct Count { end: u32 }
///
/// async fn count(Json(count): Json<Count>, sender: Sender) -> Result<Json<&'static str>> {
///     for number in 1..=count.end.min(10) {
///         sender.send(&number).await?;
///     }
///     Ok(Json("done"))
/// }
///
/// # fn show(pusher: Pusher) -> Router<Pusher> {
/// Router::with_state(pusher).on("count", count)
/// # }
/// ```
#[derive(Clone)]
pub struct Sender {
    pusher: Pusher,
    id: ConnectionId,
}

impl Sender {
    /// Returns the id of the connection.
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// Sends a value as JSON to the client.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] or [`PushError::TooLarge`] before anything is sent; otherwise the
    /// error of the last attempt, such as [`PushError::Gone`]. See [`Pusher::send`].
    pub async fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), PushError> {
        self.pusher.send(&self.id, value).await
    }

    /// Sends tokens as numbered frames. See [`Pusher::stream`].
    pub fn stream<'a, T: AsRef<str> + 'a>(&self, tokens: impl Stream<Item = T> + Send + 'a) -> PendingStream<'a, T> {
        self.pusher.stream(&self.id, tokens)
    }
}

impl<S: AsRef<Pusher> + Send + Sync + 'static> FromEvent<S> for Sender {
    async fn from_event(event: &Event, state: &Arc<S>) -> Result<Self> {
        Ok(Self { pusher: state.as_ref().as_ref().clone(), id: event.request_context().connection_id.clone() })
    }
}

impl AsRef<Self> for Pusher {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("id", &self.id).finish_non_exhaustive()
    }
}
