//! Whose turn it is: one client that floods the gateway must not keep the others waiting.

use tokio::task::yield_now;

/// So many messages of one client are taken, before others have their turn. The runtime would let a socket go on for as long as
/// it finds something to read, which is thousands of small messages.
const MESSAGES: u8 = 8;

/// The turn of one socket.
#[derive(Default)]
pub(super) struct Turn {
    messages: u8,
}

impl Turn {
    /// A message was taken. Returns when the next one may be.
    pub(super) async fn taken(&mut self) {
        self.messages = self.messages.saturating_add(1);
        if self.messages >= MESSAGES {
            self.messages = 0;
            yield_now().await;
        }
    }
}
