//! Checks that every implementation of [`Registry`] must pass, including your own.
//!
//! # Examples
//!
//! ```
//! use lambda_websocket::registry::InMemory;
//! use lambda_websocket::registry::conformance::{self, Clock};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let clock = Clock::new();
//! let registry = InMemory::with_clock({
//!     let clock = clock.clone();
//!     move || clock.now()
//! });
//! conformance::run(&registry, &clock, 500).await;
//! # }
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic fails the check"
)]

mod groups;
mod lifetime;
mod lists;
mod races;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt as _};

use super::{
    Audience, Connection, ConnectionKey, Departure, Group, Inserted, Joined, Left, Namespace, Pages, Principal,
    ReadOptions, Registry,
};
use crate::event::{ApiId, ConnectionId, Stage};

/// A clock that stands still until it is advanced. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Mutex<SystemTime>>);

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Creates a clock that shows the current time, to the second.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self(Arc::new(Mutex::new(UNIX_EPOCH + Duration::from_secs(now))))
    }

    /// Returns the time that the clock shows.
    pub fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Advances the clock by this time.
    pub fn advance(&self, time: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.checked_add(time).unwrap_or(*now);
    }
}

type Check = for<'a> fn(&'a World<'a>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The checks that [`run`] performs, with their names.
const CHECKS: [(&str, Check); 29] = [
    ("inserted_connection_is_found", |world| Box::pin(lifetime::inserted_connection_is_found(world))),
    ("repeated_insert_changes_nothing", |world| Box::pin(lifetime::repeated_insert_changes_nothing(world))),
    ("unknown_connection_is_no_error", |world| Box::pin(lifetime::unknown_connection_is_no_error(world))),
    ("removed_connection_is_absent", |world| Box::pin(lifetime::removed_connection_is_absent(world))),
    ("tombstone_prevents_reinsertion", |world| Box::pin(lifetime::tombstone_prevents_reinsertion(world))),
    ("namespaces_are_isolated", |world| Box::pin(lifetime::namespaces_are_isolated(world))),
    ("expired_connection_is_absent", |world| Box::pin(lifetime::expired_connection_is_absent(world))),
    ("presence_heals_when_connections_expire", |world| {
        Box::pin(lifetime::presence_heals_when_connections_expire(world))
    }),
    ("groups_are_joined_at_connect", |world| Box::pin(lifetime::groups_are_joined_at_connect(world))),
    ("data_changes_in_every_list", |world| Box::pin(lifetime::data_changes_in_every_list(world))),
    ("slices_cover_everyone", |world| Box::pin(lifetime::slices_cover_everyone(world))),
    ("data_of_any_size_is_returned", |world| Box::pin(lifetime::data_of_any_size_is_returned(world))),
    ("first_join_and_last_leave_are_reported", |world| Box::pin(groups::first_join_and_last_leave_are_reported(world))),
    ("anonymous_connections_are_each_first", |world| Box::pin(groups::anonymous_connections_are_each_first(world))),
    ("principals_are_counted_once", |world| Box::pin(groups::principals_are_counted_once(world))),
    ("similar_names_do_not_collide", |world| Box::pin(groups::similar_names_do_not_collide(world))),
    ("leave_all_leaves_many_groups", |world| Box::pin(groups::leave_all_leaves_many_groups(world))),
    ("several_groups_are_joined_and_left_together", |world| {
        Box::pin(groups::several_groups_are_joined_and_left_together(world))
    }),
    ("versions_order_the_presence_of_a_principal", |world| {
        Box::pin(groups::versions_order_the_presence_of_a_principal(world))
    }),
    ("a_group_is_disbanded", |world| Box::pin(groups::a_group_is_disbanded(world))),
    ("pages_have_any_size", |world| Box::pin(lists::pages_have_any_size(world))),
    ("unchanged_connections_are_listed_once", |world| Box::pin(lists::unchanged_connections_are_listed_once(world))),
    ("concurrent_joins_are_kept", |world| Box::pin(races::concurrent_joins_are_kept(world))),
    ("one_concurrent_join_is_first", |world| Box::pin(races::one_concurrent_join_is_first(world))),
    ("one_concurrent_remove_wins", |world| Box::pin(races::one_concurrent_remove_wins(world))),
    ("no_entry_is_orphaned", |world| Box::pin(races::no_entry_is_orphaned(world))),
    ("removal_wins_over_join", |world| Box::pin(races::removal_wins_over_join(world))),
    ("disbanding_and_joining_agree", |world| Box::pin(races::disbanding_and_joining_agree(world))),
    ("many_connections", |world| Box::pin(lists::many_connections(world))),
];

