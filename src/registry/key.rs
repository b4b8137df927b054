//! What names a connection.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::{Audience, Group, Namespace, Principal};
use crate::event::{ConnectionId, RequestContext};

/// Names a connection in a registry: its namespace and its id.
///
/// A key also carries the connection's principal where that is known, which saves a registry a request. It plays no part when
/// keys are compared.
#[derive(Debug, Clone)]
pub struct ConnectionKey {
    pub(super) namespace: Namespace,
    pub(super) id: ConnectionId,
    pub(super) principal: Option<Principal>,
}

impl ConnectionKey {
    /// The connection with this id in this namespace.
    pub fn new(namespace: Namespace, id: ConnectionId) -> Self {
        Self { namespace, id, principal: None }
    }

    /// The connection that an event concerns, in the namespace of its API and stage.
    ///
    /// With a [`Hub`](crate::hub::Hub) use its `key` method, which knows the namespace of the hub.
    pub fn from_context(context: &RequestContext) -> Self {
        let principal = context.principal_id().and_then(|principal| Principal::new(principal).ok());
        Self { principal, ..Self::new(Namespace::from_context(context), context.connection_id.clone()) }
    }

    /// States whose connection it is, as the authorizer did.
    ///
    /// Registries check it, so that a wrong principal costs a request and does no harm there. The
    /// [policy](crate::hub::HubBuilder::allowing_joins) of a hub for joining groups believes it.
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

    /// Returns whose connection it is, where the key knows.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Returns the audience of all connections of its namespace.
    pub fn everyone(&self) -> Audience {
        self.namespace.everyone()
    }

    /// Returns the audience of a group of its namespace.
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
