//! Which tickets have been redeemed.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use crate::clock;
use crate::event::{ConnectionId, RequestId};

/// Remembers which tickets have been redeemed until they expire, so that each opens one connection.
#[async_trait]
pub trait TicketStore: Send + Sync {
    /// Redeems a ticket by its id, and returns whether this redeemer is the first one.
    ///
    /// Of several redeemers at the same time exactly one is the first. The first one is the first again when it asks again, since the
    /// store may have lost an answer. After `expires_at` the ticket is refused anyway, and the store can forget it.
    ///
    /// # Errors
    ///
    /// When the store cannot tell. The client then gets 500.
    async fn redeem(
        &self,
        ticket_id: &str,
        redeemer: &Redeemer,
        expires_at: SystemTime,
    ) -> Result<bool, Box<dyn Error + Send + Sync>>;
}

/// Names the handshake that redeems a ticket.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Redeemer(String);

impl Redeemer {
    pub(super) fn new(request_id: &RequestId, connection_id: &ConnectionId) -> Self {
        Self(format!("{request_id} {connection_id}"))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Redeemer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redeemer({})", self.0)
    }
}

/// Remembers in this process, for tests and local development.
///
/// On AWS each execution environment would have a memory of its own, and a ticket would open a connection in each of them. Clones share
/// what they remember.
#[derive(Clone, Default)]
pub struct InMemory {
    redeemed: Arc<Mutex<HashMap<String, (Redeemer, SystemTime)>>>,
}

impl InMemory {
    /// Creates a store that has seen no ticket.
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
        // The map is looked through whenever it would have to grow.
        if redeemed.len() == redeemed.capacity() {
            redeemed.retain(|_, (_, until)| *until > now);
            // So that the next look is as many insertions away as there are entries.
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
