//! The outcomes of changes.

use super::{Connection, Group};

/// The outcome of inserting a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a connection that was removed before is not registered"]
#[non_exhaustive]
pub enum Inserted {
    /// The connection is now registered and has joined these groups.
    New {
        /// The outcome for each group, once, in the order of the call.
        groups: Vec<Arrival>,
    },
    /// The connection was registered before. Nothing has changed.
    Already,
    /// The connection was removed in the last fifteen minutes, or has expired. It is not
    /// registered.
    Removed,
}

impl Inserted {
    /// Returns whether the connection is registered.
    pub fn is_registered(&self) -> bool {
        !matches!(self, Self::Removed)
    }
}

/// The outcome of joining one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a connection that is not registered joins nothing"]
#[non_exhaustive]
pub enum Joined {
    /// The connection joined the group as the first of its principal.
    ///
    /// A connection without a principal is always the first.
    First,
    /// The connection joined the group, where its principal has other connections.
    Another,
    /// The connection was already in the group.
    Already,
    /// The connection is not registered: it was closed meanwhile or never inserted.
    NotConnected,
}

impl Joined {
    /// Returns whether the connection is in the group.
    pub fn is_member(self) -> bool {
        !matches!(self, Self::NotConnected)
    }
}

/// The outcome of leaving one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// The connection left the group as the last of its principal.
    ///
    /// A connection without a principal is always the last.
    Last,
    /// The connection left the group, where its principal has other connections.
    Another,
    /// The connection was not in the group.
    NotMember,
}

/// The outcome for one group that a connection was to join.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// The group.
    pub group: Group,
    /// Whether the connection joined the group.
    pub joined: Joined,
    /// Orders the changes of one principal's presence in one group.
    ///
    /// A later change has a higher version, unless the principal joins again within the clock skew
    /// of two functions.
    pub version: u64,
}

impl Arrival {
    /// Creates the outcome for one group.
    pub fn new(group: Group, joined: Joined, version: u64) -> Self {
        Self { group, joined, version }
    }
}

/// The outcome for one group that a connection has left, or was to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departure {
    /// The group.
    pub group: Group,
    /// Whether the connection left the group.
    pub left: Left,
    /// Orders the changes of one principal's presence in one group.
    ///
    /// A later change has a higher version, unless the principal joins again within the clock skew
    /// of two functions.
    pub version: u64,
}

impl Departure {
    /// Creates the outcome for one group.
    pub fn new(group: Group, left: Left, version: u64) -> Self {
        Self { group, left, version }
    }
}

/// A connection, with the groups that it was to join.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Arrivals {
    /// The connection.
    pub connection: Connection,
    /// The outcome for each group, once, in the order of the call.
    pub groups: Vec<Arrival>,
}

impl Arrivals {
    /// Creates the outcome of joining groups.
    pub fn new(connection: Connection, groups: Vec<Arrival>) -> Self {
        Self { connection, groups }
    }
}

/// A connection, with the groups that it has left or was to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departures {
    /// The connection.
    pub connection: Connection,
    /// The outcome for each group.
    ///
    /// A removal lists the groups that the connection was in, sorted; other calls list each group
    /// once, in the order of the call.
    pub groups: Vec<Departure>,
}

impl Departures {
    /// Creates the outcome of leaving groups, or of removing a connection.
    pub fn new(connection: Connection, groups: Vec<Departure>) -> Self {
        Self { connection, groups }
    }
}
