//! Which connections exist, of whom they are, and which groups they have joined.
//!
//! `$connect` [inserts](Registry::insert), `$disconnect` [removes](Registry::remove), and since API Gateway does not promise
//! that `$disconnect` is called, every record also expires. [`Memory`] is the registry of one process, `DynamoDb` (feature
//! `dynamodb`) that of many functions. [`Hub`](crate::hub::Hub) (feature `hub`) joins a registry with a
//! [`Pusher`](crate::Pusher).

#[cfg(feature = "conformance")]
pub mod conformance;
mod connection;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod error;
mod memory;
mod name;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::Stream;

pub use self::connection::{Connection, ConnectionKey, InvalidData, LARGEST_DATA};
#[cfg(feature = "dynamodb")]
pub use self::dynamodb::DynamoDb;
pub use self::error::RegistryError;
pub use self::memory::Memory;
pub use self::name::{Audience, Group, Namespace, Principal, Who};

/// A list in pages, each of at least one entry, never all at once.
///
/// After an error the list has ended.
pub type Pages<'a, T> = Pin<Box<dyn Stream<Item = Result<Vec<T>, RegistryError>> + Send + 'a>>;

/// Knows which connections exist.
///
/// Every change is complete or has not happened: a connection that is not registered is in no group, whatever happens to
/// whoever writes. What has expired is as if it were not there.
///
/// The module `conformance` (feature of that name) holds an implementation of yours to this.
#[async_trait]
pub trait Registry: fmt::Debug + Send + Sync {
    /// Registers a connection; `false` when it has been removed before.
    ///
    /// The second time nothing changes. One that was removed does not come back for fifteen minutes, so that a `$connect`
    /// that is repeated or overtaken by its `$disconnect` leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning.
    async fn insert(&self, connection: &Connection) -> Result<bool, RegistryError>;

    /// Removes a connection from its groups and from the registry.
    ///
    /// Of several calls at once, one gets the [`Removed`]. `None` when there was nothing to remove.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning.
    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Removed>, RegistryError>;

    /// The connection, if it is registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning.
    async fn find(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Connection>, RegistryError>;

    /// Notes that the connection was alive at this time; `false` when it is not registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning.
    async fn touch(&self, key: &ConnectionKey, seen_at: SystemTime) -> Result<bool, RegistryError>;

    /// Lets a connection join a group.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning.
    async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError>;

    /// Lets a connection leave a group.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning.
    async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError>;

    /// Lets a connection leave all of its groups, and tells which.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning; some groups may have been left then.
    async fn leave_all(&self, key: &ConnectionKey) -> Result<Vec<Departure>, RegistryError>;

    /// The groups that a connection has joined, in order of their text.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning.
    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError>;

    /// Lets every connection leave a group, in bounded memory, and tells how many did.
    ///
    /// A large group takes its time; who joins meanwhile may stay.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] by meaning; some connections may have left then.
    async fn disband(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError>;

    /// The connections of an audience.
    ///
    /// What joins or leaves meanwhile may be in it or not; nothing is in it twice.
    fn connections(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection>;

    /// The principals of a group, each once however many connections it has there.
    fn principals(&self, namespace: &Namespace, group: &Group, options: ReadOptions) -> Pages<'_, Principal>;

    /// Connections that were opened, and last [touched](Self::touch), before this time.
    fn unseen_since(&self, namespace: &Namespace, time: SystemTime, options: ReadOptions) -> Pages<'_, Connection>;
}

/// What must be visible to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// What was written a little earlier may not be visible yet.
    #[default]
    Eventual,
    /// Everything that was written before is visible.
    Strong,
}

/// How a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// How many entries a page has at most; 500 unless set, and at least 1.
    pub page_size: usize,
    /// What must be visible; [`Consistency::Eventual`] unless set.
    pub consistency: Consistency,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { page_size: 500, consistency: Consistency::Eventual }
    }
}

impl ReadOptions {
    /// Reads pages of at most this many entries.
    #[must_use]
    pub fn with_page_size(mut self, entries: usize) -> Self {
        self.page_size = entries.max(1);
        self
    }

    /// Reads everything that was written before.
    #[must_use]
    pub fn consistent(mut self) -> Self {
        self.consistency = Consistency::Strong;
        self
    }
}

/// What joining a group came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The connection is now in the group, the first of its principal. One without a principal is always the first.
    First,
    /// The connection is now in the group, where its principal has others.
    Another,
    /// The connection was in the group before.
    Already,
    /// The connection is not registered: it was closed meanwhile, or never inserted.
    NotConnected,
}

/// What leaving a group came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The connection is no longer in the group, and was the last of its principal. One without a principal is always the
    /// last.
    Last,
    /// The connection is no longer in the group, where its principal has others.
    Another,
    /// The connection was not in the group.
    NotMember,
}

/// A group that a connection has left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departure {
    /// Which.
    pub group: Group,
    /// Whether the connection's principal is still there.
    pub left: Left,
}

impl Departure {
    /// A group that was left so.
    pub fn new(group: Group, left: Left) -> Self {
        Self { group, left }
    }
}

/// A connection that was registered until now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The connection.
    pub connection: Connection,
    /// The groups it was in, in order of their text.
    pub groups: Vec<Departure>,
}

impl Removed {
    /// A connection that was removed, and from these groups.
    pub fn new(connection: Connection, groups: Vec<Departure>) -> Self {
        Self { connection, groups }
    }
}

#[async_trait]
impl<R: Registry + ?Sized> Registry for Arc<R> {
    async fn insert(&self, connection: &Connection) -> Result<bool, RegistryError> {
        (**self).insert(connection).await
    }

    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Removed>, RegistryError> {
        (**self).remove(key).await
    }

    async fn find(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Connection>, RegistryError> {
        (**self).find(key, consistency).await
    }

    async fn touch(&self, key: &ConnectionKey, seen_at: SystemTime) -> Result<bool, RegistryError> {
        (**self).touch(key, seen_at).await
    }

    async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        (**self).join(key, group).await
    }

    async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        (**self).leave(key, group).await
    }

    async fn leave_all(&self, key: &ConnectionKey) -> Result<Vec<Departure>, RegistryError> {
        (**self).leave_all(key).await
    }

    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
        (**self).groups(key).await
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

    fn unseen_since(&self, namespace: &Namespace, time: SystemTime, options: ReadOptions) -> Pages<'_, Connection> {
        (**self).unseen_since(namespace, time, options)
    }
}
