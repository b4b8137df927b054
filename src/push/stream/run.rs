//! The loop that runs a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::buffer::{Buffer, Piece};
use super::frame::Frames;
use super::{BoxError, PendingStream, Source, StreamEnd, StreamReport};
use crate::push::PushError;
use crate::retry::Span;

/// The maximum number of tokens taken before the task yields.
const SHIFT: usize = 256;
/// The time reserved for the last frames.
const RESERVE: Duration = Duration::from_secs(1);

type Push<'a> = Pin<Box<dyn Future<Output = Result<(), PushError>> + Send + 'a>>;

/// The next event of the loop.
enum Step {
    /// The push under way has ended.
    Pushed(Result<(), PushError>),
    /// The next frame is due.
    Send,
    /// Only the time for the last frames is left.
    StopReading,
    /// The time is up.
    Stop,
}

/// Why there are no more tokens.
enum Over {
    Ended,
    Failed(BoxError),
    Late,
}

/// The contents of the frame under way.
#[derive(Default)]
struct Sent {
    bytes: usize,
    tokens: u64,
    is_last: bool,
}

/// The tokens on their way from the source to a frame.
struct Reading<'a, T> {
    /// `None` after the source has ended.
    source: Option<Source<'a, T>>,
    over: Option<Over>,
    buffer: Buffer,
    room: usize,
    max_latency: Duration,
    /// When the waiting text is due.
    due: Pin<Box<Sleep>>,
}

impl<T: AsRef<str>> Reading<'_, T> {
    /// Takes the tokens that are ready and fit.
    fn fill(&mut self, cx: &mut Context<'_>) {
        for _ in 0..SHIFT {
            if self.buffer.json_len() >= self.room {
                return;
            }
            let Some(source) = &mut self.source else { return };
            match source.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(token))) => {
                    let is_first = self.buffer.json_len() == 0 && !token.as_ref().is_empty();
                    self.buffer.push(token.as_ref());
                    if is_first {
                        self.wait_from_now();
                    }
                }
                Poll::Ready(Some(Err(error))) => self.end(Over::Failed(error)),
                Poll::Ready(None) => self.end(Over::Ended),
                Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }

    fn wait_from_now(&mut self) {
        let now = Instant::now();
        self.due.as_mut().reset(now.checked_add(self.max_latency).unwrap_or(now));
    }

    fn end(&mut self, over: Over) {
        self.source = None;
        self.over = Some(over);
    }

    /// Returns whether to send a frame, if none is under way.
    fn is_due(&mut self, is_first: bool, cx: &mut Context<'_>) -> bool {
        self.over.is_some()
            || self.buffer.json_len() >= self.room
            || self.buffer.json_len() > 0 && (is_first || self.has_waited(cx))
    }

    /// Returns whether the text has waited for the maximum latency. A timer would round up a
    /// latency of zero.
    fn has_waited(&mut self, cx: &mut Context<'_>) -> bool {
        self.max_latency.is_zero() || self.due.as_mut().poll(cx).is_ready()
    }

    /// Ends reading, and keeps only the text for one frame before the last.
    fn hurry(&mut self) {
        match self.over {
            // One more frame completes the text.
            Some(Over::Ended) if self.buffer.json_len() <= self.room => return,
            Some(Over::Failed(_)) => {}
            _ => self.end(Over::Late),
        }
        self.buffer.truncate(self.room);
    }

    /// Builds the next frame and returns its contents.
    fn frame(&mut self, frames: &mut Frames) -> Result<(crate::push::Payload, Sent), PushError> {
        if self.buffer.json_len() == 0 {
            match &self.over {
                Some(Over::Failed(error)) => return Ok((frames.error(error)?, Sent::last())),
                Some(Over::Late) => return Ok((frames.timeout()?, Sent::last())),
                Some(Over::Ended) | None => {}
            }
        }
        let Piece { text, tokens, is_all, .. } = self.buffer.piece(self.room);
        let is_last = is_all && matches!(self.over, Some(Over::Ended));
        let payload = frames.chunk(text, is_last)?;
        let sent = Sent { bytes: text.len(), tokens, is_last };
        self.buffer.remove(self.room);
        Ok((payload, sent))
    }

    /// Returns why a stream ended, after its last push succeeded or failed.
    fn outcome(self, pushed: Result<(), PushError>, is_late: bool) -> StreamEnd {
        match (self.over, pushed) {
            // Regardless of the push, because only the report has this error.
            (Some(Over::Failed(error)), _) => StreamEnd::Source(error),
            (_, Err(PushError::Gone { .. })) => StreamEnd::Gone,
            (Some(Over::Late), _) => StreamEnd::Deadline,
            (_, Ok(())) => StreamEnd::Completed,
            (_, Err(error)) if is_late && error.is_retryable() => StreamEnd::Deadline,
            (_, Err(error)) => StreamEnd::Failed(error),
        }
    }
}

