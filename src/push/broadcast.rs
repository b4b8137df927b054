//! Sends payloads to many connections.

mod backoff;
mod future;
mod pace;
mod report;

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Serialize;

pub use self::future::Broadcast;
pub use self::report::{FailedPush, Report};
use super::{Payload, PushError, Pusher};
use crate::event::ConnectionId;

/// The payload for a connection, and its transport if it is not the pusher's own.
pub(crate) type Content = Result<(Arc<Payload>, Option<Arc<dyn super::Push>>), PushError>;

impl Pusher {
    /// Sends a value as JSON to each of these connections.
    ///
    /// The value is serialized once. Connections are taken one by one as slots become free, and
    /// never collected: at most [`with_concurrency`](Self::with_concurrency) pushes are under way,
    /// fewer while API Gateway throttles the account. Retryable errors are retried until the
    /// deadline of the call, which covers the whole broadcast. Two payloads for the same connection
    /// arrive in order.
    ///
    /// A connection that waits for its next attempt holds no slot, so it does not delay the others.
    /// When 1,024 connections wait, the broadcast takes no further ones until one of them is done.
    ///
    /// API Gateway returns 429 both when the account sends too much and when one client does not
    /// read. The broadcast slows down only if refused connections later succeed as often as the
    /// others do, or if no push succeeds. Otherwise it gives up a connection after four 429s or two
    /// seconds, as [`PushError::SlowConsumer`]; while the account is throttled, after sixteen 429s.
    /// Later payloads for such a connection have one attempt each.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent. The [`Report`]
    /// has all other errors.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::Pusher;
    /// use lambda_websocket::event::ConnectionId;
    /// use lambda_websocket::push::Recorder;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let ids = ["L0SM9cOFvHcCIhw=", "L0SM9cOFvHcCIhx="].map(ConnectionId::new);
    /// let ids = ids.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// let pusher = Pusher::new(Recorder::new());
    /// let report = pusher.broadcast(ids, &serde_json::json!({"hello": "everyone"}))?.await;
    /// assert_eq!((report.delivered, report.gone.len(), report.is_success()), (2, 0, true));
    /// # Ok(())
    /// # }
    /// ```
    pub fn broadcast<'a, T: Serialize + ?Sized>(
        &self,
        connections: impl IntoIterator<Item = ConnectionId, IntoIter: Send + 'a>,
        value: &T,
    ) -> Result<Broadcast<'a>, PushError> {
        self.broadcast_stream(stream::iter(connections), value)
    }

    /// Sends a value as JSON to each connection of a stream, such as a paginated query.
    ///
    /// Otherwise it works as [`broadcast`](Self::broadcast) does.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent.
    pub fn broadcast_stream<'a, T: Serialize + ?Sized>(
        &self,
        connections: impl Stream<Item = ConnectionId> + Send + 'a,
        value: &T,
    ) -> Result<Broadcast<'a>, PushError> {
        Ok(self.broadcast_payload(connections, Payload::json(value)?))
    }

    /// Sends an existing payload to each connection of a stream.
    ///
    /// Otherwise it works as [`broadcast`](Self::broadcast) does.
    pub fn broadcast_payload<'a>(
        &self,
        connections: impl Stream<Item = ConnectionId> + Send + 'a,
        payload: Payload,
    ) -> Broadcast<'a> {
        let payload = Arc::new(payload);
        Broadcast::new(self, connections.map(move |id| (id, Ok((Arc::clone(&payload), None)))))
    }

    /// Sends each connection of a stream its own value as JSON.
    ///
    /// Otherwise it works as [`broadcast`](Self::broadcast) does. A value that fails to serialize,
    /// or is too large, is a [`FailedPush`] of its connection. For an iterator, use
    /// [`futures_util::stream::iter`](https://docs.rs/futures-util/latest/futures_util/stream/fn.iter.html).
    pub fn broadcast_with<'a, T: Serialize>(
        &self,
        messages: impl Stream<Item = (ConnectionId, T)> + Send + 'a,
    ) -> Broadcast<'a> {
        Broadcast::new(
            self,
            messages.map(|(id, value)| (id, Payload::json(&value).map(|payload| (Arc::new(payload), None)))),
        )
    }

    /// Sends each connection of a stream its own payload, optionally through its own transport.
    #[cfg(feature = "hub")]
    pub(crate) fn broadcast_through<'a>(
        &self,
        messages: impl Stream<Item = (ConnectionId, Content)> + Send + 'a,
    ) -> Broadcast<'a> {
        Broadcast::new(self, messages)
    }
}
