//! Recipients that wait for their next attempt. They hold no slot meanwhile.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::pace::Attempt;
use crate::event::ConnectionId;
use crate::push::{Payload, Push, PushError};
use crate::retry::Delays;

/// A connection is given up after this many 429s while the account is not throttled.
const MAX_REFUSALS: u32 = 4;
/// A connection is given up after this many 429s in any case.
const MAX_REFUSALS_IN_ALL: u32 = 16;
/// A 429 this long after a connection's first one ends its attempts.
const MAX_TIME: Duration = Duration::from_secs(2);
/// A client that does not read needs time to catch up, so the first delay after a 429 is longer
/// than after other errors.
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(1);
/// The source is not read while this many recipients wait, or their own payloads take this many
/// bytes.
const MAX_WAITING: usize = 1024;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A payload on its way to a connection.
pub(super) struct Recipient {
    pub(super) id: ConnectionId,
    pub(super) payload: Arc<Payload>,
    pub(super) through: Option<Arc<dyn Push>>,
    /// `None` until the first attempt has failed.
    pub(super) history: Option<Box<History>>,
}

/// The failed attempts of one recipient.
#[derive(Default)]
pub(super) struct History {
    attempts: usize,
    /// All 429s; `own_refusals` counts those while the account was not throttled.
    refusals: u32,
    own_refusals: u32,
    first_refusal: Option<Instant>,
    delays: Delays,
    refusal_delay: Option<Duration>,
}

/// The limits that a broadcast sets for its recipients.
pub(super) struct Allowance<'a> {
    pub(super) attempts: usize,
    pub(super) throttle_timeout: Duration,
    /// Why connections return 429 now.
    pub(super) cause: Cause,
    /// Whether this broadcast has given up this connection before.
    pub(super) is_slow: bool,
    pub(super) random: &'a (dyn Fn() -> f64 + Send + Sync),
}

/// Why connections return 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The account sends too much.
    Account,
    /// Their clients do not read.
    Client,
    /// Unknown, because no push has succeeded yet.
    Unknown,
}

/// What follows a failed attempt.
pub(super) enum Verdict {
    After(Duration),
    GivenUp,
}

impl Recipient {
    pub(super) fn attempt(&self) -> Attempt {
        match self.history.as_ref().is_some_and(|history| history.refusals > 0) {
            true => Attempt::AfterRefusal,
            false => Attempt::First,
        }
    }

    /// Decides whether and when a retryable error is followed by another attempt.
    pub(super) fn failed(&mut self, error: &PushError, now: Instant, allowance: &Allowance<'_>) -> Verdict {
        let history = self.history.get_or_insert_default();
        history.attempts = history.attempts.saturating_add(1);
        if history.attempts >= allowance.attempts {
            return Verdict::GivenUp;
        }
        if !matches!(error, PushError::Throttled { .. }) {
            return Verdict::After(history.delays.next(allowance.random));
        }
        history.refusals = history.refusals.saturating_add(1);
        let since = now.saturating_duration_since(*history.first_refusal.get_or_insert(now));
        let is_over = match allowance.cause {
            Cause::Account => false,
            Cause::Client => {
                history.own_refusals = history.own_refusals.saturating_add(1);
                // Earlier 429s of a throttled account may have taken all of the time.
                let is_late = history.own_refusals > 1 && since >= MAX_TIME.min(allowance.throttle_timeout);
                allowance.is_slow || is_late || history.own_refusals >= MAX_REFUSALS
            }
            Cause::Unknown => since >= allowance.throttle_timeout,
        };
        if is_over || history.refusals >= MAX_REFUSALS_IN_ALL {
            return Verdict::GivenUp;
        }
        let delay = history.refusal_delay.map_or(FIRST_DELAY, |last| last.saturating_mul(2).min(MAX_DELAY));
        history.refusal_delay = Some(delay);
        // At least half of the delay, because the client needs the time.
        Verdict::After(delay.mul_f64(0.5 + 0.5 * (allowance.random)().clamp(0.0, 1.0)))
    }

    /// Returns the bytes that only this recipient keeps in memory.
    fn own_bytes(&self) -> usize {
        if Arc::strong_count(&self.payload) == 1 { self.payload.bytes().len() } else { 0 }
    }
}

/// A recipient in backoff, with the error of its last attempt.
struct Waiting {
    due: Instant,
    /// Orders recipients that are due at the same time by when they failed.
    number: u64,
    own_bytes: usize,
    recipient: Recipient,
    error: PushError,
}

/// A queue ordered by due time, with one timer.
#[derive(Default)]
pub(super) struct Backoff {
    waiting: BinaryHeap<Waiting>,
    own_bytes: usize,
    pushed: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Backoff {
    pub(super) fn push(&mut self, due: Instant, recipient: Recipient, error: PushError) {
        let own_bytes = recipient.own_bytes();
        self.own_bytes = self.own_bytes.saturating_add(own_bytes);
        self.pushed = self.pushed.wrapping_add(1);
        self.waiting.push(Waiting { due, number: self.pushed, own_bytes, recipient, error });
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING || self.own_bytes >= MAX_BYTES
    }

    /// Takes the next recipient that is due. Otherwise the task is woken when one is.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Option<Recipient> {
        let due = self.waiting.peek()?.due;
        if due > Instant::now() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return None;
            }
        }
        self.pop().map(|(recipient, _)| recipient)
    }

    /// Takes any recipient, with the error of its last attempt.
    pub(super) fn pop(&mut self) -> Option<(Recipient, PushError)> {
        let Waiting { own_bytes, recipient, error, .. } = self.waiting.pop()?;
        self.own_bytes = self.own_bytes.saturating_sub(own_bytes);
        Some((recipient, error))
    }
}

impl Ord for Waiting {
    /// Reversed, because the heap yields its greatest element first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}