impl Sent {
    fn last() -> Self {
        Self { is_last: true, ..Self::default() }
    }
}

impl<T: AsRef<str>> PendingStream<'_, T> {
    pub(super) async fn run(self) -> StreamReport {
        let Self { pusher, connection_id, source, id, max_latency, max_frame_bytes, timeout, .. } = self;
        let span = Span::new(Some(timeout.unwrap_or(Duration::MAX)));
        let mut report =
            StreamReport { frames: 0, tokens: 0, bytes: 0, end: StreamEnd::Completed, elapsed: Duration::ZERO };
        let mut frames = match id.and_then(|id| Frames::new(id, max_frame_bytes)) {
            Ok(frames) => frames,
            Err(error) => return StreamReport { end: StreamEnd::Failed(error), ..report },
        };
        let mut reading = Reading {
            source: Some(source),
            over: None,
            buffer: Buffer::default(),
            room: frames.room(),
            max_latency,
            due: Box::pin(sleep_until(Instant::now())),
        };
        let reserve = RESERVE.min(span.left().checked_div(4).unwrap_or_default());
        let stop_reading_at = span.end().checked_sub(reserve).unwrap_or_else(Instant::now);
        let mut stop_reading = Box::pin(sleep_until(stop_reading_at));
        let mut stop = Box::pin(sleep_until(span.end()));
        let (mut is_late, mut is_first) = (false, true);
        let mut under_way: Option<(Push<'_>, Sent)> = None;
        let (pusher, connection_id) = (&pusher, &connection_id);
        report.end = loop {
            let step = poll_fn(|cx| {
                if let Some((push, _)) = &mut under_way
                    && let Poll::Ready(pushed) = push.as_mut().poll(cx)
                {
                    return Poll::Ready(Step::Pushed(pushed));
                }
                if stop.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Step::Stop);
                }
                if !is_late && stop_reading.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Step::StopReading);
                }
                reading.fill(cx);
                if under_way.is_none() && reading.is_due(is_first, cx) {
                    return Poll::Ready(Step::Send);
                }
                Poll::Pending
            });
            match step.await {
                Step::Send => {
                    let (payload, sent) = match reading.frame(&mut frames) {
                        Ok(frame) => frame,
                        Err(error) => break StreamEnd::Failed(error),
                    };
                    is_first = false;
                    let push = async move { pusher.send_payload(connection_id, &payload).await };
                    under_way = Some((Box::pin(push), sent));
                }
                Step::Pushed(pushed) => {
                    let sent = under_way.take().map(|(_, sent)| sent).unwrap_or_default();
                    if pushed.is_ok() {
                        report.frames = report.frames.saturating_add(1);
                        report.tokens = report.tokens.saturating_add(sent.tokens);
                        report.bytes = report.bytes.saturating_add(u64::try_from(sent.bytes).unwrap_or(u64::MAX));
                    }
                    if sent.is_last || pushed.is_err() {
                        break reading.outcome(pushed, is_late);
                    }
                }
                Step::StopReading => {
                    is_late = true;
                    reading.hurry();
                }
                Step::Stop => break reading.outcome(Err(PushError::TimedOut { after: span.elapsed() }), true),
            }
        };
        report.elapsed = span.elapsed();
        report
    }
}
