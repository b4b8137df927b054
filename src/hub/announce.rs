//! Who came and who went.

use std::sync::Arc;

use crate::push::{Payload, PushError};
use crate::registry::{ConnectionKey, Group, Left, Namespace, Principal, Removed};

type Message = dyn Fn(&Change) -> Option<Result<Payload, PushError>> + Send + Sync;

/// What a group is told.
#[derive(Clone)]
pub(super) struct Announcer(Arc<Message>);

impl Announcer {
    pub(super) fn new(message: impl Fn(&Change) -> Option<Result<Payload, PushError>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(message))
    }

    pub(super) fn payload(&self, change: &Change) -> Option<Result<Payload, PushError>> {
        (self.0)(change)
    }
}

/// A principal came to a group with its first connection, or went with its last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Whether it came or went.
    pub what: Move,
    /// The namespace of the group.
    pub namespace: Namespace,
    /// The group.
    pub group: Group,
    /// Who.
    pub principal: Principal,
    pub(super) except: Option<ConnectionKey>,
}

/// Whether a principal came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It came.
    Joined,
    /// It went.
    Left,
}

impl Change {
    pub(super) fn new(what: Move, namespace: Namespace, group: Group, principal: Principal) -> Self {
        Self { what, namespace, group, principal, except: None }
    }

    /// A change of which this connection need not be told.
    pub(super) fn except(mut self, key: ConnectionKey) -> Self {
        self.except = Some(key);
        self
    }

    /// The groups from which the last connection of a principal was removed.
    pub(super) fn of_removed(removed: &Removed) -> Vec<Self> {
        let Some(principal) = removed.connection.principal() else { return Vec::new() };
        let namespace = removed.connection.key().namespace();
        let left = removed.groups.iter().filter(|departure| departure.left == Left::Last);
        left.map(|departure| Self::new(Move::Left, namespace.clone(), departure.group.clone(), principal.clone()))
            .collect()
    }
}
