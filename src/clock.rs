//! The system time, which tests can control.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

/// A source of time: the system's clock, or a test's function.
///
/// Clones share the source.
#[derive(Clone, Default)]
pub(crate) struct Clock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl Clock {
    /// Creates a clock from a function.
    pub(crate) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// Returns the current time. Default: [`now`].
    pub(crate) fn now(&self) -> SystemTime {
        self.0.as_ref().map_or_else(now, |now| now())
    }
}

/// Returns the system time, or follows tokio's clock when a test has paused it.
///
/// When a test advances tokio's clock by two hours, two hours pass at once. Otherwise both clocks
/// agree.
pub(crate) fn now() -> SystemTime {
    // Both clocks read together, so that time never steps back while tokio's is paused.
    static ANCHOR: LazyLock<(SystemTime, Instant)> = LazyLock::new(|| (SystemTime::now(), Instant::now()));
    // Read in sequence, the clocks differ by microseconds. A larger difference comes from a test.
    const ALIKE: Duration = Duration::from_millis(1);
    let (system, monotonic) = *ANCHOR;
    let (tokio, std) = (tokio::time::Instant::now().into_std(), Instant::now());
    if tokio.saturating_duration_since(std) <= ALIKE && std.saturating_duration_since(tokio) <= ALIKE {
        return SystemTime::now();
    }
    match tokio.checked_duration_since(monotonic) {
        Some(since) => system.checked_add(since).unwrap_or(system),
        None => system.checked_sub(monotonic.saturating_duration_since(tokio)).unwrap_or(system),
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paused_clock_advances_the_time_of_day() {
        let before = Clock::default().now();
        tokio::time::advance(Duration::from_secs(7200)).await;
        let passed = Clock::default().now().duration_since(before).unwrap_or_default();
        assert!(passed.abs_diff(Duration::from_secs(7200)) < Duration::from_secs(1), "{passed:?}");
    }

    #[test]
    fn clock_without_a_runtime_is_the_system_clock() {
        let difference = now().duration_since(SystemTime::now()).unwrap_or_default();
        assert!(difference < Duration::from_secs(1));
    }
}
