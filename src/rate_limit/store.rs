//! Where token buckets are kept.

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
    /// Takes a token of this key, and returns `None`, or how long there is none.
    ///
    /// Every call for a key has the same quota.
    ///
    /// # Errors
    ///
    /// When the store cannot tell.
    async fn take(&self, key: &str, quota: Quota) -> Result<Option<Duration>, Box<dyn Error + Send + Sync>>;
}

/// Keeps token buckets in this process: one entry for each key that was used recently.
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

/// Buckets by their keys. A full one has no entry, or one that the next growth of the map removes.
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
            // So that the next look is as many insertions away as there are entries.
            self.0.reserve(self.0.len().max(1));
        }
        self.0.insert(key.to_owned(), bucket);
    }
}
