//! Limits how many messages a client may send.
//!
//! A [`RateLimiter`] has a token bucket for each key, such as a connection or a principal, and
//! keeps it in a [`RateLimitStore`]:
//!
//! | Store | Scope of the limit | Cost of a message |
//! |---|---|---|
//! | [`InMemory`] | one execution environment; `n` environments allow `n` times as many messages | none |
//! | `DynamoDb` (feature `dynamodb`) | all execution environments | one write, or none if known to be over the limit |
//!
//! # Examples
//!
//! ```
//! use lambda_websocket::rate_limit::{InMemory, Quota, RateLimiter};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // Five at once, then two a second.
//! let limiter =
//!     RateLimiter::new(Quota::per_second(2).with_burst(5), InMemory::new());
//! for _ in 0..5 {
//!     assert!(limiter.take("alice").await.is_ok());
//! }
//! let refused = limiter.take("alice").await.unwrap_err();
//! assert!(refused.retry_after.as_millis() <= 500);
//! assert!(limiter.take("bob").await.is_ok());
//! # }
//! ```

mod bucket;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod layer;
mod store;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "dynamodb")]
pub use self::dynamodb::DynamoDb;
pub use self::layer::{RateLimitLayer, RateLimited};
pub use self::store::{InMemory, RateLimitStore};

/// A sustained rate and the maximum burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    interval: Duration,
    burst: NonZeroU32,
}

impl Quota {
    /// Allows this many messages per second, from 1 to 1,000,000.
    ///
    /// The burst is the same number by default; see [`with_burst`](Self::with_burst).
    pub fn per_second(count: u32) -> Self {
        Self::per(Duration::from_secs(1), count)
    }

    /// Allows this many messages per minute, from 1 to 60,000,000.
    ///
    /// The burst is the same number by default; see [`with_burst`](Self::with_burst).
    pub fn per_minute(count: u32) -> Self {
        Self::per(Duration::from_secs(60), count)
    }

    fn per(time: Duration, count: u32) -> Self {
        let burst = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let interval = time.checked_div(burst.get()).unwrap_or(time);
        Self { interval: interval.max(Duration::from_micros(1)), burst }
    }

    /// Sets how many messages a client may send at once, at least 1.
    ///
    /// A client can use the full burst after a pause. Default: the number per second or per minute.
    #[must_use]
    pub fn with_burst(mut self, burst: u32) -> Self {
        self.burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        self
    }
}

/// The client has exceeded its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many messages: try again in {} ms", .retry_after.as_millis())]
#[non_exhaustive]
pub struct TooFast {
    /// How long the client has to wait until its next message is allowed.
    pub retry_after: Duration,
}

/// Applies one quota to each of many keys.
///
/// Clones share the store.
#[derive(Clone)]
pub struct RateLimiter {
    quota: Quota,
    store: Arc<dyn RateLimitStore>,
}

impl RateLimiter {
    /// Creates a limiter with this quota for each key.
    ///
    /// Limiters that share a store need distinct keys, for example with the limiter's name as a
    /// prefix.
    pub fn new(quota: Quota, store: impl RateLimitStore + 'static) -> Self {
        Self { quota, store: Arc::new(store) }
    }

    /// Takes one token from the bucket of a key.
    ///
    /// If the store fails, the error is logged and the client may proceed: a failing limit must not
    /// stop the service.
    ///
    /// # Errors
    ///
    /// [`TooFast`] if the bucket has no token left.
    pub async fn take(&self, key: &str) -> Result<(), TooFast> {
        match self.store.take(key, self.quota).await {
            Ok(None) => Ok(()),
            Ok(Some(retry_after)) => Err(TooFast { retry_after }),
            Err(error) => {
                tracing::error!(error = %crate::event::chain(&*error), "a rate limit is not applied, since its store failed");
                Ok(())
            }
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("quota", &self.quota).finish_non_exhaustive()
    }
}
