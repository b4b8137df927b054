//! Idempotency: running a job once even if its message is delivered several times.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::clock;
use crate::reply::IdempotencyKey;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Remembers completed jobs, since queues deliver messages at least once.
///
/// A worker acquires a lease on a job before running it, and completes the job afterwards. Leases
/// expire, so that the job of a killed worker is not lost. Set the lease to the function timeout:
/// until it expires, a redelivered message is reported as a batch item failure, and each redelivery
/// counts as a receive.
///
/// Delivery is at-least-once: if a worker is killed after it has pushed the result and before it
/// has completed the job, the client gets the result again.
///
/// Requests to a store are retried if their response was lost, so each method must be idempotent: a
/// second call with the same arguments must have the same effect.
#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// Acquires a lease on a job for this owner.
    ///
    /// If the owner already has the lease, it acquires it again, since an earlier response may have
    /// been lost.
    ///
    /// # Errors
    ///
    /// Returns an error if the state of the job cannot be determined. The worker then releases the
    /// lease, and the message is retried.
    async fn acquire(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<Claim>;

    /// Marks a job as completed, even if another owner has its lease.
    ///
    /// # Errors
    ///
    /// Returns an error if the store cannot be updated. The worker logs the error; the job may then
    /// run again.
    async fn complete(&self, key: &IdempotencyKey) -> Result<()>;

    /// Releases this owner's lease, so that another worker can acquire it.
    ///
    /// Leases of other owners and completed jobs are not changed.
    ///
    /// # Errors
    ///
    /// Returns an error if the store cannot be updated. The worker logs the error; the lease then
    /// expires.
    async fn release(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<()>;
}

/// The result of [`acquire`](IdempotencyStore::acquire): whether the job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// The owner has the lease: run the job.
    Acquired,
    /// The job is completed: do not run it again.
    Completed,
    /// Another owner has the lease.
    InProgress,
}

/// Identifies one attempt at one job: 32 random hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseOwner(String);

impl LeaseOwner {
    /// Creates a random, unique owner.
    pub fn random() -> Self {
        Self(format!("{:032x}", fastrand::u128(..)))
    }

    /// Returns the owner's id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseOwner({})", self.0)
    }
}

/// An idempotency store in this process's memory.
///
/// Use it in tests, or for a worker of which only one instance runs. Clones share their entries.
#[derive(Clone)]
pub struct InMemory {
    entries: Arc<Mutex<HashMap<IdempotencyKey, Entry>>>,
    lease: Duration,
    memory: Duration,
}

struct Entry {
    /// `None` for a completed job.
    owner: Option<LeaseOwner>,
    until: SystemTime,
}

impl InMemory {
    /// Creates a store with this lease duration and retention of completed jobs.
    ///
    /// `lease` is how long a lease lasts, and `memory` how long completed jobs are remembered.
    /// `memory` should exceed the queue's message retention period.
    pub fn new(lease: Duration, memory: Duration) -> Self {
        Self { entries: Arc::default(), lease, memory }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<IdempotencyKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl IdempotencyStore for InMemory {
    async fn acquire(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<Claim> {
        let now = clock::now();
        let mut entries = self.entries();
        // Removing expired entries before the map reallocates bounds its size.
        if entries.len() == entries.capacity() {
            entries.retain(|_, entry| entry.until > now);
        }
        if let Some(entry) = entries.get(key).filter(|entry| entry.until > now) {
            match &entry.owner {
                None => return Ok(Claim::Completed),
                Some(other) if other != owner => return Ok(Claim::InProgress),
                Some(_) => {}
            }
        }
        let until = now.checked_add(self.lease).unwrap_or(now);
        entries.insert(key.clone(), Entry { owner: Some(owner.clone()), until });
        Ok(Claim::Acquired)
    }

    async fn complete(&self, key: &IdempotencyKey) -> Result<()> {
        let now = clock::now();
        let until = now.checked_add(self.memory).unwrap_or(now);
        self.entries().insert(key.clone(), Entry { owner: None, until });
        Ok(())
    }

    async fn release(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<()> {
        let mut entries = self.entries();
        if entries.get(key).is_some_and(|entry| entry.owner.as_ref() == Some(owner)) {
            entries.remove(key);
        }
        Ok(())
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("lease", &self.lease).field("memory", &self.memory).finish_non_exhaustive()
    }
}
