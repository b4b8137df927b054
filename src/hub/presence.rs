//! Presence events: which principals joined a group, and which left it.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

use super::Hub;
use crate::event::ConnectionId;
use crate::push::{Payload, PushError};
use crate::registry::{
    Arrivals, Audience, Connection, ConnectionKey, Departures, Group, Joined, Left, Namespace, Principal, ReadOptions,
};

/// The maximum number of events in a message; the others wait for the next message.
const MAX_EVENTS: usize = 500;
/// The maximum number of pending events.
const MAX_PENDING: usize = 10_000;
/// The maximum number of connections read ahead to see whether a message is affordable.
const MAX_READ_AHEAD: usize = 10_000;

type BoxError = Box<dyn Error + Send + Sync>;
type Message = dyn Fn(&[PresenceEvent]) -> Option<Result<Payload, PushError>> + Send + Sync;
type Queue = dyn Fn(Vec<PresenceEvent>) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send + Sync;

/// A principal joined a group with its first connection, or left it with its last.
///
/// In JSON: `{"kind": "joined", "namespace": …, "group": …, "principal": …, "version": …,
/// "connectionId": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PresenceEvent {
    /// Whether the principal joined or left.
    pub kind: Presence,
    /// The namespace of the group.
    pub namespace: Namespace,
    /// The group that the principal joined or left.
    pub group: Group,
    /// The principal that joined or left.
    pub principal: Principal,
    /// Orders the events of one principal in one group.
    ///
    /// If two events arrive out of order, the one with the higher version is current. It is roughly
    /// the time in milliseconds since 1970.
    pub version: u64,
    /// The connection that joined or left; it need not receive the message.
    #[serde(rename = "connectionId", default, skip_serializing_if = "Option::is_none")]
    connection_id: Option<ConnectionId>,
}

/// Whether a principal joined or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::exhaustive_enums, reason = "a principal either joins or leaves")]
pub enum Presence {
    /// The principal joined.
    Joined,
    /// The principal left.
    Left,
}

impl PresenceEvent {
    fn new(kind: Presence, connection: &Connection, principal: &Principal, group: &Group, version: u64) -> Self {
        Self {
            kind,
            namespace: connection.key().namespace().clone(),
            group: group.clone(),
            principal: principal.clone(),
            version,
            connection_id: Some(connection.id().clone()),
        }
    }

    /// Returns an event for each group that a principal joined with its first connection.
    pub(super) fn from_arrivals(arrivals: &Arrivals) -> Vec<Self> {
        let connection = &arrivals.connection;
        let Some(principal) = connection.principal() else { return Vec::new() };
        let first = arrivals.groups.iter().filter(|arrival| arrival.joined == Joined::First);
        first.map(|one| Self::new(Presence::Joined, connection, principal, &one.group, one.version)).collect()
    }

    /// Returns an event for each group that a principal left with its last connection.
    pub(super) fn from_departures(departures: &Departures) -> Vec<Self> {
        let connection = &departures.connection;
        let Some(principal) = connection.principal() else { return Vec::new() };
        let last = departures.groups.iter().filter(|departure| departure.left == Left::Last);
        last.map(|one| Self::new(Presence::Left, connection, principal, &one.group, one.version)).collect()
    }

    fn audience(&self) -> Audience {
        self.namespace.group(&self.group)
    }
}

/// How groups are notified, and the pending events.
#[derive(Clone, Default)]
pub(super) struct Announcer {
    message: Option<Arc<Message>>,
    queue: Option<Arc<Queue>>,
    pending: Arc<Mutex<VecDeque<PresenceEvent>>>,
}

/// Which events a call announces, and with how many pushes.
#[derive(Debug, Clone)]
pub(super) enum Budget {
    /// The events of the call, and all pending ones.
    All,
    /// The events of the call, and those pending for the same groups.
    Own,
    /// As many events as this number of pushes allows, and always those of this audience.
    ///
    /// The same number was just pushed to the audience.
    Pushes(usize, Audience),
}

impl Announcer {
    pub(super) fn with_message<T: Serialize>(
        mut self,
        message: impl Fn(&[PresenceEvent]) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.message = Some(Arc::new(move |events| Some(Payload::json(&message(events)?))));
        self
    }

    pub(super) fn with_queue<F, Fut>(mut self, queue: F) -> Self
    where
        F: Fn(Vec<PresenceEvent>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.queue = Some(Arc::new(move |events| Box::pin(queue(events))));
        self
    }

    /// Keeps events for the next message to their group.
    fn postpone(&self, events: impl IntoIterator<Item = PresenceEvent>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped: usize = 0;
        for event in events {
            if pending.len() >= MAX_PENDING {
                pending.pop_front();
                dropped = dropped.saturating_add(1);
            }
            pending.push_back(event);
        }
        if dropped > 0 {
            tracing::warn!(dropped, "too many presence events are queued: the oldest are dropped");
        }
    }

