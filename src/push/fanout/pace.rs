//! How many pushes may be under way: fewer when the endpoint throttles, more again when it does not.

use std::time::Duration;

use tokio::time::Instant;

/// Refusals that come together are one sign, not many.
const BETWEEN_CUTS: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Pace {
    most: f64,
    limit: f64,
    cut_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX).into();
        Self { most, limit: most, cut_at: None }
    }

    /// At least 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and the most")]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// One more under way for every round of successes.
    pub(super) fn delivered(&mut self) {
        self.limit = (self.limit + 1.0 / self.limit).min(self.most);
    }

    /// Half as many.
    pub(super) fn throttled(&mut self, now: Instant) {
        if self.cut_at.is_none_or(|at| now.duration_since(at) >= BETWEEN_CUTS) {
            self.cut_at = Some(now);
            self.limit = (self.limit / 2.0).max(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lim_5_refusals_halve_it_and_successes_raise_it_again() {
        let mut pace = Pace::new(64);
        for _ in 0..10 {
            pace.throttled(Instant::now());
        }
        assert_eq!(pace.limit(), 32, "together they are one sign");
        for _ in 0..20 {
            tokio::time::advance(BETWEEN_CUTS).await;
            pace.throttled(Instant::now());
        }
        assert_eq!(pace.limit(), 1);
        for _ in 0..3000 {
            pace.delivered();
        }
        assert_eq!(pace.limit(), 64);
    }
}
