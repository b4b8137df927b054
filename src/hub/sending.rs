//! One message to an audience.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::mpsc;

use super::Hub;
use super::evidence::{Evidence, Origin};
use super::presence::{self, Budget, PresenceEvent};
use crate::clock;
use crate::event::ConnectionId;
use crate::push::{Content, Incomplete, Payload, PushError, Report};
use crate::registry::{Audience, Connection, ConnectionKey, ReadOptions, RegistryError};

/// A message to an audience, sent when awaited.
///
/// Awaiting it returns a [`SendReport`]. [`PushError::NotJson`] and [`PushError::TooLarge`] mean
/// that the message cannot be sent to anybody; a [payload](Hub::send_payload_to) has no such
/// errors.
#[must_use = "nothing is sent unless it is awaited"]
#[derive(Debug)]
pub struct PendingSend<'a> {
    hub: &'a Hub,
    audience: Audience,
    payload: Result<Payload, PushError>,
    except: HashSet<ConnectionKey>,
    options: ReadOptions,
    prunes: bool,
    /// The audience, if it was read before.
    members: Option<Vec<Connection>>,
}

/// The outcome of sending to an audience.
#[derive(Debug)]
#[must_use = "it says who does not have the message; `require_all` makes an error of it if there is anybody"]
#[non_exhaustive]
pub struct SendReport {
    /// The outcome for every connection that the registry returned.
    pub report: Report,
    /// The stale connections that were removed from the registry.
    ///
    /// A connection that may not be open yet stays.
    pub pruned: Vec<ConnectionKey>,
    /// How many connections stay registered despite a 410 that is [not
    /// believed](Hub#stale-connections).
    pub withheld: usize,
    /// The registry's error, if the audience was not read completely.
    pub unread: Option<RegistryError>,
}

impl SendReport {
    /// Returns whether every connection of the audience received the message or is disconnected.
    pub fn is_success(&self) -> bool {
        self.unread.is_none() && self.report.is_success()
    }

    /// Returns an error unless every connection received the message or is disconnected.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] with the number of connections that failed, the first reason, and the report.
    pub fn require_all(self) -> Result<(), Incomplete<Self>> {
        match self.shortcoming() {
            None => Ok(()),
            Some(text) => Err(Incomplete::new(self, text)),
        }
    }

    fn shortcoming(&self) -> Option<String> {
        match &self.unread {
            Some(error) => Some(Incomplete::<Self>::text("not all of the audience was read".to_owned(), Some(error))),
            None => self.report.shortcoming(),
        }
    }
}

/// Formats the report as one line for a log, without ids.
impl fmt::Display for SendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} pruned", self.report, self.pruned.len())?;
        if self.withheld > 0 {
            write!(f, ", {} not, since their 410 is not believed", self.withheld)?;
        }
        match &self.unread {
            Some(error) => write!(f, "; not all were read: {error}"),
            None => Ok(()),
        }
    }
}

/// State that reading the registry and the broadcast share.
#[derive(Default)]
struct Recorded {
    /// Connections whose push has no response yet, and whether they may not be open yet.
    under_way: HashMap<ConnectionId, (Origin, bool)>,
    error: Option<RegistryError>,
}

impl<'a> PendingSend<'a> {
    pub(super) fn new(hub: &'a Hub, audience: Audience, payload: Result<Payload, PushError>) -> Self {
        Self {
            hub,
            audience,
            payload,
            except: HashSet::new(),
            options: ReadOptions::default(),
            prunes: true,
            members: None,
        }
    }

    /// Excludes a connection, such as the sender's. Can be called several times.
    pub fn except(mut self, key: &ConnectionKey) -> Self {
        self.except.insert(key.clone());
        self
    }

    pub(super) fn excepting(mut self, keys: impl IntoIterator<Item = ConnectionKey>) -> Self {
        self.except.extend(keys);
        self
    }

