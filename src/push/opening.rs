//! Lets one request open the connection that the others share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};

/// After this long without a request, the connection may be closed. Pools close idle ones after 30
/// seconds at the earliest.
const IDLE: Duration = Duration::from_secs(25);
/// How long requests wait for the one that connects; then they connect themselves.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);

/// Tracks whether a connection is open.
///
/// Without one, concurrent requests would each open one, since none of them knows yet that the
/// endpoint speaks HTTP/2. Clones share the state.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    used: Arc<Mutex<Option<Instant>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The right to open the connection. Other requests wait until it is dropped.
#[derive(Debug)]
pub(super) struct Lead {
    opening: Opening,
    _turn: OwnedMutexGuard<()>,
}

impl Opening {
    /// Waits while another request connects. Returns the right to connect if there is still no
    /// connection.
    pub(super) async fn enter(&self) -> Option<Lead> {
        if self.is_open() {
            return None;
        }
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.turn).lock_owned()).await.ok()?;
        (!self.is_open()).then(|| Lead { opening: self.clone(), _turn: turn })
    }

    /// Marks the connection as lost: the next request opens one alone.
    pub(super) fn closed(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_open(&self) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_open = used.is_some_and(|at| now.saturating_duration_since(at) < IDLE);
        if is_open {
            *used = Some(now);
        }
        is_open
    }
}

impl Lead {
    /// Marks the connection as open, so that other requests use it.
    pub(super) fn opened(self) {
        *self.opening.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}
