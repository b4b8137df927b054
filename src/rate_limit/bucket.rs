//! A token bucket as a single number, based on the generic cell rate algorithm.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Quota;

/// The time when a bucket will be full again, in microseconds since 1970. A new bucket is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Bucket(pub(super) u64);

impl Bucket {
    /// Returns a bucket that is full from this time on.
    pub(super) fn full_at(time: SystemTime) -> Self {
        Self(micros(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// Takes a token and returns the new bucket, or returns how long to wait for a token.
    pub(super) fn take(self, quota: Quota, now: SystemTime) -> Result<Self, Duration> {
        let Self(now) = Self::full_at(now);
        let interval = micros(quota.interval);
        // How far a burst may run ahead of the sustained rate.
        let tolerance = interval.saturating_mul(u64::from(quota.burst.get()).saturating_sub(1));
        // An empty bucket is full after this time. A later time comes from a clock that was wrong.
        let full_at = self.0.max(now).min(now.saturating_add(tolerance).saturating_add(interval));
        match full_at.saturating_sub(now).saturating_sub(tolerance) {
            0 => Ok(Self(full_at.saturating_add(interval))),
            wait => Err(Duration::from_micros(wait)),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
