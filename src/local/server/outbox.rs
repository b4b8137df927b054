//! The frames that wait to be sent on one socket.
//!
//! With a channel, a task that sends to itself would be woken once more, possibly on another
//! thread. Here, the socket's task is woken only if it sleeps.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The maximum number of waiting frames; the next push fails with 429.
const SEND_BUFFER: usize = 256;
/// The maximum number of waiting bytes. A message of any size fits into an empty buffer.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The maximum number of bytes sent before the task reads from the client.
///
/// A single frame may be larger.
const BATCH: usize = 64 * 1024;

/// A close code and its reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Close {
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

/// The reason why a frame cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

/// The gateway's end.
///
/// When it is dropped, the socket sends the waiting frames and then the close frame.
pub(super) struct Sender(Arc<Shared>);

/// The socket's end, which its task holds.
pub(super) struct Outbox(Arc<Shared>);

/// The next step of the socket's task.
pub(super) enum Next {
    Send(VecDeque<String>),
    Close(Close),
    /// Nothing to do: [`Outbox::woken`] returns when there is something.
    Sleep,
}

struct Shared {
    state: Mutex<State>,
    something: Notify,
}

#[derive(Default)]
struct State {
    frames: VecDeque<String>,
    /// The total length of the frames.
    bytes: usize,
    close: Option<Close>,
    is_closed: bool,
    is_asleep: bool,
    /// Whether the frames wait until they are released.
    is_held: bool,
}

pub(super) fn outbox() -> (Sender, Outbox) {
    let shared = Arc::new(Shared { state: Mutex::default(), something: Notify::new() });
    (Sender(Arc::clone(&shared)), Outbox(shared))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.is_asleep) {
            self.something.notify_one();
        }
    }
}

impl Sender {
    pub(super) fn send(&self, text: String) -> Result<(), Refused> {
        let mut state = self.0.state();
        if state.is_closed {
            return Err(Refused::Closed);
        }
        let bytes = state.bytes.saturating_add(text.len());
        if state.frames.len() >= SEND_BUFFER || (bytes > MAX_BYTES && !state.frames.is_empty()) {
            return Err(Refused::Full);
        }
        state.bytes = bytes;
        state.frames.push_back(text);
        self.0.wake(state);
        Ok(())
    }

    pub(super) fn hold(&self, held: bool) {
        let mut state = self.0.state();
        state.is_held = held;
        self.0.wake(state);
    }

    pub(super) fn close(self, close: Close) {
        self.0.state().close = Some(close);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.close.get_or_insert(Close { code: 1001, reason: "Going away" });
        self.0.wake(state);
    }
}

impl Outbox {
    /// Returns the next step.
    ///
    /// After [`Next::Sleep`], the task counts as asleep until it calls [`wake_up`](Self::wake_up).
    pub(super) fn next(&self) -> Next {
        let mut state = self.0.state();
        let is_held = state.is_held && state.close.is_none();
        if !state.frames.is_empty() && !is_held {
            let mut batch = 0_usize;
            let mut fits = |frame: &String| {
                batch = batch.saturating_add(frame.len());
                batch <= BATCH
            };
            let count = state.frames.iter().take_while(|frame| fits(frame)).count().max(1);
            let frames = match count == state.frames.len() {
                true => std::mem::take(&mut state.frames),
                false => state.frames.drain(..count).collect(),
            };
            state.bytes = state.bytes.saturating_sub(frames.iter().map(String::len).sum());
            return Next::Send(frames);
        }
        match state.close {
            Some(close) => Next::Close(close),
            None => {
                state.is_asleep = true;
                Next::Sleep
            }
        }
    }

    /// Records that the task is awake and will call [`next`](Self::next) by itself.
    pub(super) fn wake_up(&self) {
        self.0.state().is_asleep = false;
    }

    /// Returns whether the gateway has removed the connection.
    ///
    /// The waiting frames are then sent, followed by a close frame.
    pub(super) fn is_closing(&self) -> bool {
        self.0.state().close.is_some()
    }

    /// Waits until there is something to do.
    pub(super) async fn woken(&self) {
        self.0.something.notified().await;
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::panic, reason = "a panic fails the test")]
mod tests {
    use super::*;

    fn taken(outbox: &Outbox) -> Vec<usize> {
        match outbox.next() {
            Next::Send(frames) => frames.iter().map(String::len).collect(),
            _ => panic!("nothing to send"),
        }
    }

    #[test]
    fn mgt_7_outbox_is_bounded_by_messages_and_bytes() {
        let (sender, outbox) = outbox();
        for _ in 0..SEND_BUFFER {
            assert_eq!(sender.send("x".to_owned()), Ok(()));
        }
        assert_eq!(sender.send("x".to_owned()), Err(Refused::Full));
        assert_eq!(taken(&outbox).len(), SEND_BUFFER);
        let large = "x".repeat(MAX_BYTES / 4);
        for _ in 0..4 {
            assert_eq!(sender.send(large.clone()), Ok(()));
        }
        assert_eq!(sender.send("x".to_owned()), Err(Refused::Full));
        assert_eq!(taken(&outbox), [large.len()], "one at a time, since each is larger than a batch");
        assert_eq!(sender.send("x".to_owned()), Ok(()));
    }

    #[test]
    fn queued_frames_are_sent_before_the_close_frame() {
        let (sender, outbox) = outbox();
        sender.hold(true);
        assert_eq!(sender.send("held".to_owned()), Ok(()));
        assert!(matches!(outbox.next(), Next::Sleep));
        sender.close(Close { code: 1000, reason: "" });
        assert!(outbox.is_closing());
        assert_eq!(taken(&outbox), [4]);
        assert!(matches!(outbox.next(), Next::Close(Close { code: 1000, .. })));
    }

    #[test]
    fn ended_socket_refuses_frames() {
        let (sender, outbox) = outbox();
        drop(outbox);
        assert_eq!(sender.send("x".to_owned()), Err(Refused::Closed));
    }
}
