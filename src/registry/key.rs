//! The key of a connection.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::{Audience, Group, Namespace, Principal};
use crate::event::{ConnectionId, RequestContext};

/// Identifies a connection in a registry by its namespace and id.
///
/// A key also has the connection's principal if it is known, which saves a registry a request.
/// Comparisons of keys ignore it.
#[derive(Debug, Clone)]
pub struct ConnectionKey {
    pub(super) namespace: Namespace,
    pub(super) id: ConnectionId,
    pub(super) principal: Option<Principal>,
}

impl ConnectionKey {
    /// Creates the key of the connection with this id in this namespace.
    pub fn new(namespace: Namespace, id: ConnectionId) -> Self {
        Self { namespace, id, principal: None }
    }

    /// Creates the key of an event's connection, in the namespace of its API and stage.
    ///
    /// If you use a [`Hub`](crate::hub::Hub), call its `key` method instead, which uses the hub's
    /// namespace.
    pub fn from_context(context: &RequestContext) -> Self {
        let principal = context.principal_id().and_then(|principal| Principal::new(principal).ok());
        Self { principal, ..Self::new(Namespace::from_context(context), context.connection_id.clone()) }
    }

    /// Sets the principal of the connection, as the authorizer named it.
    ///
    /// Registries verify it, so a wrong principal only costs them a request. The
    /// [policy](crate::hub::HubBuilder::allowing_joins) of a hub for joining groups trusts it.
    #[must_use]
    pub fn with_principal(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    /// Moves the key to this namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the id.
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// Returns the principal of the connection, if the key has it.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Returns the audience of all connections in the key's namespace.
    pub fn everyone(&self) -> Audience {
        self.namespace.everyone()
    }

    /// Returns the audience of a group in the key's namespace.
    pub fn group(&self, group: &Group) -> Audience {
        self.namespace.group(group)
    }

    fn name(&self) -> (&Namespace, &ConnectionId) {
        (&self.namespace, &self.id)
    }
}

impl PartialEq for ConnectionKey {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for ConnectionKey {}

impl Hash for ConnectionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialOrd for ConnectionKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ConnectionKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(&other.name())
    }
}
