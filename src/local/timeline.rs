//! The timeline of a gateway: what happened, in order, and why.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use super::rules::Fault;
use crate::event::{ConnectionId, Stage};

/// The maximum number of entries that a timeline keeps, and of bytes in their bodies.
const CAPACITY: usize = 1024;
const MAX_BYTES: usize = 1024 * 1024;
/// The maximum number of entries that a subscription may be behind.
const BEHIND: usize = 1024;

/// One event in a gateway.
///
/// Its `Display` is a log line without message bodies.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The position in the timeline, from 0 and without gaps.
    pub number: u64,
    /// When it happened.
    pub at: SystemTime,
    /// The connection that the entry is about.
    pub connection_id: Option<ConnectionId>,
    /// What happened.
    pub kind: EntryKind,
}

/// The event that an [`Entry`] describes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EntryKind {
    /// A client requested a connection.
    Handshake {
        /// The requested stage.
        stage: Stage,
        /// The client's address.
        client: SocketAddr,
    },
    /// The client's connection was accepted.
    Opened {
        /// The selected subprotocol.
        subprotocol: Option<String>,
    },
    /// The client's connection was refused.
    Refused {
        /// The HTTP status of the handshake.
        status: u16,
        /// Why the connection was refused.
        reason: Cow<'static, str>,
    },
    /// A client sent a message.
    Received {
        /// The message.
        text: Body,
        /// The selected route, or `None` if the message reached no function.
        route_key: Option<String>,
        /// Why this route was selected, or none.
        reason: Cow<'static, str>,
    },
    /// A function was called.
    Invoked {
        /// The route key, or `authorizer`.
        route_key: String,
    },
    /// A function responded, failed, or timed out.
    Answered {
        /// The route key, or `authorizer`.
        route_key: String,
        /// The status of the response, or why there is none.
        outcome: Cow<'static, str>,
        /// How long the invocation took.
        took: Duration,
        /// The length of the response in bytes.
        bytes: usize,
        /// Whether the function failed or its response is malformed.
        failed: bool,
        /// What the client got, or why it got nothing.
        effect: Cow<'static, str>,
    },
    /// A message was passed to a client's socket.
    Sent {
        /// The message.
        text: Body,
        /// Where the message came from.
        origin: Origin,
    },
    /// A message did not reach a client's socket.
    Dropped {
        /// Why the message was dropped.
        reason: Cow<'static, str>,
    },
    /// `@connections` was called.
    Managed {
        /// The HTTP method: `POST`, `GET`, or `DELETE`.
        method: &'static str,
        /// The status, or `None` if a fault suppresses the response.
        status: Option<u16>,
        /// The length of the payload in bytes.
        bytes: usize,
    },
    /// A connection ended.
    Closed {
        /// The close code.
        code: u16,
        /// The close reason.
        reason: String,
        /// Whether the gateway closed the connection, rather than the client.
        by_gateway: bool,
    },
    /// An injected fault took effect.
    Fault {
        /// The fault that took effect.
        fault: Fault,
    },
}

/// The origin of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A push through `@connections`.
    Push,
    /// A function's response on a route with a route response.
    RouteResponse,
    /// The gateway itself, for example `Forbidden`.
    Gateway,
}

/// The body of a message. Its `Debug` shows only the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Arc<str>);

impl Body {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the body as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (second, milliseconds) = (since.as_secs() % 86_400, since.subsec_millis());
        write!(f, "{:02}:{:02}:{:02}.{milliseconds:03} ", second / 3600, second / 60 % 60, second % 60)?;
        match &self.connection_id {
            Some(id) => write!(f, "{id} ")?,
            None => f.write_str("-                ")?,
        }
        self.kind.fmt(f)
    }
}

impl EntryKind {
    /// Returns whether the gateway logs this as a warning by default.
    pub(super) fn is_problem(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Dropped { .. } | Self::Answered { failed: true, .. })
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake { stage, client } => write!(f, "handshake of {client} with the stage {stage}"),
            Self::Opened { subprotocol: None } => f.write_str("opened"),
            Self::Opened { subprotocol: Some(subprotocol) } => {
                write!(f, "opened, with the subprotocol {subprotocol:?}")
            }
            Self::Refused { status, reason } => write!(f, "refused with {status}: {reason}"),
            Self::Received { text, route_key: Some(key), reason } => {
                write!(f, "message of {} bytes to the route {key}: {reason}", text.0.len())
            }
            Self::Received { text, route_key: None, reason } => {
                write!(f, "message of {} bytes to no route: {reason}", text.0.len())
            }
            Self::Invoked { route_key } => write!(f, "{route_key} is called"),
            Self::Answered { route_key, outcome, took, bytes, effect, .. } => {
                write!(f, "{route_key} {outcome} after {} ms with {bytes} bytes: {effect}", took.as_millis())
            }
            Self::Sent { text, origin } => write!(f, "sent {} bytes from {origin}", text.0.len()),
            Self::Dropped { reason } => write!(f, "nothing is sent: {reason}"),
            Self::Managed { method, status: Some(status), bytes } => {
                write!(f, "{method} @connections of {bytes} bytes: {status}")
            }
            Self::Managed { method, status: None, bytes } => {
                write!(f, "{method} @connections of {bytes} bytes: not answered")
            }
            Self::Closed { code, reason, by_gateway } => {
                let by = if *by_gateway { "the gateway" } else { "the client" };
                write!(f, "closed by {by} with {code} {reason:?}")
            }
            Self::Fault { fault } => write!(f, "the fault {fault:?} strikes"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Push => "a push",
            Self::RouteResponse => "the route response",
            Self::Gateway => "the gateway",
        })
    }
}

