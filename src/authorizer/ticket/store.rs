//! Stores of redeemed tickets.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use crate::clock;
use crate::event::{ConnectionId, RequestId};

/// Records which tickets have been redeemed, so that each opens only one connection.
#[async_trait]
pub trait TicketStore: Send + Sync {
    /// Redeems a ticket by its id, and returns whether this redeemer was the first.
    ///
    /// If several redeemers call this concurrently, exactly one is the first. A repeated call by
    /// the first redeemer returns `true` again, since the response to its earlier call may have
    /// been lost. The store can delete the record after `expires_at`, when the ticket is no longer
    /// valid.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The client then gets 500.
    async fn redeem(
        &self,
        ticket_id: &str,
        redeemer: &Redeemer,
        expires_at: SystemTime,
    ) -> Result<bool, Box<dyn Error + Send + Sync>>;
}

/// Identifies the handshake that redeems a ticket.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Redeemer(String);

impl Redeemer {
    pub(super) fn new(request_id: &RequestId, connection_id: &ConnectionId) -> Self {
        Self(format!("{request_id} {connection_id}"))
    }

    /// Returns the identifier as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Redeemer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redeemer({})", self.0)
    }
}

/// Records redeemed tickets in this process, for tests and local development.
///
/// Do not use it on AWS: each execution environment would have its own memory, and a ticket would
/// open one connection in each. Clones share their records.
#[derive(Clone, Default)]
pub struct InMemory {
    redeemed: Arc<Mutex<HashMap<String, (Redeemer, SystemTime)>>>,
}

impl InMemory {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl TicketStore for InMemory {
    async fn redeem(
        &self,
        ticket_id: &str,
        redeemer: &Redeemer,
        expires_at: SystemTime,
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let now = clock::now();
        let mut redeemed = self.redeemed.lock().unwrap_or_else(PoisonError::into_inner);
        // Expired entries are removed whenever the map would have to grow.
        if redeemed.len() == redeemed.capacity() {
            redeemed.retain(|_, (_, until)| *until > now);
            // The next removal is then as many insertions away as there are entries.
            let entries = redeemed.len().max(1);
            redeemed.reserve(entries);
        }
        let (first, _) = redeemed.entry(ticket_id.to_owned()).or_insert_with(|| (redeemer.clone(), expires_at));
        Ok(first == redeemer)
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").finish_non_exhaustive()
    }
}
