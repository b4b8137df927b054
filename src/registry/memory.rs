//! The registry of one process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream;

use super::{
    Audience, Connection, ConnectionKey, Consistency, Departure, Group, Joined, Left, Namespace, Pages, Principal,
    ReadOptions, Registry, RegistryError, Removed, Who,
};
use crate::clock::Clock;
use crate::event::ConnectionId;

/// For so long a connection that was removed does not come back.
pub(super) const GRAVE: Duration = Duration::from_secs(15 * 60);

/// Keeps connections in this process: for tests, and for a gateway that runs on one machine.
///
/// Clones share what they keep. Everything is visible at once.
///
/// # Examples
///
/// ```
/// use lambda_websocket::registry::{Connection, Group, Joined, Memory, Registry};
///
/// # async fn show(connection: Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Memory::new();
/// registry.insert(&connection).await?;
/// assert_eq!(registry.join(connection.key(), &Group::new("lobby")?).await?, Joined::First);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// A registry without connections.
    pub fn new() -> Self {
        Self { state: Arc::default(), clock: Clock::default() }
    }

    /// A registry in which this clock decides what has expired, for tests.
    pub fn with_clock(clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { state: Arc::default(), clock: Clock::new(clock) }
    }

    /// The state as of now.
    fn state(&self) -> MutexGuard<'_, State> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire(now);
        state
    }

    /// Pages of what comes after a cursor; `read` returns a page and the cursor at its end, or nothing at the end.
    fn pages<'a, T: Send + 'a, C: Send + 'a>(
        &'a self,
        mut read: impl FnMut(&State, Option<&C>) -> (Vec<T>, Option<C>) + Send + 'a,
    ) -> Pages<'a, T> {
        // Outer: whether there is more; inner: after what.
        let pages = stream::unfold(Some(None::<C>), move |cursor| {
            let mut cursor = cursor;
            let mut result = None;
            while let Some(after) = cursor {
                let (page, last) = read(&self.state(), after.as_ref());
                cursor = last.map(Some);
                if !page.is_empty() {
                    result = Some(Ok(page));
                    break;
                }
            }
            std::future::ready(result.map(|page| (page, cursor)))
        });
        Box::pin(pages)
    }
}

#[derive(Default)]
struct State {
    connections: BTreeMap<Namespace, BTreeMap<ConnectionId, Entry>>,
    rooms: BTreeMap<(Namespace, Group), Room>,
    principals: BTreeMap<(Namespace, Principal), BTreeSet<ConnectionId>>,
    /// What was removed, which stays so for a while.
    graves: BTreeSet<ConnectionKey>,
    /// When each of both expires.
    expiries: BTreeSet<(SystemTime, ConnectionKey)>,
}

struct Entry {
    connection: Connection,
    seen_at: SystemTime,
    groups: BTreeSet<Group>,
}

#[derive(Default)]
struct Room {
    members: BTreeSet<ConnectionId>,
    /// How many connections each of them has here.
    principals: BTreeMap<Principal, usize>,
}

impl State {
    fn expire(&mut self, now: SystemTime) {
        while self.expiries.first().is_some_and(|(expires_at, _)| *expires_at <= now) {
            if let Some((_, key)) = self.expiries.pop_first()
                && !self.graves.remove(&key)
            {
                self.take_out(&key);
            }
        }
    }

    fn get(&self, key: &ConnectionKey) -> Option<&Entry> {
        self.connections.get(key.namespace())?.get(key.id())
    }

    fn get_mut(&mut self, key: &ConnectionKey) -> Option<&mut Entry> {
        self.connections.get_mut(key.namespace())?.get_mut(key.id())
    }

    /// Takes a connection out of everything but the expiries.
    fn take_out(&mut self, key: &ConnectionKey) -> Option<Removed> {
        let neighbours = self.connections.get_mut(key.namespace())?;
        let entry = neighbours.remove(key.id())?;
        if neighbours.is_empty() {
            self.connections.remove(key.namespace());
        }
        let groups = entry.groups.iter();
        let groups = groups.map(|group| Departure::new(group.clone(), self.vacate(&entry.connection, group))).collect();
        if let Some(principal) = entry.connection.principal() {
            let of_principal = (key.namespace().clone(), principal.clone());
            if let Some(ids) = self.principals.get_mut(&of_principal) {
                ids.remove(key.id());
                if ids.is_empty() {
                    self.principals.remove(&of_principal);
                }
            }
        }
        Some(Removed::new(entry.connection, groups))
    }

