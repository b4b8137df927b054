//! Doing once what is delivered several times.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::clock;
use crate::reply::IdempotencyKey;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Remembers which jobs are completed, since queues deliver a message at least once.
///
/// A worker acquires a lease on a job before it runs the job, and completes it afterwards. A lease ends by itself after a while, so
/// that the job of a worker that was killed is not lost. It should be as long as the function may run: until it ends, a
/// message that is redelivered is a batch item failure, which counts as an attempt of the queue.
///
/// A worker that was killed after it had pushed the result, and before it could complete the job, lets the client
/// get the result twice: of losing a result and repeating it, this chooses to repeat it.
///
/// Requests to a store are repeated when their answers are lost, so each method must have the same effect when it is called again
/// with the same arguments.
#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// Acquires a lease on a job for this owner.
    ///
    /// An owner that has the lease already acquires it again: an earlier answer may have been lost.
    ///
    /// # Errors
    ///
    /// When the store cannot tell. The worker then releases the lease, and the message is retried.
    async fn acquire(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<Claim>;

    /// Marks a job as completed, even if another owner has its lease.
    ///
    /// # Errors
    ///
    /// When that could not be stored. The worker logs it; the job may then run again.
    async fn complete(&self, key: &IdempotencyKey) -> Result<()>;

    /// Releases the lease of this owner, so that another worker can acquire it.
    ///
    /// A lease of another owner and a completed job stay as they are.
    ///
    /// # Errors
    ///
    /// When that could not be stored. The worker logs it; the lease then ends by itself.
    async fn release(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<()>;
}

/// Whether a job may run.
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

/// Names one attempt at one job: 32 random hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseOwner(String);

impl LeaseOwner {
    /// Creates an owner that differs from every other.
    pub fn random() -> Self {
        Self(format!("{:032x}", fastrand::u128(..)))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseOwner({})", self.0)
    }
}

/// Remembers in this process, for tests and for a worker of which only one instance runs.
///
/// Clones share what they remember.
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
    /// Creates a store whose leases end after `lease`, and which forgets completed jobs after `memory`.
    ///
    /// `memory` should exceed the time for which the queue keeps a message.
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
        // The map does not grow beyond what is remembered: it is looked through whenever it would have to.
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
