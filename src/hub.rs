//! A registry and a pusher together: sending to groups, to a principal, to everyone.
//!
//! A [`Hub`] reads who is meant from the [`Registry`] and pushes as it reads. It removes what turns out to be gone, tells groups
//! who came and went, and [sweeps](Hub::sweep) up connections whose `$disconnect` was lost. [`OnConnect`] and [`OnDisconnect`]
//! are the routes that keep the registry.

mod announce;
mod close;
mod routes;
mod sending;
mod sweep;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;

use self::announce::Announcer;
pub use self::announce::{Change, Move};
pub use self::close::Closed;
pub use self::routes::{OnConnect, OnDisconnect};
pub use self::sending::{Sending, Sent};
pub use self::sweep::Swept;
use crate::clock;
use crate::event::{ApiId, Stage};
use crate::push::{Endpoint, InvalidEndpoint, Payload, PushError, Pusher, Pushers};
use crate::registry::{
    Audience, Connection, ConnectionKey, Consistency, Group, Joined, Left, Namespace, Pages, Principal, ReadOptions,
    Registry, RegistryError, Removed,
};

/// API Gateway waits so long for `$connect`, and answers 410 until it has been answered (CON-1, CON-6).
const GRACE: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(60);
/// How many connections a second a sweep asks about, of the 10,000 requests that an account has for everything (LIM-5).
const SWEEP_RATE: u32 = 100;
/// How many connections are removed or asked about at a time.
const AT_ONCE: usize = 16;

/// Sends to groups, to a principal, to everyone, and keeps the registry clean.
///
/// | what | how |
/// |---|---|
/// | send | [`send_to`](Self::send_to) an audience, [except](Sending::except) the sender |
/// | join and leave | [`join`](Self::join), [`leave`](Self::leave), which [announce](Self::announcing) who came and went |
/// | who is there | [`principals`](Self::principals) |
/// | close | [`close`](Self::close) all connections of a principal, or of any audience |
/// | clean up | what is gone is removed as it is met; [`sweep`](Self::sweep) looks for the rest |
///
/// Clones are cheap and share everything.
///
/// # Examples
///
/// ```
/// use lambda_websocket::hub::Hub;
/// use lambda_websocket::registry::{ConnectionKey, Group};
/// use lambda_websocket::{Message, Result};
///
/// #[derive(serde::Deserialize)]
/// struct Say { room: String, text: String }
///
/// async fn say(event: Message<Say>, hub: &Hub) -> Result<()> {
///     let me = ConnectionKey::of(event.request_context());
///     let room = me.group(&Group::new(&event.body.room)?);
///     let sent = hub.send_to(&room, &event.body.text)?.except(&me).await;
///     tracing::info!(%sent, "said");
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Hub {
    registry: Arc<dyn Registry>,
    pushers: Arc<Pushers>,
    announcer: Option<Announcer>,
    grace: Duration,
    lease: Duration,
    sweep_rate: u32,
}

impl Hub {
    /// A hub over this registry, which pushes through this pusher.
    ///
    /// A pusher whose [endpoint](Endpoint::api) names its API and stage is not given the connections of others, since those
    /// would seem to be gone there; see [`with_pusher_for`](Self::with_pusher_for).
    pub fn new(registry: impl Registry + 'static, pusher: Pusher) -> Self {
        Self {
            registry: Arc::new(registry),
            pushers: Arc::new(Pushers::new(pusher)),
            announcer: None,
            grace: GRACE,
            lease: LEASE,
            sweep_rate: SWEEP_RATE,
        }
    }

    /// Pushes to the connections of this stage of this API through this pusher.
    #[must_use]
    pub fn with_pusher_for(mut self, api_id: ApiId, stage: Stage, pusher: Pusher) -> Self {
        Arc::make_mut(&mut self.pushers).add(api_id, stage, pusher);
        self
    }

    /// Does not remove connections as gone that are younger than this, since they may not be open yet; 30 seconds unless set.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Lets a [sweep](Self::sweep) ask about connections that it has not heard of for this time; 60 seconds unless set.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Lets a [sweep](Self::sweep) ask about at most this many connections a second; 100 unless set, from 1 to 1000.
    #[must_use]
    pub fn with_sweep_rate(mut self, connections: u32) -> Self {
        self.sweep_rate = connections.clamp(1, 1000);
        self
    }

    /// Tells a group who came and who went, with the message that this makes of it, if it makes one.
    ///
    /// A principal comes with its first connection and goes with its last, each of which is told at most once. Connections
    /// without a principal come and go unannounced. Who joins is not told of itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::hub::{Hub, Move};
    /// use serde_json::json;
    ///
    /// # fn show(hub: Hub) -> Hub {
    /// hub.announcing(|change| {
    ///     let verb = match change.what { Move::Joined => "joined", Move::Left => "left" };
    ///     Some(json!({"event": verb, "room": change.group, "who": change.principal}))
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn announcing<T: Serialize>(mut self, message: impl Fn(&Change) -> Option<T> + Send + Sync + 'static) -> Self {
        self.announcer = Some(Announcer::new(move |change| Some(Payload::json(&message(change)?))));
        self
    }