    /// Takes a connection out of a room.
    fn vacate(&mut self, connection: &Connection, group: &Group) -> Left {
        let name = (connection.key().namespace().clone(), group.clone());
        let Some(room) = self.rooms.get_mut(&name) else { return Left::NotMember };
        if !room.members.remove(connection.id()) {
            return Left::NotMember;
        }
        let mut left = Left::Last;
        if let Some(principal) = connection.principal()
            && let Some(count) = room.principals.get_mut(principal)
        {
            *count = count.saturating_sub(1);
            match *count {
                0 => drop(room.principals.remove(principal)),
                _ => left = Left::Another,
            }
        }
        if room.members.is_empty() {
            self.rooms.remove(&name);
        }
        left
    }

    fn leave(&mut self, key: &ConnectionKey, group: &Group) -> Left {
        let Some(entry) = self.get_mut(key) else { return Left::NotMember };
        entry.groups.remove(group);
        let connection = entry.connection.clone();
        self.vacate(&connection, group)
    }

    /// The connections with these ids, and the last of the ids when there may be more.
    fn page<'a>(
        &self,
        namespace: &Namespace,
        ids: impl Iterator<Item = &'a ConnectionId>,
        size: usize,
    ) -> (Vec<Connection>, Option<ConnectionId>) {
        let ids: Vec<ConnectionId> = ids.take(size).cloned().collect();
        let entries = self.connections.get(namespace);
        let found = ids.iter().filter_map(|id| entries?.get(id));
        let page = found.map(|entry| entry.connection.clone()).collect();
        (page, if ids.len() < size { None } else { ids.into_iter().next_back() })
    }

    /// The entries of a namespace, after an id.
    fn entries(&self, namespace: &Namespace, after: Option<&ConnectionId>) -> impl Iterator<Item = &Entry> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let entries = self.connections.get(namespace);
        entries.into_iter().flat_map(move |entries| entries.range::<ConnectionId, _>(range)).map(|(_, entry)| entry)
    }
}