    /// Takes the pending events for these audiences.
    fn take_pending(&self, is_wanted: impl Fn(&Audience) -> bool) -> Vec<PresenceEvent> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.is_empty() {
            return Vec::new();
        }
        let (taken, rest) = std::mem::take(&mut *pending).into_iter().partition(|event| is_wanted(&event.audience()));
        *pending = rest;
        Vec::from(taken)
    }

    /// Returns a message of as many events as fit, and the number of those events.
    fn message(&self, events: &[PresenceEvent]) -> Option<(Result<Payload, PushError>, usize)> {
        let message = self.message.as_ref()?;
        let mut count = events.len().min(MAX_EVENTS);
        loop {
            let payload = message(events.get(..count)?)?;
            match payload {
                Err(PushError::TooLarge { .. }) if count > 1 => count = count.div_ceil(2),
                payload => return Some((payload, count)),
            }
        }
    }
}

impl Hub {
    /// Announces presence events to groups, with one message for each group.
    ///
    /// The consumer of the queue of [`announcing_through`](super::HubBuilder::announcing_through)
    /// calls this. Pending events of this hub are announced, too.
    pub async fn announce(&self, events: Vec<PresenceEvent>) {
        self.tell(events, Budget::All).await;
    }

    /// Passes events to the queue, if there is one; otherwise announces them within the budget.
    pub(super) async fn announce_or_queue(&self, events: Vec<PresenceEvent>, budget: Budget) {
        let Some(queue) = &self.parts.announcer.queue else { return self.tell(events, budget).await };
        if events.is_empty() {
            return;
        }
        if let Err(error) = queue(events).await {
            tracing::warn!(%error, "failed to queue presence events: their groups are not notified");
        }
    }

    async fn tell(&self, events: Vec<PresenceEvent>, budget: Budget) {
        if self.parts.announcer.message.is_none() {
            return;
        }
        let (mut left, own) = match &budget {
            Budget::All | Budget::Own => (usize::MAX, None),
            Budget::Pushes(pushes, audience) => (*pushes, Some(audience)),
        };
        let waiting = match &budget {
            Budget::All => self.parts.announcer.take_pending(|_| true),
            Budget::Own => {
                self.parts.announcer.take_pending(|audience| events.iter().any(|event| event.audience() == *audience))
            }
            Budget::Pushes(_, own) => self.parts.announcer.take_pending(|audience| audience == own),
        };
        let mut groups: BTreeMap<(Namespace, Group), Vec<PresenceEvent>> = BTreeMap::new();
        for event in waiting.into_iter().chain(events) {
            groups.entry((event.namespace.clone(), event.group.clone())).or_default().push(event);
        }
        // The group that was just sent to comes first, since its message is always affordable.
        let mut groups: Vec<Vec<PresenceEvent>> = groups.into_values().collect();
        groups.sort_by_key(|events| events.first().is_some_and(|event| Some(&event.audience()) != own));
        for mut events in groups {
            let Some(audience) = events.first().map(PresenceEvent::audience) else { continue };
            if let Some(own) = own {
                (left, events) = self.tell_group(&audience, events, left, *own == audience).await;
                self.parts.announcer.postpone(events);
                continue;
            }
            while !events.is_empty() {
                (left, events) = self.tell_group(&audience, events, left, true).await;
            }
        }
    }

    /// Announces to a group as many events as one message holds.
    ///
    /// It does nothing if that takes more pushes than are left.
    ///
    /// Returns the number of pushes left, and the events that were not announced.
    async fn tell_group(
        &self,
        audience: &Audience,
        events: Vec<PresenceEvent>,
        left: usize,
        is_affordable: bool,
    ) -> (usize, Vec<PresenceEvent>) {
        // The function may return no message for them.
        let Some((payload, count)) = self.parts.announcer.message(&events) else { return (left, Vec::new()) };
        let payload = match payload {
            Ok(payload) => payload,
            Err(error) => {
                tracing::warn!(%error, "failed to send a presence message");
                return (left, events.into_iter().skip(count).collect());
            }
        };
        let mut ids = events.iter().take(count).map(|event| event.connection_id.as_ref());
        let only = ids.next().flatten().filter(|first| ids.all(|other| other == Some(first)));
        let except = only.map(|id| ConnectionKey::new(audience.namespace().clone(), id.clone()));
        let sending = self.send_payload_to(audience, payload).excepting(except).without_pruning();
        let sending = match is_affordable {
            true => sending,
            false => match self.read_ahead(audience, left).await {
                Some(members) => sending.to(members),
                None => return (left, events),
            },
        };
        // A payload that was serialized before can be sent.
        let Ok((sent, _)) = sending.deliver().await else { return (left, Vec::new()) };
        if !sent.is_success() {
            tracing::warn!(%sent, "a presence message was not delivered to every connection of its group");
        }
        (left.saturating_sub(sent.report.ids()), events.into_iter().skip(count).collect())
    }

    /// Returns the connections of an audience.
    ///
    /// Returns `None` if there are more than `most`, or reading fails.
    async fn read_ahead(&self, audience: &Audience, most: usize) -> Option<Vec<Connection>> {
        let most = most.min(MAX_READ_AHEAD);
        let mut members = Vec::new();
        let mut pages = self.parts.registry.connections(audience, ReadOptions::default());
        while let Some(page) = pages.next().await {
            members.extend(page.ok()?);
            if members.len() > most {
                return None;
            }
        }
        Some(members)
    }
}

/// Returns connections that were read ahead, in pages.
pub(super) fn pages(members: Vec<Connection>) -> crate::registry::Pages<'static, Connection> {
    Box::pin(stream::iter((!members.is_empty()).then_some(Ok(members))))
}
