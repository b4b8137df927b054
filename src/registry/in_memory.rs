//! A registry within one process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream;

use super::connection::milliseconds;
use super::name::unique;
use super::{
    Arrival, Arrivals, Audience, AudienceKind, Connection, ConnectionData, ConnectionKey, Consistency, Departure,
    Departures, Group, Inserted, Joined, Left, Namespace, Pages, Principal, ReadOptions, Registry, RegistryError,
    Slice,
};
use crate::clock::Clock;
use crate::event::ConnectionId;

/// How long a removed connection cannot be inserted again.
pub(super) const TOMBSTONE: Duration = Duration::from_secs(15 * 60);

/// Keeps connections in this process, for tests and for a gateway on one machine.
///
/// Clones share their connections. Every change is visible immediately.
///
/// # Examples
///
/// ```
/// use lambda_websocket::registry::{Connection, Group, Joined, InMemory, Registry};
///
/// # async fn show(connection: Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let registry = InMemory::new();
/// assert!(registry.insert(&connection).await?.is_registered());
/// assert_eq!(registry.join(connection.key(), &Group::new("lobby")?).await?, Joined::First);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct InMemory {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl Default for InMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl InMemory {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self { state: Arc::default(), clock: Clock::default() }
    }

    /// Creates an empty registry that uses this clock for expiry, for tests.
    pub fn with_clock(clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { state: Arc::default(), clock: Clock::new(clock) }
    }

    /// Locks the state, after removing what has expired.
    fn state(&self) -> MutexGuard<'_, State> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire(now);
        state
    }

    /// Returns pages by cursor.
    ///
    /// `read` returns the page after a cursor, and the next cursor if there may be more.
    fn pages<'a, T: Send + 'a, C: Send + 'a>(
        &'a self,
        mut read: impl FnMut(&State, Option<&C>) -> (Vec<T>, Option<C>) + Send + 'a,
    ) -> Pages<'a, T> {
        // The outer option tells whether there is more; the inner one is the cursor.
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
    /// Removed connections, which cannot be inserted again for a while.
    tombstones: BTreeSet<ConnectionKey>,
    /// When connections and tombstones expire.
    expiries: BTreeSet<(SystemTime, ConnectionKey)>,
    /// The version of the latest presence change.
    version: u64,
}

struct Entry {
    connection: Connection,
    groups: BTreeSet<Group>,
}

#[derive(Default)]
struct Room {
    members: BTreeSet<ConnectionId>,
    /// How many connections each principal has in the room.
    principals: BTreeMap<Principal, usize>,
}

