//! One message to an audience.

use std::collections::HashSet;
use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, StreamExt as _};

use super::{Change, Hub};
use crate::event::ConnectionId;
use crate::push::{Content, Payload, Report};
use crate::registry::{Audience, Connection, ConnectionKey, ReadOptions, RegistryError, Removed};

/// A message that is sent to an audience when it is awaited, and ends with what it came to.
#[must_use = "nothing is sent unless it is awaited"]
#[derive(Debug)]
pub struct Sending<'a> {
    hub: &'a Hub,
    audience: Audience,
    payload: Payload,
    except: HashSet<ConnectionKey>,
    options: ReadOptions,
}

/// What sending to an audience came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Sent {
    /// What became of every connection that the registry named.
    pub report: Report,
    /// Those that are gone and were removed from the registry. One that is gone but may not be open yet stays.
    pub pruned: Vec<ConnectionKey>,
    /// Why the registry did not name all of the audience, if it did not.
    pub unread: Option<RegistryError>,
}

impl Sent {
    /// Whether everyone in the audience either has the message or is gone.
    pub fn is_success(&self) -> bool {
        self.unread.is_none() && self.report.is_success()
    }
}

/// One line for a log, without ids.
impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} pruned", self.report, self.pruned.len())?;
        match &self.unread {
            Some(error) => write!(f, "; not all were read: {error}"),
            None => Ok(()),
        }
    }
}

/// What is noted while the registry is read.
#[derive(Default)]
struct Noted {
    /// Connections that may not be open yet.
    young: HashSet<ConnectionId>,
    error: Option<RegistryError>,
}

impl<'a> Sending<'a> {
    pub(super) fn new(hub: &'a Hub, audience: Audience, payload: Payload) -> Self {
        Self { hub, audience, payload, except: HashSet::new(), options: ReadOptions::default() }
    }

    /// Does not send it to this connection, such as that of the sender. Can be said of several.
    pub fn except(mut self, key: &ConnectionKey) -> Self {
        self.except.insert(key.clone());
        self
    }

    pub(super) fn excepting(mut self, keys: impl IntoIterator<Item = ConnectionKey>) -> Self {
        self.except.extend(keys);
        self
    }

    /// Reads the audience so.
    pub fn reading(mut self, options: ReadOptions) -> Self {
        self.options = options;
        self
    }

    /// Sends it and removes what is gone, without telling anybody.
    pub(super) async fn deliver(self) -> (Sent, Vec<Removed>) {
        let Self { hub, audience, payload, except, options } = self;
        let payload = Arc::new(payload);
        let noted = Arc::new(Mutex::new(Noted::default()));
        let note = Arc::clone(&noted);
        let recipient = move |connection: Connection| {
            if hub.is_young(&connection) {
                lock(&note).young.insert(connection.id().clone());
            }
            let pusher = hub.pusher_for(&connection);
            let content: Content = pusher.map(|pusher| (Arc::clone(&payload), Some(Arc::clone(pusher.transport()))));
            (connection.id().clone(), content)
        };
        let note = Arc::clone(&noted);
        let pages = hub.registry.connections(&audience, options).flat_map(move |page| {
            stream::iter(page.unwrap_or_else(|error| {
                lock(&note).error = Some(error);
                Vec::new()
            }))
        });
        let recipients =
            pages.filter(move |connection| std::future::ready(!except.contains(connection.key()))).map(recipient);
        let mut report = hub.pushers.default().broadcast_through(recipients).await;
        let Noted { young, error } = std::mem::take(&mut *lock(&noted));
        report.is_complete = report.is_complete && error.is_none();
        let key = |id: &ConnectionId| ConnectionKey::new(audience.namespace().clone(), id.clone());
        let gone = report.gone.iter().filter(|id| !young.contains(*id)).map(key).collect();
        let removed = hub.remove_all(gone).await;
        let pruned = removed.iter().map(|removed| removed.connection.key().clone()).collect();
        (Sent { report, pruned, unread: error }, removed)
    }
}

fn lock(noted: &Mutex<Noted>) -> std::sync::MutexGuard<'_, Noted> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> IntoFuture for Sending<'a> {
    type Output = Sent;
    type IntoFuture = Pin<Box<dyn Future<Output = Sent> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let hub = self.hub;
            let (sent, removed) = self.deliver().await;
            hub.announce(removed.iter().flat_map(Change::of_removed).collect()).await;
            sent
        })
    }
}
