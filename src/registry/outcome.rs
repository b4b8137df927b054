//! The outcomes of changes.

use super::{Connection, Group};

/// The outcome of inserting a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a connection that was removed before is not registered"]
#[non_exhaustive]
pub enum Inserted {
    /// The connection is registered now, and has joined these groups.
    New {
        /// The groups, each once, in the order of the call.
        groups: Vec<Arrival>,
    },
    /// The connection was registered before. Nothing has changed.
    Already,
    /// The connection was removed in the last fifteen minutes, or has expired. It is not registered.
    Removed,
}

impl Inserted {
    /// Whether the connection is registered.
    pub fn is_registered(&self) -> bool {
        !matches!(self, Self::Removed)
    }
}

/// The outcome of joining one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a connection that is not registered joins nothing"]
#[non_exhaustive]
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

impl Joined {
    /// Whether the connection is in the group.
    pub fn is_member(self) -> bool {
        !matches!(self, Self::NotConnected)
    }
}

/// The outcome of leaving one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// The connection is no longer in the group, and was the last of its principal. One without a principal is always the
    /// last.
    Last,
    /// The connection is no longer in the group, where its principal has others.
    Another,
    /// The connection was not in the group.
    NotMember,
}

/// One group that a connection was asked to join.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// The group.
    pub group: Group,
    /// The outcome.
    pub joined: Joined,
    /// Orders the changes of one principal's presence in one group: a later change has a higher version, unless the principal
    /// comes back sooner than the clocks of two functions differ.
    pub version: u64,
}

impl Arrival {
    /// The outcome of joining a group.
    pub fn new(group: Group, joined: Joined, version: u64) -> Self {
        Self { group, joined, version }
    }
}

/// One group that a connection has left, or was asked to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departure {
    /// The group.
    pub group: Group,
    /// The outcome.
    pub left: Left,
    /// Orders the changes of one principal's presence in one group: a later change has a higher version, unless the principal
    /// comes back sooner than the clocks of two functions differ.
    pub version: u64,
}

impl Departure {
    /// The outcome of leaving a group.
    pub fn new(group: Group, left: Left, version: u64) -> Self {
        Self { group, left, version }
    }
}

/// A connection and the groups that it was asked to join.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Arrivals {
    /// The connection.
    pub connection: Connection,
    /// The groups, each once, in the order of the call.
    pub groups: Vec<Arrival>,
}

impl Arrivals {
    /// The outcome of joining groups.
    pub fn new(connection: Connection, groups: Vec<Arrival>) -> Self {
        Self { connection, groups }
    }
}

/// A connection and the groups that it has left, or was asked to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departures {
    /// The connection.
    pub connection: Connection,
    /// The groups: of a removal those that it was in, sorted; otherwise each once, in the order of the call.
    pub groups: Vec<Departure>,
}

impl Departures {
    /// The outcome of leaving groups, or of removing a connection.
    pub fn new(connection: Connection, groups: Vec<Departure>) -> Self {
        Self { connection, groups }
    }
}
