//! The future that runs a broadcast.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, Stream, StreamExt as _};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::backoff::{Allowance, Backoff, Cause, Recipient, Verdict};
use super::pace::Pace;
use super::{Content, FailedPush, Report};
use crate::event::ConnectionId;
use crate::push::{PushError, Pusher};
use crate::retry::Span;

/// The number of connections handled before the task yields.
const SHIFT: usize = 256;

type Push = Pin<Box<dyn Future<Output = Attempted> + Send>>;
#[cfg(feature = "hub")]
type Hook<'a> = Box<dyn FnMut(&ConnectionId) + Send + 'a>;

/// A finished attempt.
struct Attempted {
    recipient: Recipient,
    /// The number of pace cuts when the attempt began.
    cuts: u32,
    outcome: Result<(), PushError>,
}

/// A pending broadcast; `.await` it to deliver. Resolves to a [`Report`].
///
/// Dropping it stops the broadcast. [`interrupt`](Self::interrupt) stops it and returns the report so far.
///
/// # Panics
///
/// Panics outside a tokio runtime with its timer enabled, and when it is polled after completion.
//
// Invariants: a connection is in `busy` as long as one of its payloads is in `under_way`, `backoff` or `released`,
// and at most one is. Its later payloads are in `held`, in order. `held_count` is their number. `report.ids()` is the
// number of payloads that have left all of these.
#[must_use = "nothing is sent unless it is awaited"]
pub struct Broadcast<'a> {
    pusher: Pusher,
    source: Pin<Box<dyn Stream<Item = (ConnectionId, Content)> + Send + 'a>>,
    /// Payloads that wait for an earlier one to the same connection; at most as many as the concurrency.
    held: HashMap<ConnectionId, VecDeque<Content>>,
    held_count: usize,
    /// Held payloads whose turn has come. Their connections stay busy.
    released: VecDeque<(ConnectionId, Content)>,
    under_way: FuturesUnordered<Push>,
    backoff: Backoff,
    busy: HashSet<ConnectionId>,
    /// Connections that were given up because their clients do not read.
    slow: HashSet<ConnectionId>,
    pace: Pace,
    /// Whether the last push was a retry: retries and new connections take turns.
    was_retry: bool,
    span: Option<(Span, Pin<Box<Sleep>>)>,
    is_late: bool,
    is_exhausted: bool,
    report: Report,
    #[cfg(feature = "hub")]
    on_gone: Option<Hook<'a>>,
    #[cfg(feature = "hub")]
    on_delivered: Option<Hook<'a>>,
}

impl<'a> Broadcast<'a> {
    pub(super) fn new(pusher: &Pusher, source: impl Stream<Item = (ConnectionId, Content)> + Send + 'a) -> Self {
        Self {
            source: Box::pin(source),
            held: HashMap::new(),
            held_count: 0,
            released: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            backoff: Backoff::default(),
            busy: HashSet::new(),
            slow: HashSet::new(),
            pace: Pace::new(pusher.concurrency),
            was_retry: false,
            span: None,
            is_late: false,
            is_exhausted: false,
            report: Report::default(),
            pusher: pusher.clone(),
            #[cfg(feature = "hub")]
            on_gone: None,
            #[cfg(feature = "hub")]
            on_delivered: None,
        }
    }

    /// Calls the hook with each connection as soon as it has returned 410.
    #[cfg(feature = "hub")]
    pub(crate) fn on_gone(mut self, hook: impl FnMut(&ConnectionId) + Send + 'a) -> Self {
        self.on_gone = Some(Box::new(hook));
        self
    }

    /// Calls the hook with each connection as soon as the payload is delivered to it.
    #[cfg(feature = "hub")]
    pub(crate) fn on_delivered(mut self, hook: impl FnMut(&ConnectionId) + Send + 'a) -> Self {
        self.on_delivered = Some(Box::new(hook));
        self
    }

    /// Stops the broadcast and returns the report so far.
    ///
    /// Pushes under way have [failed](Report::failed) with [`PushError::Interrupted`], and those in backoff with the
    /// error of their last attempt. Connections not yet read from the source are not in the report.
    ///
    /// # Examples
    ///
    /// ```
    /// # use lambda_websocket::{Pusher, event::ConnectionId, push::{PushError, Report}};
    /// # async fn broadcast(pusher: Pusher, ids: Vec<ConnectionId>, stop: impl Future) -> Result<Report, PushError> {
    /// let mut broadcast = pusher.broadcast(ids, "hello")?;
    /// Ok(tokio::select! {
    ///     report = &mut broadcast => report,
    ///     _ = stop => broadcast.interrupt(),
    /// })
    /// # }
    /// ```
    pub fn interrupt(mut self) -> Report {
        self.under_way.clear();
        self.drop_waiting();
        self.drop_held();
        for connection_id in self.busy.drain() {
            self.report.failed.push(FailedPush { connection_id, error: PushError::Interrupted });
        }
        self.finish()
    }

