//! Retries until a deadline.

use std::time::{Duration, SystemTime};

use backon::BackoffBuilder as _;
use tokio::time::{Instant, sleep, timeout};

use crate::clock;
use crate::event::current_deadline;

const TIMEOUT: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_millis(200);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// An error that may be transient.
pub(crate) trait Passing: std::fmt::Display {
    /// Returns whether the same attempt may succeed a little later.
    fn may_pass(&self) -> bool;

    /// Creates the error of an attempt without a response in this time.
    fn timed_out(after: Duration) -> Self;
}

/// The time span of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: Instant,
    budget: Duration,
}

impl Span {
    /// Starts a span, bounded by a timeout and the deadline of the Lambda invocation.
    ///
    /// Default without either: 10 seconds.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        let left = |deadline: SystemTime| deadline.duration_since(clock::now()).unwrap_or_default();
        let invocation = current_deadline().map(|deadline| left(deadline).saturating_sub(MARGIN));
        let budget = match (limit, invocation) {
            (Some(timeout), Some(invocation)) => timeout.min(invocation),
            (Some(timeout), None) => timeout,
            (None, Some(invocation)) => invocation,
            (None, None) => TIMEOUT,
        };
        Self { start: Instant::now(), budget }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn left(&self) -> Duration {
        self.budget.saturating_sub(self.elapsed())
    }

    /// Returns the end of the span, or a day after its start if the clock cannot represent it.
    #[cfg(feature = "push")]
    pub(crate) fn end(&self) -> Instant {
        let day = Duration::from_secs(24 * 60 * 60);
        self.start.checked_add(self.budget).or_else(|| self.start.checked_add(day)).unwrap_or(self.start)
    }
}

/// The delays between attempts: exponential, with full jitter.
pub(crate) struct Delays(backon::ExponentialBackoff);

impl Default for Delays {
    fn default() -> Self {
        Self(
            backon::ExponentialBuilder::new()
                .with_min_delay(FIRST_DELAY)
                .with_max_delay(LONGEST_DELAY)
                .without_max_times()
                .build(),
        )
    }
}

impl Delays {
    /// Returns the next delay, multiplied by a number from 0 to 1.
    pub(crate) fn next(&mut self, random: &(dyn Fn() -> f64 + Send + Sync)) -> Duration {
        self.0.next().unwrap_or(LONGEST_DELAY).mul_f64(random().clamp(0.0, 1.0))
    }
}

/// The settings of retries.
pub(crate) struct Attempts<'a> {
    pub(crate) timeout: Duration,
    pub(crate) most: usize,
    /// Returns numbers from 0 to 1, by which delays are multiplied.
    pub(crate) random: &'a (dyn Fn() -> f64 + Send + Sync),
}

impl Attempts<'_> {
    /// Makes attempts until one succeeds, an error is permanent, or the time is up.
    ///
    /// `failed` is called with the error of every attempt that may be followed by another.
    #[cfg(feature = "dynamodb")]
    pub(crate) async fn run<T, E, F>(&self, span: Span, failed: impl Fn(&E), attempt: impl Fn() -> F) -> Result<T, E>
    where
        E: Passing,
        F: Future<Output = Result<T, E>>,
    {
        let limit = |error: &E| {
            failed(error);
            span.left()
        };
        self.run_within(span, limit, attempt).await
    }

    /// Makes attempts as [`run`](Self::run) does, within a time that depends on the error.
    ///
    /// `left` is called with the error of every attempt that may be followed by another, and
    /// returns the time within which that has to begin.
    pub(crate) async fn run_within<T, E, F>(
        &self,
        span: Span,
        mut left: impl FnMut(&E) -> Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, E>
    where
        E: Passing,
        F: Future<Output = Result<T, E>>,
    {
        let start = Instant::now();
        let mut delays = None;
        let mut attempts: usize = 0;
        loop {
            let time = span.left();
            if time.is_zero() {
                return Err(E::timed_out(start.elapsed()));
            }
            attempts = attempts.saturating_add(1);
            let error = match timeout(time.min(self.timeout), attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => E::timed_out(start.elapsed()),
            };
            if !error.may_pass() || attempts >= self.most {
                return Err(error);
            }
            let delay = delays.get_or_insert_with(Delays::default).next(self.random);
            if delay >= left(&error).min(span.left()) {
                return Err(error);
            }
            tracing::debug!(%error, ?delay, "retrying after a failed attempt");
            sleep(delay).await;
        }
    }
}
