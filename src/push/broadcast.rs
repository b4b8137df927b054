//! One payload to many connections.

mod backoff;
mod future;
mod pace;
mod report;

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Serialize;

pub use self::future::Broadcast;
pub use self::report::{Failure, Report};
use super::{Payload, PushError, Pusher};
use crate::event::ConnectionId;

/// What goes to a connection, and through which transport, where it is not the pusher's own.
pub(crate) type Content = Result<(Arc<Payload>, Option<Arc<dyn super::Push>>), PushError>;

impl Pusher {
    /// Sends a value as JSON to each of these connections.
    ///
    /// The value is serialized once. The connections are taken one by one as there is room, and never collected: at most
    /// [`with_concurrency`](Self::with_concurrency) pushes are under way, fewer while API Gateway throttles the account. Errors
    /// that can pass are retried until the deadline of the call, which is that of the whole broadcast. Two payloads to the same
    /// connection arrive in order.
    ///
    /// A connection waits for its next attempt without holding one of those places, so that it does not delay the others. At
    /// most 1,024 connections wait; then no further ones are taken until one of them is through.
    ///
    /// API Gateway answers 429 both when the account sends too much and when one client does not read. The broadcast slows
    /// down only when connections that were refused get through later as often as the others do, or when nobody gets through.
    /// Otherwise a connection is given up after four 429s or two seconds, as [`PushError::SlowConsumer`]; while the account is
    /// throttled, after sixteen. Later payloads for a connection that was given up have one attempt each.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent. Everything else is in the [`Report`].
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
    /// let ids = ["L0SM9cOFvHcCIhw=", "L0SM9cOFvHcCIhx="].into_iter().map(ConnectionId::new).collect::<Result<Vec<_>, _>>()?;
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

    /// Sends a value as JSON to each connection of a stream, such as the pages of a database.
    ///
    /// As [`broadcast`](Self::broadcast) does.
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

    /// Sends a payload that was made before to each connection of a stream.
    ///
    /// As [`broadcast`](Self::broadcast) does.
    pub fn broadcast_payload<'a>(
        &self,
        connections: impl Stream<Item = ConnectionId> + Send + 'a,
        payload: Payload,
    ) -> Broadcast<'a> {
        let payload = Arc::new(payload);
        Broadcast::new(self, connections.map(move |id| (id, Ok((Arc::clone(&payload), None)))))
    }

    /// Sends each connection of a stream a value of its own, as JSON.
    ///
    /// As [`broadcast`](Self::broadcast) does. A value that cannot be sent is a [`Failure`] of its connection. For an
    /// iterator there is [`futures_util::stream::iter`](https://docs.rs/futures-util/latest/futures_util/stream/fn.iter.html).
    pub fn broadcast_with<'a, T: Serialize>(
        &self,
        messages: impl Stream<Item = (ConnectionId, T)> + Send + 'a,
    ) -> Broadcast<'a> {
        Broadcast::new(
            self,
            messages.map(|(id, value)| (id, Payload::json(&value).map(|payload| (Arc::new(payload), None)))),
        )
    }

    /// Sends each connection of a stream a payload, through a transport of its own or this one's.
    #[cfg(feature = "hub")]
    pub(crate) fn broadcast_through<'a>(
        &self,
        messages: impl Stream<Item = (ConnectionId, Content)> + Send + 'a,
    ) -> Broadcast<'a> {
        Broadcast::new(self, messages)
    }
}
