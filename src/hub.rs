//! Sends to groups, principals, and everyone, through a registry and a pusher.
//!
//! A [`Hub`] reads an audience from the [`Registry`] and pushes page by page. It removes stale
//! connections, announces presence to groups, and [sweeps](Hub::sweep) up connections whose
//! `$disconnect` was lost. [`OnConnect`] and [`OnDisconnect`] are the routes that keep the registry
//! up to date.

mod builder;
mod caller;
mod close;
mod evidence;
mod joining;
mod presence;
mod routes;
mod sending;
mod sweep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use futures_util::stream::{Stream, StreamExt as _};
use serde::Serialize;

pub use self::builder::HubBuilder;
pub use self::caller::Caller;
pub use self::close::CloseReport;
use self::evidence::Proven;
use self::joining::JoinPolicy;
pub use self::joining::{JoinDecision, JoinError, JoinRequest};
use self::presence::{Announcer, Budget};
pub use self::presence::{Presence, PresenceEvent};
pub use self::routes::{OnConnect, OnDisconnect};
pub use self::sending::{PendingSend, SendReport};
use self::sweep::Progress;
pub use self::sweep::SweepReport;
use crate::clock;
use crate::event::{InvalidId, RequestContext};
use crate::push::{Endpoint, InvalidEndpoint, Payload, PushError, Pusher, Pushers};
use crate::registry::{
    Arrivals, Audience, Connection, ConnectionData, ConnectionKey, Departures, Group, Inserted, Left, Namespace, Pages,
    Principal, ReadOptions, Registry, RegistryError,
};

