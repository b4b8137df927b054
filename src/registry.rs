//! Tracks open connections, their principals, and their groups.
//!
//! `$connect` [inserts](Registry::insert) a connection, and `$disconnect`
//! [removes](Registry::remove) it. `$disconnect` is best-effort, so every record also expires.
//! [`InMemory`] is a registry within one process; `DynamoDb` (feature `dynamodb`) is shared by many
//! functions. [`Hub`](crate::hub::Hub) (feature `hub`) combines a registry with a
//! [`Pusher`](crate::Pusher).

#[cfg(feature = "conformance")]
pub mod conformance;
mod connection;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod error;
mod in_memory;
mod key;
mod name;
mod outcome;
mod slice;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt as _};

pub use self::connection::{Connection, ConnectionData, InvalidData, MAX_DATA_BYTES};
#[cfg(feature = "dynamodb")]
pub use self::dynamodb::DynamoDb;
pub use self::error::RegistryError;
pub use self::in_memory::InMemory;
pub use self::key::ConnectionKey;
pub use self::name::{Audience, AudienceKind, Group, Namespace, Principal};
pub use self::outcome::{Arrival, Arrivals, Departure, Departures, Inserted, Joined, Left};
pub use self::slice::Slice;

/// A stream of pages, each with at least one entry.
///
/// The stream ends after an error.
pub type Pages<'a, T> = Pin<Box<dyn Stream<Item = Result<Vec<T>, RegistryError>> + Send + 'a>>;

/// Stores the open connections, their data, and their groups.
///
/// Every change is atomic, with one exception: the next [`remove`](Self::remove) completes a
/// removal that was interrupted. Expired connections are treated as absent.
///
/// The presence of a principal in a group is derived from its connections there: the first to join
/// is [`Joined::First`], the last to leave [`Left::Last`], regardless of concurrent changes. A
/// connection that expires in a group no longer counts.
///
/// An implementation must provide the methods that have no default; later versions of this crate
/// add only methods that have one. The module `conformance` (feature `conformance`) checks an
/// implementation.
///
/// # Store failures
///
/// If the store fails, a method returns
///
/// - [`RegistryError::Throttled`], [`Contended`](RegistryError::Contended),
///   [`TimedOut`](RegistryError::TimedOut), or [`Unavailable`](RegistryError::Unavailable), which
///   are [retryable](RegistryError::is_retryable);
/// - [`RegistryError::Forbidden`], [`NoTable`](RegistryError::NoTable),
///   [`Unreadable`](RegistryError::Unreadable), or [`Refused`](RegistryError::Refused), which are
///   not.
#[async_trait]
pub trait Registry: fmt::Debug + Send + Sync {
    /// Registers a connection and adds it to groups, atomically.
    ///
    /// A removed connection cannot be inserted again for fifteen minutes, so a `$connect` that is
    /// retried, or overtaken by its `$disconnect`, leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooManyGroups`] for more than [`Group::MAX_AT_ONCE`] groups; other variants
    /// if [the store fails](Registry#store-failures).
    async fn insert_into(&self, connection: &Connection, groups: &[Group]) -> Result<Inserted, RegistryError>;

    /// Removes a connection from its groups and from the registry.
    ///
    /// Only one of several concurrent calls returns the departures. Returns `None` if there was
    /// nothing to remove. If a removal is interrupted, the connection is no longer registered but
    /// still listed in groups, like a stale one; a later call removes it from those groups and
    /// returns these departures.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures).
    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError>;

