//! A transport for unit tests.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;

use super::{ConnectionInfo, Payload, Push, PushError};
use crate::clock;
use crate::event::ConnectionId;

/// A transport that records pushes instead of sending them, and fails on demand.
///
/// Clones share the recorded pushes.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Pusher;
/// use lambda_websocket::event::ConnectionId;
/// use lambda_websocket::push::{PushError, Recorder};
/// use lambda_websocket::route::StatusCode;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let recorder = Recorder::new();
/// recorder.answer(StatusCode::TOO_MANY_REQUESTS);
/// let connection_id = ConnectionId::new("L0SM9cOFvHcCIhw=")?;
/// Pusher::new(recorder.clone())
///     .send_text(&connection_id, "throttled, then delivered")
///     .await?;
/// assert_eq!((recorder.attempts(), recorder.pushes().len()), (2, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    attempts: usize,
    pushes: Vec<RecordedPush>,
    closed: BTreeSet<ConnectionId>,
    answers: VecDeque<StatusCode>,
}

/// A payload that was pushed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedPush {
    /// The connection that it was pushed to.
    pub connection_id: ConnectionId,
    /// The bytes of the payload.
    pub payload: Bytes,
}

impl RecordedPush {
    /// Returns the payload as the client sees it, with invalid UTF-8 replaced by U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// Shows only the length of the payload.
impl fmt::Debug for RecordedPush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordedPush({}, {} bytes)", self.connection_id, self.payload.len())
    }
}

impl Recorder {
    /// Creates a recorder for which every connection is open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a status as the response to the next attempt.
    ///
    /// Each attempt takes one queued status, in order. Default: 200, or 410 for a closed
    /// connection.
    pub fn answer(&self, status: StatusCode) {
        self.state().answers.push_back(status);
    }

    /// Closes a connection: later attempts return 410.
    pub fn hang_up(&self, connection_id: &ConnectionId) {
        self.state().closed.insert(connection_id.clone());
    }

    /// Returns the recorded pushes in order.
    pub fn pushes(&self) -> Vec<RecordedPush> {
        self.state().pushes.clone()
    }

    /// Returns the closed connections, ordered by id.
    pub fn closed(&self) -> Vec<ConnectionId> {
        self.state().closed.iter().cloned().collect()
    }

    /// Returns the number of attempts, including failed ones.
    pub fn attempts(&self) -> usize {
        self.state().attempts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self, connection_id: &ConnectionId, size: usize) -> Result<MutexGuard<'_, State>, PushError> {
        let mut state = self.state();
        state.attempts = state.attempts.saturating_add(1);
        let open = if state.closed.contains(connection_id) { StatusCode::GONE } else { StatusCode::OK };
        let status = state.answers.pop_front().unwrap_or(open);
        match PushError::from_response(connection_id, size, status, None, b"") {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }
}

#[async_trait]
impl Push for Recorder {
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        let mut state = self.attempt(connection_id, payload.bytes().len())?;
        state.pushes.push(RecordedPush { connection_id: connection_id.clone(), payload: payload.bytes().clone() });
        Ok(())
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        let _open = self.attempt(connection_id, 0)?;
        let now = clock::now();
        Ok(ConnectionInfo::new(now, now))
    }

    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.attempt(connection_id, 0)?.closed.insert(connection_id.clone());
        Ok(())
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("attempts", &self.attempts()).finish_non_exhaustive()
    }
}
