//! Stores of token buckets.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::Quota;
use super::bucket::Bucket;
use crate::clock;

/// Keeps a token bucket for each key.
#[async_trait]
pub trait RateLimitStore: Send + Sync {
    /// Takes a token from the bucket of this key.
    ///
    /// Returns `None` if there was a token, and otherwise how long to wait for one.
    ///
    /// Every call for a key passes the same quota.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    async fn take(&self, key: &str, quota: Quota) -> Result<Option<Duration>, Box<dyn Error + Send + Sync>>;
}

/// Keeps token buckets in this process, one for each recently used key.
///
/// Clones share the buckets.
#[derive(Clone, Default)]
pub struct InMemory {
    buckets: Arc<Mutex<Buckets>>,
}

impl InMemory {
    /// Creates a store in which every bucket is full.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl RateLimitStore for InMemory {
    async fn take(&self, key: &str, quota: Quota) -> Result<Option<Duration>, Box<dyn Error + Send + Sync>> {
        let now = clock::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        match buckets.get(key).take(quota, now) {
            Ok(after) => {
                buckets.set(key, after, now);
                Ok(None)
            }
            Err(wait) => Ok(Some(wait)),
        }
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").finish_non_exhaustive()
    }
}

/// Buckets by their keys. A full bucket has no entry, or one that is removed before the map grows.
#[derive(Default)]
pub(super) struct Buckets(HashMap<String, Bucket>);

impl Buckets {
    pub(super) fn get(&self, key: &str) -> Bucket {
        self.0.get(key).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, key: &str, bucket: Bucket, now: SystemTime) {
        if let Some(found) = self.0.get_mut(key) {
            *found = bucket;
            return;
        }
        if self.0.len() == self.0.capacity() {
            let now = Bucket::full_at(now);
            self.0.retain(|_, bucket| *bucket > now);
            // The next removal is then as many insertions away as there are entries.
            self.0.reserve(self.0.len().max(1));
        }
        self.0.insert(key.to_owned(), bucket);
    }
}