    /// Returns the connection, if it is registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures).
    async fn find(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Connection>, RegistryError>;

    /// Adds a connection to groups, atomically. Returns `None` if it is not registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooManyGroups`] for more than [`Group::MAX_AT_ONCE`] groups; other variants
    /// if [the store fails](Registry#store-failures).
    async fn join_all(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Arrivals>, RegistryError>;

    /// Removes a connection from groups, atomically. Returns `None` if it is not registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooManyGroups`] for more than [`Group::MAX_AT_ONCE`] groups; other variants
    /// if [the store fails](Registry#store-failures).
    async fn leave_groups(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Departures>, RegistryError>;

    /// Returns the groups that a connection has joined, sorted.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures).
    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError>;

    /// Replaces the data of a connection, including the copies in its groups.
    ///
    /// Returns `None` if the connection is not registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooManyGroups`] if the connection is in more than [`Group::MAX_AT_ONCE`]
    /// groups; other variants if [the store fails](Registry#store-failures).
    async fn set_data(
        &self,
        key: &ConnectionKey,
        data: Option<&ConnectionData>,
    ) -> Result<Option<Connection>, RegistryError>;

    /// Removes all connections from a group, and returns how many it removed.
    ///
    /// The call uses bounded memory, and takes a while for a large group. Connections that join
    /// meanwhile may stay.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures); some connections may have
    /// been removed by then.
    async fn disband(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError>;

    /// Lists the connections of an audience.
    ///
    /// Connections that join or leave meanwhile may or may not be listed; none is listed twice.
    fn connections(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection>;

    /// Lists the principals of a group, each once, even with several connections there.
    fn principals(&self, namespace: &Namespace, group: &Group, options: ReadOptions) -> Pages<'_, Principal>;

    /// Lists the connections of a namespace that belong to a slice.
    ///
    /// Default: reads all connections and skips the others.
    fn slice(&self, namespace: &Namespace, slice: Slice, options: ReadOptions) -> Pages<'_, Connection> {
        let pages = self.connections(&namespace.everyone(), options);
        Box::pin(pages.filter_map(move |page| {
            let page = page.map(|mut page| {
                page.retain(|connection| slice.contains(connection));
                page
            });
            std::future::ready(Some(page).filter(|page| page.as_ref().map_or(true, |page| !page.is_empty())))
        }))
    }

    /// Counts the connections of an audience.
    ///
    /// Default: reads all of them, page by page.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures).
    async fn count(&self, audience: &Audience, options: ReadOptions) -> Result<usize, RegistryError> {
        let mut pages = self.connections(audience, options);
        let mut count: usize = 0;
        while let Some(page) = pages.next().await {
            count = count.saturating_add(page?.len());
        }
        Ok(count)
    }

    /// Connects to the store and gets credentials ahead of the first call.
    ///
    /// Default: does nothing.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures).
    async fn warm_up(&self) -> Result<(), RegistryError> {
        Ok(())
    }

    /// Registers a connection. See [`insert_into`](Self::insert_into).
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures).
    async fn insert(&self, connection: &Connection) -> Result<Inserted, RegistryError> {
        self.insert_into(connection, &[]).await
    }

    /// Adds a connection to one group. See [`join_all`](Self::join_all).
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures).
    async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        let arrivals = self.join_all(key, std::slice::from_ref(group)).await?;
        Ok(arrivals
            .and_then(|arrivals| arrivals.groups.into_iter().next())
            .map_or(Joined::NotConnected, |one| one.joined))
    }

    /// Removes a connection from one group. See [`leave_groups`](Self::leave_groups).
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures).
    async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        let departures = self.leave_groups(key, std::slice::from_ref(group)).await?;
        Ok(departures.and_then(|left| left.groups.into_iter().next()).map_or(Left::NotMember, |one| one.left))
    }

    /// Removes a connection from all of its groups, and returns those groups.
    ///
    /// Returns `None` if the connection is not registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures); the connection may have
    /// left some groups by then.
    async fn leave_all(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        let groups = self.groups(key).await?;
        let mut all: Option<Departures> = None;
        // Without groups, this call tells whether the connection is registered.
        for groups in groups.chunks(Group::MAX_AT_ONCE).chain(groups.is_empty().then_some(&[][..])) {
            match (&mut all, self.leave_groups(key, groups).await?) {
                (Some(all), Some(more)) => all.groups.extend(more.groups),
                (None, more) => all = more,
                (Some(_), None) => break,
            }
        }
        Ok(all.map(|mut all| {
            all.groups.retain(|departure| departure.left != Left::NotMember);
            all
        }))
    }
}

/// Which writes a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// Recent writes may be missing. Costs half as much.
    #[default]
    Eventual,
    /// Sees every write that succeeded before.
    Strong,
}

/// Options for reading a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The maximum number of entries in a page. Default: 500; at least 1.
    pub page_size: usize,
    /// Which writes the read sees. Default: [`Consistency::Eventual`].
    pub consistency: Consistency,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { page_size: 500, consistency: Consistency::Eventual }
    }
}

impl ReadOptions {
    /// Sets the maximum number of entries in a page. Default: 500; at least 1.
    #[must_use]
    pub fn with_page_size(mut self, entries: usize) -> Self {
        self.page_size = entries.max(1);
        self
    }

    /// Sees every write that succeeded before: [`Consistency::Strong`].
    #[must_use]
    pub fn consistent(mut self) -> Self {
        self.consistency = Consistency::Strong;
        self
    }
}

/// Forwards every method, including those with a default.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<R: Registry + ?Sized> Registry for Arc<R> {
    async fn insert_into(&self, connection: &Connection, groups: &[Group]) -> Result<Inserted, RegistryError> {
        (**self).insert_into(connection, groups).await
    }

    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        (**self).remove(key).await
    }

    async fn find(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Connection>, RegistryError> {
        (**self).find(key, consistency).await
    }

    async fn join_all(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Arrivals>, RegistryError> {
        (**self).join_all(key, groups).await
    }

    async fn leave_groups(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Departures>, RegistryError> {
        (**self).leave_groups(key, groups).await
    }

    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
        (**self).groups(key).await
    }

    async fn set_data(
        &self,
        key: &ConnectionKey,
        data: Option<&ConnectionData>,
    ) -> Result<Option<Connection>, RegistryError> {
        (**self).set_data(key, data).await
    }

    async fn disband(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError> {
        (**self).disband(namespace, group).await
    }

    fn connections(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection> {
        (**self).connections(audience, options)
    }

    fn principals(&self, namespace: &Namespace, group: &Group, options: ReadOptions) -> Pages<'_, Principal> {
        (**self).principals(namespace, group, options)
    }

    fn slice(&self, namespace: &Namespace, slice: Slice, options: ReadOptions) -> Pages<'_, Connection> {
        (**self).slice(namespace, slice, options)
    }

    async fn count(&self, audience: &Audience, options: ReadOptions) -> Result<usize, RegistryError> {
        (**self).count(audience, options).await
    }

    async fn warm_up(&self) -> Result<(), RegistryError> {
        (**self).warm_up().await
    }

    async fn insert(&self, connection: &Connection) -> Result<Inserted, RegistryError> {
        (**self).insert(connection).await
    }

    async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        (**self).join(key, group).await
    }

    async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        (**self).leave(key, group).await
    }

    async fn leave_all(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        (**self).leave_all(key).await
    }
}
