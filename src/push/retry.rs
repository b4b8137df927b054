//! Trying again until a deadline.

use std::time::{Duration, SystemTime};

use backon::BackoffBuilder as _;
use tokio::time::{Instant, sleep, timeout};

use super::{PushError, Pusher};
use crate::event::current_deadline;

const TIMEOUT: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_millis(200);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Until when a call may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: Instant,
    budget: Duration,
}

impl Span {
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn left(&self) -> Duration {
        self.budget.saturating_sub(self.elapsed())
    }

    /// The end; far away when the clock cannot count so far.
    pub(super) fn end(&self) -> Instant {
        let day = Duration::from_secs(24 * 60 * 60);
        self.start.checked_add(self.budget).or_else(|| self.start.checked_add(day)).unwrap_or(self.start)
    }
}

impl Pusher {
    /// How long a call that starts now may last.
    pub(super) fn span(&self) -> Span {
        let left = |deadline: SystemTime| deadline.duration_since(SystemTime::now()).unwrap_or_default();
        let invocation = current_deadline().map(|deadline| left(deadline).saturating_sub(MARGIN));
        let budget = match (self.timeout, invocation) {
            (Some(timeout), Some(invocation)) => timeout.min(invocation),
            (Some(timeout), None) => timeout,
            (None, Some(invocation)) => invocation,
            (None, None) => TIMEOUT,
        };
        Span { start: Instant::now(), budget }
    }

    /// Makes attempts until one succeeds, the error cannot be retried, or there is no time for the next. `failed` sees the
    /// error of every attempt that is followed by another.
    pub(super) async fn retry<T, F>(
        &self,
        span: Span,
        failed: impl Fn(&PushError),
        attempt: impl Fn() -> F,
    ) -> Result<T, PushError>
    where
        F: Future<Output = Result<T, PushError>>,
    {
        let start = Instant::now();
        let mut delays = None;
        let mut attempts: usize = 0;
        loop {
            let left = span.left();
            if left.is_zero() {
                return Err(PushError::TimedOut { after: start.elapsed() });
            }
            attempts = attempts.saturating_add(1);
            let error = match timeout(left.min(self.attempt_timeout), attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => PushError::TimedOut { after: start.elapsed() },
            };
            if !error.is_retryable() || attempts >= self.most_attempts {
                return Err(error);
            }
            let delays = delays.get_or_insert_with(|| {
                backon::ExponentialBuilder::new()
                    .with_min_delay(FIRST_DELAY)
                    .with_max_delay(LONGEST_DELAY)
                    .without_max_times()
                    .build()
            });
            let delay = delays.next().unwrap_or(LONGEST_DELAY).mul_f64((self.random)().clamp(0.0, 1.0));
            if delay >= span.left() {
                return Err(error);
            }
            failed(&error);
            tracing::debug!(%error, ?delay, "the push is tried again");
            sleep(delay).await;
        }
    }
}
