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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn others_have_their_turn_after_eight_messages() {
        let had_turn = Arc::new(AtomicBool::new(false));
        let other = Arc::clone(&had_turn);
        let waiting = tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
        let mut turn = Turn::default();
        for _ in 1..MESSAGES {
            turn.taken().await;
            assert!(!had_turn.load(Ordering::Relaxed));
        }
        turn.taken().await;
        assert!(had_turn.load(Ordering::Relaxed));
        let _ = waiting.await;
    }
}