/// Receives every entry of a gateway, in order.
///
/// The gateway calls the observer outside of its locks, on the thread where the event happened, and
/// waits for it: an observer must not block.
pub trait Observer: Send + Sync {
    /// Receives one entry.
    fn see(&self, entry: &Entry);
}

impl<F: Fn(&Entry) + Send + Sync> Observer for F {
    fn see(&self, entry: &Entry) {
        self(entry);
    }
}

/// The most recent events of a gateway.
///
/// A timeline keeps the last 1,024 entries, with at most 1 MB of message bodies. Clones share them.
#[derive(Clone)]
pub struct Timeline(Arc<Shared>);

struct Shared {
    kept: Mutex<Kept>,
    observers: Vec<Box<dyn Observer>>,
    subscribers: broadcast::Sender<Entry>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Entry>,
    bytes: usize,
    next: u64,
    /// The entries that the observers have not received yet.
    unseen: VecDeque<Entry>,
    is_delivering: bool,
}

/// A subscription to the new entries of a timeline.
#[derive(Debug)]
pub struct Entries(broadcast::Receiver<Entry>);

impl Entries {
    /// Waits for the next entry.
    ///
    /// Returns `None` once the gateway and every clone of the timeline are dropped. Entries are
    /// skipped if the subscription is more than 1,024 behind.
    pub async fn next(&mut self) -> Option<Entry> {
        loop {
            match self.0.recv().await {
                Ok(entry) => return Some(entry),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Timeline {
    pub(super) fn new(observers: Vec<Box<dyn Observer>>) -> Self {
        Self(Arc::new(Shared { kept: Mutex::default(), observers, subscribers: broadcast::Sender::new(BEHIND) }))
    }

    /// Returns the kept entries, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.kept().entries.iter().cloned().collect()
    }

    /// Returns the kept entries about one connection, oldest first.
    pub fn of(&self, connection_id: &ConnectionId) -> Vec<Entry> {
        let is_of = |entry: &&Entry| entry.connection_id.as_ref() == Some(connection_id);
        self.kept().entries.iter().filter(is_of).cloned().collect()
    }

    /// Returns the newest connection of a client with this address.
    pub(super) fn connection_of(&self, address: SocketAddr) -> Option<ConnectionId> {
        let is_of = |entry: &&Entry| matches!(entry.kind, EntryKind::Handshake { client, .. } if client == address);
        self.kept().entries.iter().rev().find(is_of).and_then(|entry| entry.connection_id.clone())
    }

    /// Subscribes to new entries.
    pub fn subscribe(&self) -> Entries {
        Entries(self.0.subscribers.subscribe())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries.
    ///
    /// The caller holds the lock of the rules, so that the entries are in the order of the events.
    pub(super) fn add(&self, at: SystemTime, notes: impl IntoIterator<Item = (Option<ConnectionId>, EntryKind)>) {
        let mut kept = self.kept();
        for (connection_id, kind) in notes {
            let entry = Entry { number: kept.next, at, connection_id, kind };
            kept.next = kept.next.saturating_add(1);
            kept.bytes = kept.bytes.saturating_add(size(&entry));
            if !self.0.observers.is_empty() || self.0.subscribers.receiver_count() > 0 {
                kept.unseen.push_back(entry.clone());
            }
            kept.entries.push_back(entry);
            while kept.entries.len() > CAPACITY || kept.bytes > MAX_BYTES {
                let Some(oldest) = kept.entries.pop_front() else { break };
                kept.bytes = kept.bytes.saturating_sub(size(&oldest));
            }
        }
    }

    /// Passes pending entries to the observers.
    ///
    /// The caller holds no lock, because an observer may use the gateway.
    pub(super) fn deliver(&self) {
        let mut kept = self.kept();
        if kept.is_delivering {
            // The thread that delivers also passes on the entries added meanwhile, in order.
            return;
        }
        while let Some(entry) = kept.unseen.pop_front() {
            kept.is_delivering = true;
            drop(kept);
            let delivering = Delivering(self);
            for observer in &self.0.observers {
                observer.see(&entry);
            }
            let _ = self.0.subscribers.send(entry);
            drop(delivering);
            kept = self.kept();
            if kept.is_delivering {
                return;
            }
        }
    }
}

/// Ends a delivery, even if an observer panics.
struct Delivering<'a>(&'a Timeline);

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        self.0.kept().is_delivering = false;
    }
}

fn size(entry: &Entry) -> usize {
    match &entry.kind {
        EntryKind::Received { text, .. } | EntryKind::Sent { text, .. } => text.0.len(),
        _ => 0,
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline").field("entries", &self.kept().entries.len()).finish_non_exhaustive()
    }
}