/// Checks a registry that uses this clock, in namespaces that only the checks use.
///
/// One check registers `many` connections.
///
/// # Panics
///
/// If a check fails. Its name has been printed before.
pub async fn run(registry: &dyn Registry, clock: &Clock, many: usize) {
    for (name, check) in CHECKS {
        println!("conformance: {name}");
        check(&World::new(registry, clock, many)).await;
    }
}

/// The namespace of one check.
struct World<'a> {
    registry: &'a dyn Registry,
    clock: &'a Clock,
    many: usize,
    namespace: Namespace,
}

impl<'a> World<'a> {
    fn new(registry: &'a dyn Registry, clock: &'a Clock, many: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let namespace = Namespace::new(format!("conformance/{started}.{number}")).unwrap();
        Self { registry, clock, many, namespace }
    }

    fn key(&self, id: &str) -> ConnectionKey {
        ConnectionKey::new(self.namespace.clone(), ConnectionId::new(id).unwrap())
    }

    /// Returns a connection without a principal.
    fn anonymous(&self, id: &str) -> Connection {
        let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
        Connection::new(self.key(id), api_id, stage, "ws.example.com", self.clock.now())
    }

    fn connection(&self, id: &str, principal: &str) -> Connection {
        self.anonymous(id).with_principal(Principal::new(principal).unwrap())
    }

    /// Registers a connection.
    async fn connect(&self, id: &str, principal: &str) -> ConnectionKey {
        let connection = self.connection(id, principal);
        let inserted = self.registry.insert(&connection).await.unwrap();
        assert_eq!(inserted, Inserted::New { groups: Vec::new() }, "{id} is newly registered");
        connection.key().clone()
    }

    /// Registers connections, each with its own principal, and adds them to a group.
    async fn connect_many(&self, count: usize, group: &Group) -> Vec<ConnectionKey> {
        let joined = stream::iter(0..count).map(|number| async move {
            let key = self.connect(&format!("many-{number}"), &format!("principal-{number}")).await;
            assert_eq!(self.registry.join(&key, group).await.unwrap(), Joined::First);
            key
        });
        joined.buffer_unordered(32).collect().await
    }

    fn group(&self, group: &Group) -> Audience {
        self.namespace.group(group)
    }

    /// The ids of the connections of an audience; panics if one is listed twice.
    async fn ids(&self, audience: &Audience) -> BTreeSet<String> {
        let connections = all(self.registry.connections(audience, ReadOptions::default().consistent())).await;
        once(connections.iter().map(|connection| connection.id().to_string()))
    }

    async fn principals(&self, group: &Group) -> BTreeSet<String> {
        let options = ReadOptions::default().consistent();
        let principals = all(self.registry.principals(&self.namespace, group, options)).await;
        once(principals.iter().map(ToString::to_string))
    }
}

/// Departures without their versions.
fn left(departures: &[Departure]) -> Vec<(Group, Left)> {
    departures.iter().map(|departure| (departure.group.clone(), departure.left)).collect()
}

fn group(name: &str) -> Group {
    Group::new(name).unwrap()
}

/// All entries of a list.
async fn all<T>(mut pages: Pages<'_, T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert!(!page.is_empty(), "a page is empty");
        all.extend(page);
    }
    all
}

/// Collects the strings; panics if one occurs twice.
fn once(texts: impl Iterator<Item = String>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for text in texts {
        assert!(seen.insert(text.clone()), "{text} is listed twice");
    }
    seen
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(ToString::to_string).collect()
}