fn after<'a, T: Ord>(set: &'a BTreeSet<T>, cursor: Option<&T>) -> impl Iterator<Item = &'a T> {
    set.range((cursor.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
}

#[async_trait]
impl Registry for Memory {
    async fn insert(&self, connection: &Connection) -> Result<bool, RegistryError> {
        let key = connection.key();
        let mut state = self.state();
        if state.graves.contains(key) {
            return Ok(false);
        }
        if state.get(key).is_some() || connection.expires_at() <= self.clock.now() {
            return Ok(true);
        }
        if let Some(principal) = connection.principal() {
            let of_principal = (key.namespace().clone(), principal.clone());
            state.principals.entry(of_principal).or_default().insert(key.id().clone());
        }
        state.expiries.insert((connection.expires_at(), key.clone()));
        let entry =
            Entry { connection: connection.clone(), seen_at: connection.connected_at(), groups: BTreeSet::new() };
        state.connections.entry(key.namespace().clone()).or_default().insert(key.id().clone(), entry);
        Ok(true)
    }

    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Removed>, RegistryError> {
        let now = self.clock.now();
        let mut state = self.state();
        let removed = state.take_out(key);
        if let Some(removed) = &removed {
            state.expiries.remove(&(removed.connection.expires_at(), key.clone()));
        }
        if state.graves.insert(key.clone()) {
            state.expiries.insert((now.checked_add(GRAVE).unwrap_or(now), key.clone()));
        }
        Ok(removed)
    }

    async fn find(&self, key: &ConnectionKey, _: Consistency) -> Result<Option<Connection>, RegistryError> {
        Ok(self.state().get(key).map(|entry| entry.connection.clone()))
    }

    async fn touch(&self, key: &ConnectionKey, seen_at: SystemTime) -> Result<bool, RegistryError> {
        let mut state = self.state();
        let Some(entry) = state.get_mut(key) else { return Ok(false) };
        entry.seen_at = entry.seen_at.max(seen_at);
        Ok(true)
    }

    async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        let mut state = self.state();
        let Some(entry) = state.get_mut(key) else { return Ok(Joined::NotConnected) };
        if !entry.groups.insert(group.clone()) {
            return Ok(Joined::Already);
        }
        let principal = entry.connection.principal().cloned();
        let room = state.rooms.entry((key.namespace().clone(), group.clone())).or_default();
        room.members.insert(key.id().clone());
        let Some(principal) = principal else { return Ok(Joined::First) };
        let count = room.principals.entry(principal).or_default();
        *count = count.saturating_add(1);
        Ok(if *count == 1 { Joined::First } else { Joined::Another })
    }

    async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        Ok(self.state().leave(key, group))
    }

    async fn leave_all(&self, key: &ConnectionKey) -> Result<Vec<Departure>, RegistryError> {
        let mut state = self.state();
        let groups = state.get(key).map(|entry| entry.groups.clone()).unwrap_or_default();
        Ok(groups
            .into_iter()
            .map(|group| {
                let left = state.leave(key, &group);
                Departure::new(group, left)
            })
            .collect())
    }

    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
        let state = self.state();
        Ok(state.get(key).map(|entry| entry.groups.iter().cloned().collect()).unwrap_or_default())
    }

    async fn disband(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError> {
        let mut state = self.state();
        let Some(room) = state.rooms.remove(&(namespace.clone(), group.clone())) else { return Ok(0) };
        for id in &room.members {
            if let Some(entry) = state.get_mut(&ConnectionKey::new(namespace.clone(), id.clone())) {
                entry.groups.remove(group);
            }
        }
        Ok(room.members.len())
    }

    fn connections(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection> {
        let (audience, size) = (audience.clone(), options.page_size.max(1));
        self.pages(move |state, cursor: Option<&ConnectionId>| {
            let namespace = audience.namespace();
            let none = BTreeSet::new();
            match audience.who() {
                Who::Everyone => {
                    let ids = state.entries(namespace, cursor).map(|entry| entry.connection.id());
                    state.page(namespace, ids, size)
                }
                Who::Group(group) => {
                    let room = state.rooms.get(&(namespace.clone(), group.clone()));
                    state.page(namespace, after(room.map_or(&none, |room| &room.members), cursor), size)
                }
                Who::Principal(principal) => {
                    let ids = state.principals.get(&(namespace.clone(), principal.clone()));
                    state.page(namespace, after(ids.unwrap_or(&none), cursor), size)
                }
            }
        })
    }

    fn principals(&self, namespace: &Namespace, group: &Group, options: ReadOptions) -> Pages<'_, Principal> {
        let (name, size) = ((namespace.clone(), group.clone()), options.page_size.max(1));
        self.pages(move |state, cursor: Option<&Principal>| {
            let Some(room) = state.rooms.get(&name) else { return (Vec::new(), None) };
            let start = cursor.map_or(Bound::Unbounded, Bound::Excluded);
            let page: Vec<Principal> =
                room.principals.range((start, Bound::Unbounded)).map(|(name, _)| name.clone()).take(size).collect();
            let last = if page.len() < size { None } else { page.last().cloned() };
            (page, last)
        })
    }

    fn unseen_since(&self, namespace: &Namespace, time: SystemTime, options: ReadOptions) -> Pages<'_, Connection> {
        let (namespace, size) = (namespace.clone(), options.page_size.max(1));
        self.pages(move |state, cursor: Option<&ConnectionId>| {
            let read: Vec<&Entry> = state.entries(&namespace, cursor).take(size).collect();
            let last = if read.len() < size { None } else { read.last().map(|entry| entry.connection.id().clone()) };
            let unseen = read.into_iter().filter(|entry| entry.seen_at < time);
            (unseen.map(|entry| entry.connection.clone()).collect(), last)
        })
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("namespaces", &self.state().connections.len()).finish_non_exhaustive()
    }
}
