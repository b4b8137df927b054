//! Closing connections.

use futures_util::stream::{self, StreamExt as _};

use super::presence::Budget;
use super::{AT_ONCE, Hub};
use crate::push::{FailedPush, Incomplete, PushError};
use crate::registry::{Audience, Connection, ConnectionKey, ReadOptions, RegistryError};

/// The outcome of closing connections.
#[derive(Debug, Default)]
#[must_use = "it says which connections could not be closed; `require_all` makes an error of it if there are any"]
#[non_exhaustive]
pub struct CloseReport {
    /// The connections that were closed, now or earlier. They are no longer registered.
    pub closed: Vec<ConnectionKey>,
    /// The connections that could not be closed. They stay registered.
    pub failed: Vec<FailedPush>,
    /// The connections that were closed but could not be removed from the registry.
    pub still_registered: Vec<ConnectionKey>,
    /// The registry's error, if the audience was not read completely.
    pub unread: Option<RegistryError>,
}

impl CloseReport {
    /// Returns whether no connection of the audience is left.
    pub fn is_success(&self) -> bool {
        self.unread.is_none() && self.failed.is_empty() && self.still_registered.is_empty()
    }

    /// Returns an error if a connection of the audience is left.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] with the number of connections that are left, the first reason, and the
    /// report.
    pub fn require_all(self) -> Result<(), Incomplete<Self>> {
        let (closed, failed, left) = (self.closed.len(), self.failed.len(), self.still_registered.len());
        let all = closed.saturating_add(failed).saturating_add(left);
        let text = match (&self.unread, self.failed.first()) {
            (Some(error), _) => Incomplete::<Self>::text("not all of the audience was read".to_owned(), Some(error)),
            (None, Some(first)) => {
                let text = format!("{failed} of {all} connections were not closed; the first");
                Incomplete::<Self>::text(text, Some(&first.error))
            }
            (None, None) if left > 0 => format!("{left} of {all} connections were closed and are still registered"),
            (None, None) => return Ok(()),
        };
        Err(Incomplete::new(self, text))
    }
}

impl Hub {
    /// Closes the connections of an audience, such as a principal, and removes them.
    ///
    /// Their clients receive close code 1000. Each group gets one announcement of all principals
    /// that left it.
    pub async fn close(&self, audience: &Audience) -> CloseReport {
        let mut report = CloseReport::default();
        let mut events = Vec::new();
        let mut pages = self.parts.registry.connections(audience, ReadOptions::default().consistent());
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    report.unread = Some(error);
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
                    Err(failure) => report.failed.push(failure),
                }
            }
            let removed = self.remove_all(stream::iter(keys.clone())).await;
            // These include connections that `$disconnect` has removed in the meantime.
            report.closed.extend(keys.into_iter().filter(|key| !removed.failed.contains(key)));
            report.still_registered.extend(removed.failed);
            events.extend(removed.events);
        }
        self.announce_or_queue(events, Budget::Own).await;
        report
    }

    async fn close_one(&self, connection: Connection) -> Result<ConnectionKey, FailedPush> {
        let closed = match self.pusher_for(&connection) {
            Ok(pusher) => pusher.close(connection.id()).await,
            Err(error) => Err(error),
        };
        let is_believed = || self.is_proven(connection.api_id(), connection.stage());
        match closed {
            Ok(()) => Ok(connection.key().clone()),
            Err(PushError::Gone { .. }) if !self.is_young(&connection) && is_believed() => Ok(connection.key().clone()),
            Err(error) => Err(FailedPush { connection_id: connection.id().clone(), error }),
        }
    }
}
