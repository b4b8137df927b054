//! The rate limits of the gateway (LIM-5).

use std::time::SystemTime;

/// A maximum rate per second, with a burst after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// A token bucket. Without a rate, it is never empty.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Option<Rate>,
    tokens: f64,
    filled_at: SystemTime,
}

impl Bucket {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        let tokens = rate.map_or(0.0, |rate| f64::from(rate.burst));
        Self { rate, tokens, filled_at: SystemTime::UNIX_EPOCH }
    }

    /// Takes a token, and returns whether there was one.
    pub(super) fn take(&mut self, now: SystemTime) -> bool {
        let Some(Rate { per_second, burst }) = self.rate else { return true };
        let passed = now.duration_since(self.filled_at).unwrap_or_default().as_secs_f64();
        self.tokens = (self.tokens + passed * f64::from(per_second)).min(f64::from(burst));
        self.filled_at = self.filled_at.max(now);
        let has_token = self.tokens >= 1.0;
        if has_token {
            self.tokens -= 1.0;
        }
        has_token
    }
}