    fn finish(&mut self) -> Report {
        self.report.is_complete = self.is_exhausted;
        self.report.elapsed = self.span.as_ref().map(|(span, _)| span.elapsed()).unwrap_or_default();
        self.report.record();
        std::mem::take(&mut self.report)
    }

    /// Records the outcomes of finished attempts.
    fn collect(&mut self, cx: &mut Context<'_>) -> usize {
        let mut collected: usize = 0;
        while collected < SHIFT
            && let Poll::Ready(Some(attempted)) = self.under_way.poll_next_unpin(cx)
        {
            self.record(attempted);
            collected = collected.saturating_add(1);
        }
        collected
    }

    fn record(&mut self, attempted: Attempted) {
        let Attempted { recipient, cuts, outcome } = attempted;
        let (now, attempt) = (Instant::now(), recipient.attempt());
        match outcome {
            Ok(()) => {
                self.pace.taken(now, attempt, cuts);
                self.report.delivered = self.report.delivered.saturating_add(1);
                #[cfg(feature = "hub")]
                if let Some(hook) = &mut self.on_delivered {
                    hook(&recipient.id);
                }
                self.free(&recipient.id);
            }
            Err(PushError::Gone { .. }) => {
                // A 410 shows that the endpoint is not overloaded.
                self.pace.taken(now, attempt, cuts);
                #[cfg(feature = "hub")]
                if let Some(hook) = &mut self.on_gone {
                    hook(&recipient.id);
                }
                self.free(&recipient.id);
                self.report.gone.push(recipient.id);
            }
            Err(error) if error.is_retryable() => {
                if matches!(error, PushError::Throttled { .. }) {
                    self.report.throttles = self.report.throttles.saturating_add(1);
                    self.pace.refused(now, attempt, cuts);
                }
                self.put_off(recipient, error, now);
            }
            Err(error) => self.fail(recipient.id, error),
        }
    }

    /// Schedules a recipient's next attempt, or gives it up.
    fn put_off(&mut self, mut recipient: Recipient, error: PushError, now: Instant) {
        let cause = match self.pace.is_throttled(now) {
            true => Cause::Account,
            false if self.report.delivered == 0 => Cause::Unknown,
            false => Cause::Client,
        };
        let is_refusal = matches!(error, PushError::Throttled { .. });
        let allowance = Allowance {
            attempts: self.pusher.most_attempts,
            throttle_timeout: self.pusher.throttle_timeout,
            cause,
            is_slow: is_refusal && self.slow.contains(&recipient.id),
            random: &*self.pusher.random,
        };
        let verdict = recipient.failed(&error, now, &allowance);
        let left = self.span.as_ref().map(|(span, _)| span.left()).unwrap_or_default();
        match verdict {
            Verdict::After(delay) if delay < left => {
                tracing::debug!(%error, ?delay, "the attempt is repeated");
                self.backoff.push(now.checked_add(delay).unwrap_or(now), recipient, error);
            }
            Verdict::After(_) => self.fail(recipient.id, error),
            Verdict::GivenUp if is_refusal && cause == Cause::Client && self.pusher.most_attempts > 1 => {
                self.slow.insert(recipient.id.clone());
                let error = PushError::SlowConsumer { connection_id: recipient.id.clone() };
                self.fail(recipient.id, error);
            }
            Verdict::GivenUp => self.fail(recipient.id, error),
        }
    }

    fn fail(&mut self, connection_id: ConnectionId, error: PushError) {
        self.free(&connection_id);
        self.report.failed.push(FailedPush { connection_id, error });
    }

    /// Ends a connection's push and releases its next payload.
    fn free(&mut self, id: &ConnectionId) {
        let Some(waiting) = self.held.get_mut(id) else {
            self.busy.remove(id);
            return;
        };
        if let Some(content) = waiting.pop_front() {
            self.held_count = self.held_count.saturating_sub(1);
            self.released.push_back((id.clone(), content));
        }
        if waiting.is_empty() {
            self.held.remove(id);
        }
    }

    /// Returns the next connection of the source that may be pushed to now.
    fn next_new(&mut self, cx: &mut Context<'_>) -> Option<(ConnectionId, Content)> {
        while !self.is_exhausted && self.held_count < self.pusher.concurrency && !self.backoff.is_full() {
            match self.source.as_mut().poll_next(cx) {
                Poll::Ready(Some((id, content))) if self.busy.contains(&id) => {
                    self.held.entry(id).or_default().push_back(content);
                    self.held_count = self.held_count.saturating_add(1);
                }
                Poll::Ready(Some(recipient)) => return Some(recipient),
                Poll::Ready(None) => self.is_exhausted = true,
                Poll::Pending => break,
            }
        }
        None
    }

