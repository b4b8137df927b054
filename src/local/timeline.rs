//! What happens in a gateway, in its order, and why.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use super::rules::Fault;
use crate::event::{ConnectionId, Stage};

/// How many entries a timeline keeps, and how many bytes of bodies.
const CAPACITY: usize = 1024;
const MAX_BYTES: usize = 1024 * 1024;
/// How many entries a subscription may be behind.
const BEHIND: usize = 1024;

/// One thing that happened in a gateway. Its `Display` is a line for a log, without bodies.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The position in the timeline, from 0. No number is left out.
    pub number: u64,
    /// When it happened.
    pub at: SystemTime,
    /// The connection that it is about.
    pub connection_id: Option<ConnectionId>,
    /// What happened.
    pub what: What,
}

/// What happened, in an [`Entry`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum What {
    /// A client asked for a connection.
    Handshake {
        /// To which stage.
        stage: Stage,
        /// The client's address.
        client: SocketAddr,
    },
    /// The client's connection was accepted.
    Opened {
        /// The subprotocol that was selected.
        subprotocol: Option<String>,
    },
    /// The client's connection was refused.
    Refused {
        /// The HTTP status of the handshake.
        status: u16,
        /// Why.
        reason: Cow<'static, str>,
    },
    /// A client sent a message.
    Received {
        /// The message.
        text: Body,
        /// The route that it selected; `None` where it reached no function.
        route_key: Option<String>,
        /// Why this route, or none.
        reason: Cow<'static, str>,
    },
    /// A function was called.
    Invoked {
        /// The route, or `authorizer`.
        route_key: String,
    },
    /// A function answered or failed.
    Answered {
        /// The route, or `authorizer`.
        route_key: String,
        /// The status, or why there is none.
        outcome: Cow<'static, str>,
        /// How long it took.
        took: Duration,
        /// The length of the answer in bytes.
        bytes: usize,
        /// Whether the function failed, or its answer is malformed.
        failed: bool,
        /// What became of it: what the client got, or why it got nothing.
        effect: Cow<'static, str>,
    },
    /// A message was handed to a client's socket.
    Sent {
        /// The message.
        text: Body,
        /// What sent it.
        origin: Origin,
    },
    /// A message did not reach a client's socket.
    Dropped {
        /// Why.
        reason: Cow<'static, str>,
    },
    /// `@connections` was called.
    Managed {
        /// `POST`, `GET` or `DELETE`.
        method: &'static str,
        /// The status; `None` when the call is not answered.
        status: Option<u16>,
        /// The length of the payload in bytes.
        bytes: usize,
    },
    /// A connection ended.
    Closed {
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
        /// Whether the gateway closed it, rather than the client.
        by_gateway: bool,
    },
    /// An injected fault struck.
    Fault {
        /// Which.
        fault: Fault,
    },
}

/// What a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A push through `@connections`.
    Push,
    /// A function's answer on a route with a route response.
    RouteResponse,
    /// The gateway itself, such as `Forbidden`.
    Gateway,
}

/// The text of a message. Its `Debug` shows the length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Arc<str>);

impl Body {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the text.
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
        self.what.fmt(f)
    }
}

impl What {
    /// Whether a developer should hear of it without having asked.
    pub(super) fn is_problem(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Dropped { .. } | Self::Answered { failed: true, .. })
    }
}

impl fmt::Display for What {
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

/// Sees everything that happens in a gateway, in its order.
///
/// It is called outside of the gateway's locks, on the thread on which something happened, and delays that: it must not block.
pub trait Observer: Send + Sync {
    /// Sees one entry.
    fn see(&self, entry: &Entry);
}

impl<F: Fn(&Entry) + Send + Sync> Observer for F {
    fn see(&self, entry: &Entry) {
        self(entry);
    }
}

/// The last 1,024 entries of a gateway, with at most 1 MB of bodies. Clones share them.
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
    /// What the observers have not seen.
    unseen: VecDeque<Entry>,
    is_delivering: bool,
}

/// New entries of a timeline, as they happen.
#[derive(Debug)]
pub struct Entries(broadcast::Receiver<Entry>);

impl Entries {
    /// Waits for the next entry; `None` when the gateway is no more. Entries are left out when it is 1,024 behind.
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

    /// Returns the entries that are kept, the oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.kept().entries.iter().cloned().collect()
    }

    /// Returns the entries about one connection that are kept, the oldest first.
    pub fn of(&self, connection_id: &ConnectionId) -> Vec<Entry> {
        let is_of = |entry: &&Entry| entry.connection_id.as_ref() == Some(connection_id);
        self.kept().entries.iter().filter(is_of).cloned().collect()
    }

    /// The newest connection of a client with this address.
    pub(super) fn connection_of(&self, address: SocketAddr) -> Option<ConnectionId> {
        let is_of = |entry: &&Entry| matches!(entry.what, What::Handshake { client, .. } if client == address);
        self.kept().entries.iter().rev().find(is_of).and_then(|entry| entry.connection_id.clone())
    }

    /// Subscribes to the entries from now on.
    pub fn subscribe(&self) -> Entries {
        Entries(self.0.subscribers.subscribe())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries. Called under the lock of the rules, so that their order is the order in which things happened.
    pub(super) fn add(&self, at: SystemTime, notes: impl IntoIterator<Item = (Option<ConnectionId>, What)>) {
        let mut kept = self.kept();
        for (connection_id, what) in notes {
            let entry = Entry { number: kept.next, at, connection_id, what };
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

    /// Shows the observers what they have not seen. Called without a lock: an observer may use the gateway.
    pub(super) fn deliver(&self) {
        let mut kept = self.kept();
        if kept.is_delivering {
            // Whoever delivers takes what was added meanwhile with it, and keeps the order.
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

/// Ends a delivery also when an observer panics.
struct Delivering<'a>(&'a Timeline);

impl Drop for Delivering<'_> {
    fn drop(&mut self) {
        self.0.kept().is_delivering = false;
    }
}

fn size(entry: &Entry) -> usize {
    match &entry.what {
        What::Received { text, .. } | What::Sent { text, .. } => text.0.len(),
        _ => 0,
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline").field("entries", &self.kept().entries.len()).finish_non_exhaustive()
    }
}
