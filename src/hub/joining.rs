//! Joining groups, and the policy that decides about it.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::Hub;
use super::presence::{Budget, PresenceEvent};
use crate::event::chain;
use crate::registry::{Arrivals, ConnectionKey, Consistency, Group, Joined, Principal, RegistryError};

type BoxError = Box<dyn Error + Send + Sync>;
type Decision = Pin<Box<dyn Future<Output = Result<JoinDecision, BoxError>> + Send>>;

/// A client's request to join a group, passed to the [policy](super::HubBuilder::allowing_joins).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JoinRequest {
    /// The connection of the client.
    pub key: ConnectionKey,
    /// The connection's principal: the one in the key, or else the one in the registry.
    ///
    /// The authorizer named it.
    pub principal: Option<Principal>,
    /// The group that the client named.
    pub group: Group,
}

/// Whether a client may join a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a decision has no effect until the policy returns it"]
#[allow(clippy::exhaustive_enums, reason = "a decision is binary")]
pub enum JoinDecision {
    /// The client may join.
    Allow,
    /// The client may not join.
    Refuse,
}

impl JoinDecision {
    /// Allows the client to join if the condition holds.
    pub fn allow_if(condition: bool) -> Self {
        if condition { Self::Allow } else { Self::Refuse }
    }
}

/// The error of joining a group.
///
/// A connection that is not registered is not an error: see [`Joined::NotConnected`]. The messages
/// never quote the group.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The policy does not allow the client to join.
    #[error("the client may not join this group")]
    NotAllowed {
        /// The group that the client asked to join.
        group: Group,
    },
    /// The hub has no policy, so no client may join any group.
    #[error(
        "the hub has no policy for joining groups: set `HubBuilder::allowing_joins`, or `allowing_all_joins` for \
         public rooms; for a group that the application itself chooses, call `Hub::add_to_group`"
    )]
    NoPolicy,
    /// The policy returned an error.
    #[error("the policy for joining groups failed")]
    Policy {
        /// The error that the policy returned.
        source: BoxError,
    },
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Shows the messages of the error and its sources.
///
/// A `main` that returns the error prints this.
impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// Decides which clients may join which groups.
pub(super) enum JoinPolicy {
    /// No policy was set.
    Unset,
    Open,
    Asking(Arc<dyn Fn(JoinRequest) -> Decision + Send + Sync>),
}

impl JoinPolicy {
    pub(super) fn asking<F, Fut>(policy: F) -> Self
    where
        F: Fn(JoinRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<JoinDecision, BoxError>> + Send + 'static,
    {
        Self::Asking(Arc::new(move |request| Box::pin(policy(request))))
    }
}

impl Hub {
    /// Adds a client to a group that it asks for, if the policy allows it.
    ///
    /// If the connection is the first of its principal there, the hub announces that the principal
    /// joined.
    ///
    /// Calls the [policy](super::HubBuilder::allowing_joins). Without one, no client may join.
    ///
    /// # Errors
    ///
    /// [`JoinError::NotAllowed`] if the policy refuses the client, [`JoinError::NoPolicy`] if there
    /// is none, [`JoinError::Policy`] if the policy fails, and [`JoinError::Registry`] if [the
    /// store fails](crate::registry::Registry#store-failures). Failures to announce are logged.
    pub async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, JoinError> {
        Ok(joined(self.join_all(key, std::slice::from_ref(group)).await?))
    }

    /// Adds a client to groups that it asks for, atomically, and announces its principal.
    ///
    /// The client joins all of the groups or none. Returns `None` if the connection is not
    /// registered.
    ///
    /// # Errors
    ///
    /// Same as [`join`](Self::join). [`JoinError::NotAllowed`] names the first group that the
    /// policy refuses; [`JoinError::Registry`] is [`RegistryError::TooManyGroups`] for more than
    /// [`Group::MAX_AT_ONCE`] groups.
    pub async fn join_all(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Arrivals>, JoinError> {
        if !self.allow(key, groups).await? {
            return Ok(None);
        }
        Ok(self.add_to_groups(key, groups).await?)
    }

    /// Adds a connection to a group that the application chooses.
    ///
    /// If the connection is the first of its principal there, the hub announces that the principal
    /// joined.
    ///
    /// The [policy](super::HubBuilder::allowing_joins) is not called. If the client names the
    /// group, use [`join`](Self::join).
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](crate::registry::Registry#store-failures). Failures
    /// to announce are logged.
    pub async fn add_to_group(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        Ok(joined(self.add_to_groups(key, std::slice::from_ref(group)).await?))
    }

    /// Adds a connection to groups that the application chooses, atomically, and announces its
    /// principal.
    ///
    /// Returns `None` if the connection is not registered. The
    /// [policy](super::HubBuilder::allowing_joins) is not called.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooManyGroups`] for more than [`Group::MAX_AT_ONCE`] groups; other variants
    /// if [the store fails](crate::registry::Registry#store-failures). Failures to announce are
    /// logged.
    pub async fn add_to_groups(
        &self,
        key: &ConnectionKey,
        groups: &[Group],
    ) -> Result<Option<Arrivals>, RegistryError> {
        let arrivals = self.parts.registry.join_all(key, groups).await?;
        let events = arrivals.as_ref().map(PresenceEvent::from_arrivals).unwrap_or_default();
        self.announce_or_queue(events, Budget::Own).await;
        Ok(arrivals)
    }

    /// Returns whether the connection is registered and may join all of the groups.
    async fn allow(&self, key: &ConnectionKey, groups: &[Group]) -> Result<bool, JoinError> {
        let policy = match &self.parts.join_policy {
            JoinPolicy::Unset => return Err(JoinError::NoPolicy),
            JoinPolicy::Open => return Ok(true),
            JoinPolicy::Asking(policy) => policy,
        };
        let principal = match key.principal() {
            Some(principal) => Some(principal.clone()),
            None => match self.parts.registry.find(key, Consistency::Strong).await? {
                Some(connection) => connection.principal().cloned(),
                None => return Ok(false),
            },
        };
        for group in groups {
            let request = JoinRequest { key: key.clone(), principal: principal.clone(), group: group.clone() };
            match policy(request).await.map_err(|source| JoinError::Policy { source })? {
                JoinDecision::Allow => {}
                JoinDecision::Refuse => return Err(JoinError::NotAllowed { group: group.clone() }),
            }
        }
        Ok(true)
    }
}

/// Returns the outcome of joining one group.
fn joined(arrivals: Option<Arrivals>) -> Joined {
    let joined = arrivals.and_then(|arrivals| arrivals.groups.into_iter().next()).map(|arrival| arrival.joined);
    joined.unwrap_or(Joined::NotConnected)
}
