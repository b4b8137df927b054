//! Answering once what comes several times.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::event::CorrelationId;

/// Remembers which questions have been answered, since queues deliver a message at least once.
///
/// A claim ends by itself after a while, so that the question of a worker that died is not lost. That lease is to be as long as
/// the function may run: until it ends a message that comes again is put off, which counts as an attempt of the queue. If it died after it had
/// pushed the answer and before it could [say so](Self::answered), the client gets the answer once more: of losing an answer and
/// repeating it, this chooses to repeat it.
#[async_trait]
pub trait Once: Send + Sync {
    /// Claims a question.
    ///
    /// # Errors
    ///
    /// When that cannot be known now; the message comes again.
    async fn claim(&self, id: &CorrelationId) -> Result<Claim, Box<dyn Error + Send + Sync>>;

    /// The question has been answered.
    ///
    /// # Errors
    ///
    /// When that could not be noted.
    async fn answered(&self, id: &CorrelationId) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// The question could not be answered, and may be claimed anew.
    ///
    /// # Errors
    ///
    /// When that could not be noted.
    async fn release(&self, id: &CorrelationId) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Whose question it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody's yet: now it is the caller's.
    First,
    /// It has been answered.
    Answered,
    /// Another worker is at it.
    Elsewhere,
}

/// Remembers in this process, for tests and for workers of which only one runs.
///
/// Clones share what they remember. Time is tokio's.
#[derive(Clone)]
pub struct InMemory {
    state: Arc<Mutex<HashMap<CorrelationId, Entry>>>,
    lease: Duration,
    memory: Duration,
}

#[derive(Clone, Copy)]
struct Entry {
    is_answered: bool,
    until: Instant,
}

impl InMemory {
    /// Claims end after this lease; an answer is remembered for this long, which is to exceed the time for which the queue
    /// keeps a message.
    pub fn new(lease: Duration, memory: Duration) -> Self {
        Self { state: Arc::default(), lease, memory }
    }

    fn state(&self) -> MutexGuard<'_, HashMap<CorrelationId, Entry>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self, time: Duration) -> Instant {
        let now = Instant::now();
        now.checked_add(time).unwrap_or(now)
    }
}

#[async_trait]
impl Once for InMemory {
    async fn claim(&self, id: &CorrelationId) -> Result<Claim, Box<dyn Error + Send + Sync>> {
        let now = Instant::now();
        let until = self.until(self.lease);
        let mut state = self.state();
        // The map does not grow beyond what is remembered: it is looked through whenever it would have to.
        if state.len() == state.capacity() {
            state.retain(|_, entry| entry.until > now);
        }
        match state.get(id) {
            Some(entry) if entry.until > now && entry.is_answered => Ok(Claim::Answered),
            Some(entry) if entry.until > now => Ok(Claim::Elsewhere),
            _ => {
                state.insert(id.clone(), Entry { is_answered: false, until });
                Ok(Claim::First)
            }
        }
    }

    async fn answered(&self, id: &CorrelationId) -> Result<(), Box<dyn Error + Send + Sync>> {
        let until = self.until(self.memory);
        self.state().insert(id.clone(), Entry { is_answered: true, until });
        Ok(())
    }

    async fn release(&self, id: &CorrelationId) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.state().remove(id);
        Ok(())
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("lease", &self.lease).finish_non_exhaustive()
    }
}