    /// Returns the next attempt that may begin now.
    fn next(&mut self, cx: &mut Context<'_>) -> Option<Result<Recipient, (ConnectionId, PushError)>> {
        if !self.was_retry
            && let Some(recipient) = self.backoff.poll_due(cx)
        {
            self.was_retry = true;
            return Some(Ok(recipient));
        }
        self.was_retry = false;
        let (id, content) = match self.released.pop_front().or_else(|| self.next_new(cx)) {
            Some(recipient) => recipient,
            None => return self.backoff.poll_due(cx).map(Ok),
        };
        Some(match content {
            Ok((payload, through)) => {
                self.busy.insert(id.clone());
                Ok(Recipient { id, payload, through, history: None })
            }
            Err(error) => Err((id, error)),
        })
    }

    /// Starts pushes while there are free slots.
    fn start(&mut self, cx: &mut Context<'_>, span: Span) -> usize {
        let mut started: usize = 0;
        while started < SHIFT
            && self.under_way.len() < self.pace.limit()
            && let Some(next) = self.next(cx)
        {
            started = started.saturating_add(1);
            match next {
                Ok(recipient) => {
                    if recipient.history.is_some() {
                        self.report.retries = self.report.retries.saturating_add(1);
                    }
                    self.under_way.push(push(&self.pusher, span, recipient, self.pace.cuts()));
                }
                // Nothing is under way for it, unless it waited for its turn.
                Err((id, error)) => self.fail(id, error),
            }
        }
        started
    }

    /// Fails the recipients in backoff with their last errors.
    fn drop_waiting(&mut self) {
        while let Some((recipient, error)) = self.backoff.pop() {
            self.fail(recipient.id, error);
        }
    }

    /// Reports held payloads as not tried.
    fn drop_held(&mut self) {
        for (id, _) in self.released.drain(..) {
            self.busy.remove(&id);
            self.report.not_tried.push(id);
        }
        for (id, waiting) in self.held.drain() {
            self.report.not_tried.extend(waiting.iter().map(|_| id.clone()));
        }
        self.held_count = 0;
    }

    /// Ends the broadcast at its deadline: connections that the source has ready are not tried.
    fn give_up(&mut self, cx: &mut Context<'_>) -> usize {
        let mut given_up: usize = 0;
        self.drop_waiting();
        self.drop_held();
        while given_up < SHIFT && !self.is_exhausted {
            match self.source.as_mut().poll_next(cx) {
                Poll::Ready(Some((id, _))) => self.report.not_tried.push(id),
                Poll::Ready(None) => self.is_exhausted = true,
                Poll::Pending => break,
            }
            given_up = given_up.saturating_add(1);
        }
        given_up
    }
}

/// Makes one attempt.
fn push(pusher: &Pusher, span: Span, recipient: Recipient, cuts: u32) -> Push {
    let transport = Arc::clone(recipient.through.as_ref().unwrap_or(&pusher.transport));
    let limit = span.left().min(pusher.attempt_timeout);
    Box::pin(async move {
        let start = Instant::now();
        let outcome = timeout(limit, transport.post(&recipient.id, &recipient.payload))
            .await
            .unwrap_or_else(|_| Err(PushError::TimedOut { after: start.elapsed() }));
        Attempted { recipient, cuts, outcome }
    })
}

impl Future for Broadcast<'_> {
    type Output = Report;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        let this = &mut *self;
        let (span, mut end) = this.span.take().unwrap_or_else(|| {
            let span = this.pusher.span();
            (span, Box::pin(sleep_until(span.end())))
        });
        this.is_late = this.is_late || end.as_mut().poll(cx).is_ready();
        this.span = Some((span, end));
        let mut seen_to: usize = 0;
        loop {
            let collected = this.collect(cx);
            let taken = match this.is_late {
                true => this.give_up(cx),
                false => this.start(cx, span),
            };
            // After the deadline, the source may have more connections, but nobody waits for them.
            let is_through = this.is_exhausted && this.held.is_empty() && this.released.is_empty();
            let is_through = is_through || this.is_late && taken == 0;
            if is_through && this.under_way.is_empty() && this.backoff.is_empty() {
                return Poll::Ready(this.finish());
            }
            if collected == 0 && taken == 0 {
                return Poll::Pending;
            }
            seen_to = seen_to.saturating_add(collected).saturating_add(taken);
            if seen_to >= SHIFT {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

impl fmt::Debug for Broadcast<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("under_way", &self.under_way.len())
            .field("in_backoff", &self.backoff.len())
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "hub"))]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is all it can do")]
mod tests;
