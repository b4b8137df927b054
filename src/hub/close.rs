//! Closing connections.

use futures_util::stream::{self, StreamExt as _};

use super::{AT_ONCE, Change, Hub};
use crate::push::{Failure, PushError};
use crate::registry::{Audience, Connection, ConnectionKey, ReadOptions, RegistryError};

/// What closing connections came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Closed {
    /// Those that were closed, or gone already. They are no longer registered.
    pub closed: Vec<ConnectionKey>,
    /// Those that could not be closed. They stay registered.
    pub failed: Vec<Failure>,
    /// Why the registry did not name all of the audience, if it did not.
    pub unread: Option<RegistryError>,
}

impl Closed {
    /// Whether no connection of the audience is left.
    pub fn is_success(&self) -> bool {
        self.unread.is_none() && self.failed.is_empty()
    }
}

impl Hub {
    /// Closes the connections of an audience, such as all of a principal, and removes them.
    ///
    /// Their clients get the close code 1000. Groups are told who went.
    pub async fn close(&self, audience: &Audience) -> Closed {
        let mut closed = Closed::default();
        let mut changes = Vec::new();
        let mut pages = self.registry.connections(audience, ReadOptions::default().consistent());
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    closed.unread = Some(error);
                    break;
                }
            };
            let outcomes: Vec<_> = stream::iter(page)
                .map(|connection| self.close_one(connection))
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            let mut keys = Vec::new();
            for outcome in outcomes {
                match outcome {
                    Ok(key) => keys.push(key),
                    Err(failure) => closed.failed.push(failure),
                }
            }
            // Also those that `$disconnect` has removed in the meantime.
            closed.closed.extend(keys.iter().cloned());
            changes.extend(self.remove_all(keys).await.iter().flat_map(Change::of_removed));
        }
        self.announce(changes).await;
        closed
    }

    async fn close_one(&self, connection: Connection) -> Result<ConnectionKey, Failure> {
        let closed = match self.pusher_for(&connection) {
            Ok(pusher) => pusher.close(connection.id()).await,
            Err(error) => Err(error),
        };
        match closed {
            Ok(()) => Ok(connection.key().clone()),
            Err(PushError::Gone { .. }) if !self.is_young(&connection) => Ok(connection.key().clone()),
            Err(error) => Err(Failure { connection_id: connection.id().clone(), error }),
        }
    }
}
