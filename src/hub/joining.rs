//! Joining groups, and the policy for it.

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

/// A client asks to join a group: what a [policy](super::HubBuilder::allowing_joins) decides about.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JoinRequest {
    /// The connection of the client.
    pub key: ConnectionKey,
    /// The principal of the connection, as the authorizer named it: that of the key, or else of the registry.
    pub principal: Option<Principal>,
    /// The group, as the client named it.
    pub group: Group,
}

/// Whether a client may join a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a decision has no effect until the policy returns it"]
#[allow(clippy::exhaustive_enums, reason = "there is no third")]
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

/// A client did not join.
///
/// A connection that is not registered is no error: see [`Joined::NotConnected`]. No text of it quotes the group.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The policy refused the client.
    #[error("the client may not join this group")]
    NotAllowed {
        /// The group.
        group: Group,
    },
    /// The hub has no policy, so no client may join any group.
    #[error(
        "the hub lets no client join: set `HubBuilder::allowing_joins`, or `allowing_all_joins` for public rooms; for a group \
         that the application itself chooses, call `Hub::add_to_group`"
    )]
    NoPolicy,
    /// The policy failed.
    #[error("the policy for joining groups failed")]
    Policy {
        /// Its error.
        source: BoxError,
    },
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// The texts of the error and its sources: it is what a `main` prints that returns the error.
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
    /// Lets a client join a group that it asks for, and announces that if it is the first of its principal.
    ///
    /// Asks the [policy](super::HubBuilder::allowing_joins). Without one, no client may join.
    ///
    /// # Errors
    ///
    /// [`JoinError::NotAllowed`] if the policy refuses the client, [`JoinError::NoPolicy`] if there is none,
    /// [`JoinError::Policy`] if the policy fails, and [`JoinError::Registry`] if the registry does. Failures to announce are
    /// logged.
    pub async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, JoinError> {
        Ok(joined(self.join_all(key, std::slice::from_ref(group)).await?))
    }

    /// Lets a client join groups that it asks for, in one change, and announces that.
    ///
    /// It joins all of them or none. Returns `None` if it is not registered.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join). [`JoinError::NotAllowed`] names the first group that the policy refuses.
    pub async fn join_all(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Arrivals>, JoinError> {
        if !self.allow(key, groups).await? {
            return Ok(None);
        }
        Ok(self.add_to_groups(key, groups).await?)
    }

    /// Adds a connection to a group that the application chooses, and announces that if it is the first of its principal.
    ///
    /// The [policy](super::HubBuilder::allowing_joins) is not asked. If the client names the group, use [`join`](Self::join).
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if it could not be added. Failures to announce are logged.
    pub async fn add_to_group(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        Ok(joined(self.add_to_groups(key, std::slice::from_ref(group)).await?))
    }

    /// Adds a connection to groups that the application chooses, in one change, and announces that.
    ///
    /// Returns `None` if it is not registered. The [policy](super::HubBuilder::allowing_joins) is not asked.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if it could not be added. Failures to announce are logged.
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

    /// Returns whether the connection may join all of the groups, or `false` if it is not registered.
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

/// The outcome of joining one group.
fn joined(arrivals: Option<Arrivals>) -> Joined {
    let joined = arrivals.and_then(|arrivals| arrivals.groups.into_iter().next()).map(|arrival| arrival.joined);
    joined.unwrap_or(Joined::NotConnected)
}