impl State {
    fn expire(&mut self, now: SystemTime) {
        self.version = self.version.max(milliseconds(now));
        while self.expiries.first().is_some_and(|(expires_at, _)| *expires_at <= now) {
            if let Some((_, key)) = self.expiries.pop_first()
                && !self.tombstones.remove(&key)
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

    /// Removes a connection from everything except `expiries`.
    fn take_out(&mut self, key: &ConnectionKey) -> Option<Departures> {
        let neighbours = self.connections.get_mut(key.namespace())?;
        let entry = neighbours.remove(key.id())?;
        if neighbours.is_empty() {
            self.connections.remove(key.namespace());
        }
        let groups = entry.groups.iter();
        let groups = groups.map(|group| self.vacate(&entry.connection, group)).collect();
        if let Some(principal) = entry.connection.principal() {
            let of_principal = (key.namespace().clone(), principal.clone());
            if let Some(ids) = self.principals.get_mut(&of_principal) {
                ids.remove(key.id());
                if ids.is_empty() {
                    self.principals.remove(&of_principal);
                }
            }
        }
        Some(Departures::new(entry.connection, groups))
    }

    /// Returns the version of a presence change now: at least the milliseconds since 1970.
    fn next_version(&mut self) -> u64 {
        self.version = self.version.saturating_add(1);
        self.version
    }

    /// Adds a connection to a room.
    fn occupy(&mut self, connection: &Connection, group: &Group) -> Arrival {
        let key = connection.key();
        let name = (key.namespace().clone(), group.clone());
        let is_new = self.get_mut(key).is_some_and(|entry| entry.groups.insert(group.clone()));
        if !is_new {
            return Arrival::new(group.clone(), Joined::Already, self.version);
        }
        let room = self.rooms.entry(name).or_default();
        room.members.insert(key.id().clone());
        let mut joined = Joined::First;
        if let Some(principal) = connection.principal() {
            let count = room.principals.entry(principal.clone()).or_default();
            *count = count.saturating_add(1);
            if *count > 1 {
                joined = Joined::Another;
            }
        }
        Arrival::new(group.clone(), joined, self.next_version())
    }

    /// Removes a connection from a room.
    fn vacate(&mut self, connection: &Connection, group: &Group) -> Departure {
        let name = (connection.key().namespace().clone(), group.clone());
        let not_member = Departure::new(group.clone(), Left::NotMember, self.version);
        let Some(room) = self.rooms.get_mut(&name) else { return not_member };
        if !room.members.remove(connection.id()) {
            return not_member;
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
        Departure::new(group.clone(), left, self.next_version())
    }

    /// Returns the connections with these ids, and the last id if there may be more.
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

    /// Returns the entries of a namespace after an id.
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
impl Registry for InMemory {
    async fn insert_into(&self, connection: &Connection, groups: &[Group]) -> Result<Inserted, RegistryError> {
        let groups = unique(groups)?;
        let key = connection.key();
        let mut state = self.state();
        if state.tombstones.contains(key) || connection.expires_at() <= self.clock.now() {
            return Ok(Inserted::Removed);
        }
        if state.get(key).is_some() {
            return Ok(Inserted::Already);
        }
        if let Some(principal) = connection.principal() {
            let of_principal = (key.namespace().clone(), principal.clone());
            state.principals.entry(of_principal).or_default().insert(key.id().clone());
        }
        state.expiries.insert((connection.expires_at(), key.clone()));
        let entry = Entry { connection: connection.clone(), groups: BTreeSet::new() };
        state.connections.entry(key.namespace().clone()).or_default().insert(key.id().clone(), entry);
        Ok(Inserted::New { groups: groups.iter().map(|group| state.occupy(connection, group)).collect() })
    }

    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        let now = self.clock.now();
        let mut state = self.state();
        let removed = state.take_out(key);
        if let Some(removed) = &removed {
            state.expiries.remove(&(removed.connection.expires_at(), key.clone()));
        }
        if state.tombstones.insert(key.clone()) {
            state.expiries.insert((now.checked_add(TOMBSTONE).unwrap_or(now), key.clone()));
        }
        Ok(removed)
    }

    async fn find(&self, key: &ConnectionKey, _: Consistency) -> Result<Option<Connection>, RegistryError> {
        Ok(self.state().get(key).map(|entry| entry.connection.clone()))
    }

    async fn join_all(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Arrivals>, RegistryError> {
        let groups = unique(groups)?;
        let mut state = self.state();
        let Some(connection) = state.get(key).map(|entry| entry.connection.clone()) else { return Ok(None) };
        let arrivals = groups.iter().map(|group| state.occupy(&connection, group)).collect();
        Ok(Some(Arrivals::new(connection, arrivals)))
    }

    async fn leave_groups(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Departures>, RegistryError> {
        let groups = unique(groups)?;
        let mut state = self.state();
        let Some(entry) = state.get_mut(key) else { return Ok(None) };
        for group in &groups {
            entry.groups.remove(group);
        }
        let connection = entry.connection.clone();
        let departures = groups.iter().map(|group| state.vacate(&connection, group)).collect();
        Ok(Some(Departures::new(connection, departures)))
    }

    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
        let state = self.state();
        Ok(state.get(key).map(|entry| entry.groups.iter().cloned().collect()).unwrap_or_default())
    }

    async fn set_data(
        &self,
        key: &ConnectionKey,
        data: Option<&ConnectionData>,
    ) -> Result<Option<Connection>, RegistryError> {
        let mut state = self.state();
        let Some(entry) = state.get_mut(key) else { return Ok(None) };
        if entry.groups.len() > Group::MAX_AT_ONCE {
            return Err(RegistryError::TooManyGroups { count: entry.groups.len() });
        }
        entry.connection = entry.connection.clone().replacing_data(data.cloned());
        Ok(Some(entry.connection.clone()))
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
                AudienceKind::Everyone => {
                    let ids = state.entries(namespace, cursor).map(|entry| entry.connection.id());
                    state.page(namespace, ids, size)
                }
                AudienceKind::Group(group) => {
                    let room = state.rooms.get(&(namespace.clone(), group.clone()));
                    state.page(namespace, after(room.map_or(&none, |room| &room.members), cursor), size)
                }
                AudienceKind::Principal(principal) => {
                    let ids = state.principals.get(&(namespace.clone(), principal.clone()));
                    state.page(namespace, after(ids.unwrap_or(&none), cursor), size)
                }
            }
        })
    }

    fn slice(&self, namespace: &Namespace, slice: Slice, options: ReadOptions) -> Pages<'_, Connection> {
        let (namespace, size) = (namespace.clone(), options.page_size.max(1));
        self.pages(move |state, cursor: Option<&ConnectionId>| {
            let of_slice = state.entries(&namespace, cursor).filter(|entry| slice.contains(&entry.connection));
            let page: Vec<Connection> = of_slice.take(size).map(|entry| entry.connection.clone()).collect();
            let last = if page.len() < size { None } else { page.last().map(|connection| connection.id().clone()) };
            (page, last)
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
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("namespaces", &self.state().connections.len()).finish_non_exhaustive()
    }
}
