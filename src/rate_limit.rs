//! How many messages a client may send.
//!
//! A [`RateLimiter`] has a token bucket for each key, such as a connection or a principal, and keeps it in a [`RateLimitStore`]:
//!
//! | store | counts | a message costs |
//! |---|---|---|
//! | [`InMemory`] | in one execution environment: a client whose messages meet `n` environments may send `n` times as much | nothing |
//! | `DynamoDb` (feature `dynamodb`) | everywhere | one write, and nothing where the client is known to be too fast |
//!
//! # Examples
//!
//! ```
//! use lambda_websocket::rate_limit::{InMemory, Quota, RateLimiter};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // Five at once, then two a second.
//! let limiter = RateLimiter::new(Quota::per_second(2).with_burst(5), InMemory::new());
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

/// How fast a client may be: a sustained rate, and how much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    interval: Duration,
    burst: NonZeroU32,
}

impl Quota {
    /// Allows so many a second, all of them at once if none came before. At least one, at most 1,000,000.
    pub fn per_second(count: u32) -> Self {
        Self::per(Duration::from_secs(1), count)
    }

    /// Allows so many a minute, all of them at once if none came before. At least one, at most 60,000,000.
    pub fn per_minute(count: u32) -> Self {
        Self::per(Duration::from_secs(60), count)
    }

    fn per(time: Duration, count: u32) -> Self {
        let burst = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let interval = time.checked_div(burst.get()).unwrap_or(time);
        Self { interval: interval.max(Duration::from_micros(1)), burst }
    }

    /// Allows so many at once, if none came before. At least one. Default: those of a second or a minute.
    #[must_use]
    pub fn with_burst(mut self, burst: u32) -> Self {
        self.burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        self
    }
}

/// The client is too fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many messages: try again in {} ms", .retry_after.as_millis())]
#[non_exhaustive]
pub struct TooFast {
    /// When the next one is allowed.
    pub retry_after: Duration,
}

/// Limits how often something may happen for each of many keys.
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
    /// Limiters that share a table need keys that differ, such as with the limiter's name at the start.
    pub fn new(quota: Quota, store: impl RateLimitStore + 'static) -> Self {
        Self { quota, store: Arc::new(store) }
    }

    /// Takes one token of a key.
    ///
    /// A store that cannot tell lets the client pass, and is logged: a limit that fails must not stop the service.
    ///
    /// # Errors
    ///
    /// [`TooFast`] when there is none.
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