/// API Gateway waits at most this long for the `$connect` response.
///
/// Until then, it returns 410 (CON-1, CON-6).
const GRACE: Duration = Duration::from_secs(30);
const SWEEP_PERIOD: Duration = Duration::from_secs(600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of requests a second of a sweep.
///
/// An account has 10,000 for everything (LIM-5).
const SWEEP_RATE: u32 = 100;
/// The maximum number of connections that are removed or looked up concurrently.
const AT_ONCE: usize = 32;

/// Sends to groups, principals, and everyone, and removes stale connections from the registry.
///
/// | to | use |
/// |---|---|
/// | send | [`send_to`](Self::send_to) an audience, [except](PendingSend::except) the sender |
/// | join and leave | [`join`](Self::join), [`leave`](Self::leave), which [announce](HubBuilder::announcing) presence |
/// | list who is present | [`principals`](Self::principals) |
/// | close | [`close`](Self::close) all connections of a principal, or of any audience |
/// | clean up | sending removes the stale connections that it meets; [`sweep`](Self::sweep) finds the others |
///
/// Clones are cheap and share everything. To change the default settings, use a
/// [`builder`](Self::builder).
///
/// # Join policy
///
/// The name of a group is not a secret: a client can ask to join the groups of others.
/// [`join`](Self::join) serves requests of clients, so it calls a
/// [policy](HubBuilder::allowing_joins), and rejects every client if the hub has none. A group that
/// the application itself chooses needs no permission: use [`add_to_group`](Self::add_to_group),
/// [`connect`](Self::connect), or [`OnConnect::joining`].
///
/// Sending calls no policy. To let only members send to a group, join it first, as below, or check
/// [`Registry::groups`].
///
/// # Stale connections
///
/// Sending, closing, and sweeping remove a connection for which API Gateway returns 410, unless
///
/// - the connection is [younger](HubBuilder::with_grace) than 30 seconds, since it may not be open
///   yet;
/// - the endpoint may belong to another API: it is not the API's default endpoint, and no
///   connection of the same API and stage has been reached through it. Through a wrong custom
///   domain, every connection seems to be stale;
/// - the same broadcast or sweep got more than 20 such responses, and more of them than connections
///   that were reached. The first 20 are removed regardless of the other responses.
///
/// [`SendReport`] and [`SweepReport`] count connections that stay for the second or third reason as
/// withheld; [`CloseReport`] lists those that stay as failed. They expire eventually.
///
/// # Examples
///
/// ```
/// use lambda_websocket::hub::Hub;
/// use lambda_websocket::registry::Group;
/// use lambda_websocket::{Message, Result};
///
/// #[derive(serde::Deserialize)]
/// struct Say { room: String, text: String }
///
/// async fn say(event: Message<Say>, hub: &Hub) -> Result<()> {
///     let me = hub.key(event.request_context());
///     let room = Group::new(&event.body.room)?;
///     // Asks the policy of the hub whether this client may be in the room.
///     if !hub.join(&me, &room).await?.is_member() {
///         return Ok(()); // closed meanwhile
///     }
///     let report = hub.send_to(&me.group(&room), &event.body.text).except(&me).await?;
///     tracing::info!(%report, "said");
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Hub {
    parts: Arc<Parts>,
}

/// The state that all clones of a hub share.
//
// Invariant: after the hub is built, only `announcer`, `progress`, and `proven` change, each behind
// a lock. So the clones share the pending events, the progress of sweeps, and the proven endpoints.
struct Parts {
    registry: Arc<dyn Registry>,
    pushers: Pushers,
    namespace: Option<Namespace>,
    announcer: Announcer,
    join_policy: JoinPolicy,
    grace: Duration,
    sweep_period: Duration,
    sweep_interval: Duration,
    sweep_rate: u32,
    progress: Progress,
    proven: Proven,
}

impl Hub {
    /// Creates a hub with default settings: no announcements, and clients may not join groups.
    ///
    /// A pusher whose [endpoint](Endpoint::api) belongs to a known API and stage is not used for
    /// connections of others; see [`with_pusher_for`](HubBuilder::with_pusher_for).
    pub fn new(registry: impl Registry + 'static, pusher: Pusher) -> Self {
        Self::builder(registry, pusher).build()
    }

    /// Returns a builder for a hub with this registry and this pusher.
    pub fn builder(registry: impl Registry + 'static, pusher: Pusher) -> HubBuilder {
        HubBuilder::new(Arc::new(registry), pusher)
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.parts.registry
    }

    /// Returns the key of the connection of an event.
    pub fn key(&self, context: &RequestContext) -> ConnectionKey {
        let key = ConnectionKey::from_context(context);
        match &self.parts.namespace {
            Some(namespace) => key.in_namespace(namespace.clone()),
            None => key,
        }
    }

    /// Returns the connection of an event, ready to be registered.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if the authorizer's principal is not a valid [`Principal`].
    pub fn connection(&self, context: &RequestContext) -> Result<Connection, InvalidId> {
        let connection = Connection::from_context(context)?;
        Ok(match &self.parts.namespace {
            Some(namespace) => connection.in_namespace(namespace.clone()),
            None => connection,
        })
    }

    /// Connects to the registry and to the endpoint ahead of the first event.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures). If the endpoint cannot be
    /// reached, the hub logs a warning, because not every call needs it.
    pub async fn warm_up(&self) -> Result<(), RegistryError> {
        let (registry, endpoint) = join(self.parts.registry.warm_up(), self.parts.pushers.default().warm_up()).await;
        if let Err(error) = endpoint {
            tracing::warn!(%error, "the endpoint cannot be reached yet");
        }
        registry
    }

    /// Sends a value as JSON to an audience when awaited.
    ///
    /// The value is serialized once. The hub pushes while it reads the registry, so the audience is
    /// never held in memory; see [`Pusher::broadcast`]. It removes stale connections meanwhile, and
    /// then announces that they left.
    ///
    /// Awaiting it returns a [`SendReport`], or [`PushError::NotJson`] or [`PushError::TooLarge`]
    /// before anything is sent.
    ///
    /// # Examples
    ///
    /// ```
    /// # use lambda_websocket::{Result, hub::Hub, registry::Audience};
    /// # async fn show(hub: &Hub, room: &Audience) -> Result<()> {
    /// let report = hub.send_to(room, "hello").await?;
    /// tracing::info!(%report, "said");
    ///
    /// // If somebody who is connected does not get it, that is an error.
    /// hub.send_to(room, "the room closes in a minute").await?.require_all()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_to<T: Serialize + ?Sized>(&self, audience: &Audience, value: &T) -> PendingSend<'_> {
        PendingSend::new(self, audience.clone(), Payload::json(value))
    }

    /// Sends a payload to an audience, like [`send_to`](Self::send_to) without its errors.
    pub fn send_payload_to(&self, audience: &Audience, payload: Payload) -> PendingSend<'_> {
        PendingSend::new(self, audience.clone(), Ok(payload))
    }

    /// Registers a connection, adds it to groups, and announces its principal there.
    ///
    /// The application chooses the groups: the [policy](HubBuilder::allowing_joins) is not called.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooManyGroups`] for more than [`Group::MAX_AT_ONCE`] groups; other variants
    /// if [the store fails](Registry#store-failures). Failures to announce are logged.
    pub async fn connect(&self, connection: &Connection, groups: &[Group]) -> Result<Inserted, RegistryError> {
        let inserted = self.parts.registry.insert_into(connection, groups).await?;
        if let Inserted::New { groups } = &inserted {
            let arrivals = Arrivals::new(connection.clone(), groups.clone());
            self.announce_or_queue(PresenceEvent::from_arrivals(&arrivals), Budget::Own).await;
        }
        Ok(inserted)
    }

    /// Removes a connection from a group.
    ///
    /// If it was the last of its principal there, the hub announces that the principal left.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures). Failures to announce are
    /// logged.
    pub async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        let departures = self.parts.registry.leave_groups(key, std::slice::from_ref(group)).await?;
        self.announce_departures(departures.as_ref()).await;
        let left =
            departures.and_then(|departures| departures.groups.into_iter().next()).map(|departure| departure.left);
        Ok(left.unwrap_or(Left::NotMember))
    }

    /// Removes a connection from all of its groups, and announces that its principal left.
    ///
    /// Returns `None` if the connection is not registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures). Failures to announce are
    /// logged.
    pub async fn leave_all(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        let departures = self.parts.registry.leave_all(key).await?;
        self.announce_departures(departures.as_ref()).await;
        Ok(departures)
    }

    /// Replaces the data of a connection. Returns `None` if it is not registered.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooManyGroups`] if the connection is in more than [`Group::MAX_AT_ONCE`]
    /// groups; other variants if [the store fails](Registry#store-failures).
    pub async fn set_data(
        &self,
        key: &ConnectionKey,
        data: Option<&ConnectionData>,
    ) -> Result<Option<Connection>, RegistryError> {
        self.parts.registry.set_data(key, data).await
    }

    /// Removes a closed connection, and announces to its groups that its principal left.
    ///
    /// Returns `None` if there was nothing to remove.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if [the store fails](Registry#store-failures). Failures to announce are
    /// logged.
    pub async fn disconnect(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        let departures = self.parts.registry.remove(key).await?;
        self.announce_departures(departures.as_ref()).await;
        Ok(departures)
    }

    /// Lists the principals of a group, each once, even with several connections there.
    pub fn principals(&self, namespace: &Namespace, group: &Group) -> Pages<'_, Principal> {
        self.parts.registry.principals(namespace, group, ReadOptions::default().consistent())
    }

    async fn announce_departures(&self, departures: Option<&Departures>) {
        let events = departures.map(PresenceEvent::from_departures).unwrap_or_default();
        self.announce_or_queue(events, Budget::Own).await;
    }

    /// Returns the pusher for a connection.
    fn pusher_for(&self, connection: &Connection) -> Result<&Pusher, PushError> {
        self.parts.pushers.find(connection.id(), connection.api_id(), connection.stage())
    }

    /// Returns whether a connection may not be open yet.
    fn is_young(&self, connection: &Connection) -> bool {
        let opens_until = connection.connected_at().checked_add(self.parts.grace);
        opens_until.is_some_and(|until| until > clock::now())
    }

    /// Removes stale connections.
    async fn remove_all(&self, keys: impl Stream<Item = ConnectionKey>) -> Removals {
        let removals = keys.map(|key| async move { (self.parts.registry.remove(&key).await, key) });
        let mut outcomes = std::pin::pin!(removals.buffer_unordered(AT_ONCE));
        let mut removals = Removals::default();
        while let Some((removed, key)) = outcomes.next().await {
            match removed {
                Ok(Some(departures)) => {
                    removals.events.extend(PresenceEvent::from_departures(&departures));
                    removals.keys.push(key);
                }
                Ok(None) => {}
                Err(error) => {
                    // The next send or sweep tries again, or the connection expires.
                    if removals.failed.is_empty() {
                        tracing::warn!(connection_id = %key.id(), %error, "a stale connection stays registered");
                    }
                    removals.failed.push(key);
                }
            }
        }
        if removals.failed.len() > 1 {
            tracing::warn!(failures = removals.failed.len(), "stale connections stay registered");
        }
        removals
    }
}

/// The outcome of removing connections.
#[derive(Default)]
struct Removals {
    /// The connections that were removed.
    keys: Vec<ConnectionKey>,
    /// The connections that could not be removed.
    failed: Vec<ConnectionKey>,
    /// The presence events to announce.
    events: Vec<PresenceEvent>,
}

impl Connection {
    /// Returns the connection's endpoint: its host and stage, as [`Endpoint::from_context`] does.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] if the host is not valid.
    pub fn endpoint(&self) -> Result<Endpoint, InvalidEndpoint> {
        Ok(Endpoint::from_host(self.domain_name(), self.stage())?.for_api(self.api_id().clone(), self.stage().clone()))
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("registry", &self.parts.registry)
            .field("pusher", self.parts.pushers.default())
            .field("namespace", &self.parts.namespace)
            .finish_non_exhaustive()
    }
}
