//! HTTP connections that are kept open for further calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::Shared;

/// The number of connections that are kept even if they are idle.
///
/// A burst of calls opens more, each of which costs file descriptors.
const MAX_IDLE: usize = 16;
/// How long a connection beyond [`MAX_IDLE`] waits for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// An HTTP connection, until it ends or becomes a WebSocket.
pub(super) struct KeepAlive {
    shared: Arc<Shared>,
    /// The number of requests that have begun.
    begun: AtomicUsize,
    /// The number of requests with a response, which is never more than have begun.
    answered: AtomicUsize,
}

impl KeepAlive {
    pub(super) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        shared.http_connections.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { shared: Arc::clone(shared), begun: AtomicUsize::new(0), answered: AtomicUsize::new(0) })
    }

    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the connection has served requests, is idle, and exceeds the maximum.
    pub(super) async fn surplus(&self) {
        loop {
            let before = self.begun.load(Ordering::Relaxed);
            sleep(IDLE_TIMEOUT).await;
            let is_idle =
                before == self.begun.load(Ordering::Relaxed) && before == self.answered.load(Ordering::Relaxed);
            if before > 0 && is_idle && self.shared.http_connections.load(Ordering::Relaxed) > MAX_IDLE {
                return;
            }
        }
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.shared.http_connections.fetch_sub(1, Ordering::Relaxed);
    }
}