    /// The registry.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.registry
    }

    /// Sends a value as JSON to an audience, when it is awaited.
    ///
    /// The value is made JSON once. Connections are pushed to while the registry is read, never collected; see
    /// [`Pusher::broadcast`]. Those that are gone are removed, and announced as having left.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent. Everything else is in what it came to.
    pub fn send_to<T: Serialize + ?Sized>(&self, audience: &Audience, value: &T) -> Result<Sending<'_>, PushError> {
        Ok(self.send_payload_to(audience, Payload::json(value)?))
    }

    /// Sends a payload that was made before to an audience, as [`send_to`](Self::send_to) does.
    pub fn send_payload_to(&self, audience: &Audience, payload: Payload) -> Sending<'_> {
        Sending::new(self, audience.clone(), payload)
    }

    /// Lets a connection join a group, and tells the group when its principal came.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] when it could not join. That the group could not be told is logged.
    pub async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        let joined = self.registry.join(key, group).await?;
        if joined == Joined::First {
            self.announce_move(key, group, Move::Joined).await;
        }
        Ok(joined)
    }

    /// Lets a connection leave a group, and tells the group when its principal has gone.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] when it could not leave. That the group could not be told is logged.
    pub async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        let left = self.registry.leave(key, group).await?;
        if left == Left::Last {
            self.announce_move(key, group, Move::Left).await;
        }
        Ok(left)
    }

    /// Removes a connection that was closed, and tells its groups when its principal has gone.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] when it could not be removed. That groups could not be told is logged.
    pub async fn disconnect(&self, key: &ConnectionKey) -> Result<Option<Removed>, RegistryError> {
        let removed = self.registry.remove(key).await?;
        if let Some(removed) = &removed {
            self.announce(Change::of_removed(removed)).await;
        }
        Ok(removed)
    }

    /// Who is in a group: each principal once, however many connections it has there.
    pub fn principals(&self, namespace: &Namespace, group: &Group) -> Pages<'_, Principal> {
        self.registry.principals(namespace, group, ReadOptions::default().consistent())
    }

    /// The pusher that reaches a connection.
    fn pusher_for(&self, connection: &Connection) -> Result<&Pusher, PushError> {
        self.pushers.find(connection.id(), connection.api_id(), connection.stage())
    }

    /// Whether a connection may still come about.
    fn is_young(&self, connection: &Connection) -> bool {
        let opens_until = connection.connected_at().checked_add(self.grace);
        opens_until.is_some_and(|until| until > clock::now())
    }

    /// Removes connections that are gone.
    async fn remove_all(&self, keys: Vec<ConnectionKey>) -> Vec<Removed> {
        let removals = stream::iter(keys).map(|key| async move {
            let removed = self.registry.remove(&key).await;
            removed.unwrap_or_else(|error| {
                // The next who pushes to it will try again, or a sweep, or it expires.
                tracing::warn!(connection_id = %key.id(), %error, "a connection that is gone stays registered");
                None
            })
        });
        removals.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
    }

    async fn announce_move(&self, key: &ConnectionKey, group: &Group, what: Move) {
        if self.announcer.is_none() {
            return;
        }
        let connection = match self.registry.find(key, Consistency::Strong).await {
            Ok(Some(connection)) => connection,
            // It is gone again, which whoever removed it tells.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "a group is not told who came or went");
                return;
            }
        };
        if let Some(principal) = connection.principal() {
            let change = Change::new(what, key.namespace().clone(), group.clone(), principal.clone());
            self.announce(vec![change.except(key.clone())]).await;
        }
    }

    /// Tells groups who came and went. Who turns out to be gone meanwhile is told, too.
    async fn announce(&self, changes: Vec<Change>) {
        let Some(announcer) = &self.announcer else { return };
        let mut waiting = VecDeque::from(changes);
        while let Some(change) = waiting.pop_front() {
            let payload = match announcer.payload(&change) {
                None => continue,
                Some(Ok(payload)) => payload,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the message of who came or went cannot be sent");
                    continue;
                }
            };
            let audience = change.namespace.group(&change.group);
            let sending = Sending::new(self, audience, payload).excepting(change.except);
            let (sent, removed) = sending.deliver().await;
            if !sent.is_success() {
                tracing::warn!(%sent, "not everyone in the group knows who came or went");
            }
            waiting.extend(removed.iter().flat_map(Change::of_removed));
        }
    }
}

impl Connection {
    /// Where it is reached: made of its host and stage, as [`Endpoint::of_request`] does.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] when the host is not one.
    pub fn endpoint(&self) -> Result<Endpoint, InvalidEndpoint> {
        Ok(Endpoint::of_host(self.domain_name(), self.stage())?.for_api(self.api_id().clone(), self.stage().clone()))
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("registry", &self.registry)
            .field("pusher", self.pushers.default())
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
