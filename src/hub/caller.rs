//! The client that sent an event, as an argument of a handler.

use std::fmt;
use std::sync::Arc;

use super::{Hub, JoinError, PendingSend};
use crate::event::{ConnectionId, Event};
use crate::registry::{ConnectionKey, Group, Joined, Left, RegistryError};
use crate::route::{FromEvent, Result};

/// The client that sent an event, and its operations on the hub.
///
/// A handler takes it as an argument if the state of its router is a [`Hub`] or implements
/// `AsRef<Hub>`.
///
/// # Examples
///
/// ```
/// use lambda_websocket::hub::{Caller, Hub, OnConnect, OnDisconnect};
/// use lambda_websocket::registry::Group;
/// use lambda_websocket::route::{Error, StatusCode};
/// use lambda_websocket::{Json, Result, Router};
///
/// #[derive(serde::Deserialize)]
/// struct Words { room: Group, text: String }
///
/// async fn say(me: Caller, Json(words): Json<Words>) -> Result<()> {
///     if !me.is_in(&words.room).await? {
///         return Err(Error::client(StatusCode::FORBIDDEN, "join the room first"));
///     }
///     let report = me.send_to(&words.room, &words.text).await?;
///     tracing::info!(%report, "said");
///     Ok(())
/// }
///
/// # fn show(hub: Hub) -> Router<Hub> {
/// Router::with_state(hub.clone())
///     .route(OnConnect::new(hub.clone()))
///     .route(OnDisconnect::new(hub))
///     .on("say", say)
/// # }
/// ```
#[derive(Clone)]
pub struct Caller {
    hub: Hub,
    key: ConnectionKey,
    principal: Option<String>,
}

impl Caller {
    /// Returns the hub.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Returns the key of the connection in the registry.
    pub fn key(&self) -> &ConnectionKey {
        &self.key
    }

    /// Returns the id of the connection.
    pub fn id(&self) -> &ConnectionId {
        self.key.id()
    }

    /// Returns the authorizer's `principalId`, if the API has an authorizer.
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// Joins a group that the client asks for, if the hub's policy allows it.
    ///
    /// See [`HubBuilder::allowing_joins`](super::HubBuilder::allowing_joins).
    ///
    /// # Errors
    ///
    /// Same as [`Hub::join`]. In a handler, `?` turns [`JoinError::NotAllowed`] into an error for
    /// the client with the code `forbidden`.
    pub async fn join(&self, group: &Group) -> Result<Joined, JoinError> {
        self.hub.join(&self.key, group).await
    }

    /// Leaves a group.
    ///
    /// If this was the last connection of its principal there, the hub announces that the principal
    /// left.
    ///
    /// # Errors
    ///
    /// Same as [`Hub::leave`].
    pub async fn leave(&self, group: &Group) -> Result<Left, RegistryError> {
        self.hub.leave(&self.key, group).await
    }

    /// Returns whether the connection has joined a group.
    ///
    /// # Errors
    ///
    /// Same as [`Registry::groups`](crate::registry::Registry::groups).
    pub async fn is_in(&self, group: &Group) -> Result<bool, RegistryError> {
        Ok(self.hub.registry().groups(&self.key).await?.contains(group))
    }

    /// Sends a value as JSON to a group.
    ///
    /// If the caller is a member, it receives the message, too: see [`PendingSend::except`].
    pub fn send_to<T: serde::Serialize + ?Sized>(&self, group: &Group, value: &T) -> PendingSend<'_> {
        self.hub.send_to(&self.key.group(group), value)
    }
}

impl<S: AsRef<Hub> + Send + Sync + 'static> FromEvent<S> for Caller {
    async fn from_event(event: &Event, state: &Arc<S>) -> Result<Self> {
        let (hub, context) = (state.as_ref().as_ref().clone(), event.request_context());
        let principal = context.principal_id().map(str::to_owned);
        Ok(Self { key: hub.key(context), hub, principal })
    }
}

impl AsRef<Self> for Hub {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("key", &self.key).finish_non_exhaustive()
    }
}
