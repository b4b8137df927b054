//! One payload to many connections.

mod pace;
mod report;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt as _};
use serde::Serialize;
use tokio::time::{Instant, Sleep, sleep_until};

use self::pace::Pace;
pub use self::report::{Failure, Report};
use super::{Payload, PushError, Pusher};
use crate::event::ConnectionId;
use crate::retry::Span;

/// So many connections are seen to before other tasks have their turn.
const SHIFT: usize = 256;

/// What goes to a connection, and through which transport, where it is not the pusher's own.
pub(crate) type Content = Result<(Arc<Payload>, Option<Arc<dyn super::Push>>), PushError>;
type Recipient = (ConnectionId, Content);
type Push = Pin<Box<dyn Future<Output = (ConnectionId, Result<(), PushError>)> + Send>>;

impl Pusher {
    /// Sends a value as JSON to each of these connections.
    ///
    /// The value is made JSON once. The connections are taken one by one as there is room, and never collected: at most
    /// [so many](Self::with_concurrency) pushes are under way, fewer while the endpoint throttles. What can be retried is,
    /// until the deadline of a [`Pusher`]'s call, which is here that of the whole broadcast. Two payloads to the same
    /// connection arrive in order.
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

/// A broadcast that is under way when it is awaited, and ends with its [`Report`].
///
/// Dropped, it stops. [`interrupt`](Self::interrupt) stops it and tells what has been done so far.
///
/// # Panics
///
/// It needs a tokio runtime with its timer enabled, and panics without one. It must not be polled after its end.
#[must_use = "nothing is sent unless it is awaited"]
pub struct Broadcast<'a> {
    pusher: Pusher,
    source: Pin<Box<dyn Stream<Item = Recipient> + Send + 'a>>,
    /// Payloads that wait until an earlier one for their connection is through; at most as many as may be under way.
    held: HashMap<ConnectionId, VecDeque<Content>>,
    held_count: usize,
    /// Those of them whose turn has come. Their connections stay busy.
    released: VecDeque<Recipient>,
    under_way: FuturesUnordered<Push>,
    /// The connections of those.
    busy: HashSet<ConnectionId>,
    pace: Pace,
    signs: Arc<Signs>,
    signs_seen: usize,
    span: Option<(Span, Pin<Box<Sleep>>)>,
    is_late: bool,
    is_exhausted: bool,
    report: Report,
}

/// What the pushes under way have met with.
#[derive(Default)]
struct Signs {
    throttled: AtomicUsize,
    retries: AtomicUsize,
}

impl<'a> Broadcast<'a> {
    fn new(pusher: &Pusher, source: impl Stream<Item = Recipient> + Send + 'a) -> Self {
        Self {
            source: Box::pin(source),
            held: HashMap::new(),
            held_count: 0,
            released: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            busy: HashSet::new(),
            pace: Pace::new(pusher.concurrency),
            signs: Arc::default(),
            signs_seen: 0,
            span: None,
            is_late: false,
            is_exhausted: false,
            report: Report::default(),
            pusher: pusher.clone(),
        }
    }

    /// Stops, and tells what has been done so far.
    ///
    /// Pushes that were under way have [failed](Report::failed) with [`PushError::Interrupted`]. Connections that the source
    /// has not named yet are not in the report.
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
        self.drop_held();
        for connection_id in self.busy.drain() {
            self.report.failed.push(Failure { connection_id, error: PushError::Interrupted });
        }
        self.finish()
    }

    fn finish(&mut self) -> Report {
        self.report.is_complete = self.is_exhausted;
        self.report.retries = self.signs.retries.load(Ordering::Relaxed);
        self.report.elapsed = self.span.as_ref().map(|(span, _)| span.elapsed()).unwrap_or_default();
        std::mem::take(&mut self.report)
    }

    fn record(&mut self, connection_id: ConnectionId, outcome: Result<(), PushError>) {
        match outcome {
            Ok(()) => {
                self.report.delivered = self.report.delivered.saturating_add(1);
                self.pace.delivered();
            }
            Err(PushError::Gone { .. }) => {
                self.report.gone.push(connection_id);
                // The endpoint had time to look.
                self.pace.delivered();
            }
            Err(error) => {
                if matches!(error, PushError::Throttled { .. }) {
                    self.pace.throttled(Instant::now());
                }
                self.report.failed.push(Failure { connection_id, error });
            }
        }
    }

    /// Takes the outcomes of pushes that are through.
    fn collect(&mut self, cx: &mut Context<'_>) -> usize {
        let mut collected: usize = 0;
        while collected < SHIFT
            && let Poll::Ready(Some((id, outcome))) = self.under_way.poll_next_unpin(cx)
        {
            self.free(&id);
            self.record(id, outcome);
            collected = collected.saturating_add(1);
        }
        let signs = self.signs.throttled.load(Ordering::Relaxed);
        if signs != self.signs_seen {
            self.signs_seen = signs;
            self.pace.throttled(Instant::now());
        }
        collected
    }

    /// A connection's push is through: its next payload has its turn.
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

    /// The next connection, when there is one that may be pushed to now.
    fn next(&mut self, cx: &mut Context<'_>) -> Option<Recipient> {
        if let Some(released) = self.released.pop_front() {
            return Some(released);
        }
        while !self.is_exhausted && self.held_count < self.pusher.concurrency {
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

    /// What waits for its turn will not have it.
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

    /// Starts pushes as far as there is room.
    fn start(&mut self, cx: &mut Context<'_>, span: Span) -> usize {
        let mut started: usize = 0;
        while started < SHIFT
            && self.under_way.len() < self.pace.limit()
            && let Some((id, payload)) = self.next(cx)
        {
            started = started.saturating_add(1);
            match payload {
                Ok((payload, through)) => {
                    self.busy.insert(id.clone());
                    let mut pusher = self.pusher.clone();
                    if let Some(transport) = through {
                        pusher.transport = transport;
                    }
                    self.under_way.push(push(pusher, span, id, payload, Arc::clone(&self.signs)));
                }
                Err(error) => {
                    // Nothing is under way for it, unless it waited for its turn.
                    self.free(&id);
                    self.report.failed.push(Failure { connection_id: id, error });
                }
            }
        }
        started
    }

    /// The time is up: what the source has ready has not been tried.
    fn give_up(&mut self, cx: &mut Context<'_>) -> usize {
        let mut given_up: usize = 0;
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

fn push(pusher: Pusher, span: Span, id: ConnectionId, payload: Arc<Payload>, signs: Arc<Signs>) -> Push {
    Box::pin(async move {
        let failed = |error: &PushError| {
            signs.retries.fetch_add(1, Ordering::Relaxed);
            if matches!(error, PushError::Throttled { .. }) {
                signs.throttled.fetch_add(1, Ordering::Relaxed);
            }
        };
        let outcome = pusher.retry(span, failed, || pusher.transport.post(&id, &payload)).await;
        (id, outcome)
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
            // Late, the source may have more, which nobody waits for.
            let is_through = this.is_exhausted && this.held.is_empty() && this.released.is_empty();
            let is_through = is_through || this.is_late && taken == 0;
            if is_through && this.under_way.is_empty() {
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
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