    /// Reads the audience with these options. Default: [`ReadOptions::default`].
    pub fn reading(mut self, options: ReadOptions) -> Self {
        self.options = options;
        self
    }

    /// Keeps stale connections registered, so that the next send finds and announces them.
    pub(super) fn without_pruning(mut self) -> Self {
        self.prunes = false;
        self
    }

    /// Sends to these members of the audience, which were read before.
    pub(super) fn to(mut self, members: Vec<Connection>) -> Self {
        self.members = Some(members);
        self
    }

    /// Sends the message and removes stale connections, without announcing them.
    pub(super) async fn deliver(self) -> Result<(SendReport, Vec<PresenceEvent>), PushError> {
        let Self { hub, audience, payload, except, options, prunes, members } = self;
        let payload = Arc::new(payload?);
        let recorded = Mutex::new(Recorded::default());
        let evidence = Evidence::new(hub);
        let recipient = |connection: Connection| {
            let entry = (Origin::new(&connection), hub.is_young(&connection));
            lock(&recorded).under_way.insert(connection.id().clone(), entry);
            let pusher = hub.pusher_for(&connection);
            let content: Content = pusher.map(|pusher| (Arc::clone(&payload), Some(Arc::clone(pusher.transport()))));
            (connection.id().clone(), content)
        };
        let pages = match members {
            Some(members) => presence::pages(members),
            None => hub.parts.registry.connections(&audience, options),
        };
        let members = pages.flat_map(|page| {
            stream::iter(page.unwrap_or_else(|error| {
                lock(&recorded).error = Some(error);
                Vec::new()
            }))
        });
        let now = clock::now();
        let is_recipient =
            |connection: &Connection| !except.contains(connection.key()) && connection.is_authorized(now);
        let recipients = members.filter(|connection| std::future::ready(is_recipient(connection))).map(recipient);
        let (stale, mut to_remove) = mpsc::unbounded_channel::<Option<ConnectionKey>>();
        // The receiver is dropped only after the removals below have ended, which is after the last
        // of these.
        let remove = |keys: Vec<ConnectionKey>| keys.into_iter().for_each(|key| drop(stale.send(Some(key))));
        let broadcast = hub
            .parts
            .pushers
            .default()
            .broadcast_through(recipients)
            .on_delivered(|id| {
                let answered = lock(&recorded).under_way.remove(id);
                if let Some((origin, _)) = answered {
                    remove(evidence.alive(&origin));
                }
            })
            .on_gone(|id| {
                let answered = lock(&recorded).under_way.remove(id);
                if let Some((origin, false)) = answered
                    && prunes
                {
                    remove(evidence.gone(origin));
                }
            });
        let broadcast = async {
            let report = broadcast.await;
            let _ = stale.send(None);
            report
        };
        let to_remove = stream::poll_fn(|cx| to_remove.poll_recv(cx));
        let to_remove = to_remove.take_while(|key| std::future::ready(key.is_some())).filter_map(std::future::ready);
        let (mut report, removed) = join(broadcast, hub.remove_all(to_remove)).await;
        let unread = lock(&recorded).error.take();
        report.is_complete = report.is_complete && unread.is_none();
        Ok((SendReport { report, pruned: removed.keys, withheld: evidence.withheld(), unread }, removed.events))
    }
}

impl<'a> IntoFuture for PendingSend<'a> {
    type Output = Result<SendReport, PushError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<SendReport, PushError>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (hub, audience) = (self.hub, self.audience.clone());
            let (sent, events) = self.deliver().await?;
            // Announcing takes at most as many pushes as sending did.
            hub.announce_or_queue(events, Budget::Pushes(sent.report.ids(), audience)).await;
            Ok(sent)
        })
    }
}

fn lock(recorded: &Mutex<Recorded>) -> MutexGuard<'_, Recorded> {
    recorded.lock().unwrap_or_else(PoisonError::into_inner)
}
