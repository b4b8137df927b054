//! The settings of a hub.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::joining::{JoinDecision, JoinPolicy, JoinRequest};
use super::presence::{Announcer, PresenceEvent};
use super::{GRACE, Hub, Parts, SWEEP_INTERVAL, SWEEP_PERIOD, SWEEP_RATE};
use crate::event::{ApiId, Stage};
use crate::push::{Pusher, Pushers};
use crate::registry::{Namespace, Registry};

/// Makes a [`Hub`] with settings. A hub itself has none, so its clones cannot differ.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Pusher;
/// use lambda_websocket::hub::{Hub, JoinDecision};
/// use lambda_websocket::push::Recorder;
/// use lambda_websocket::registry::Memory;
///
/// let hub = Hub::builder(Memory::new(), Pusher::new(Recorder::new()))
///     .announcing(|events| Some(serde_json::json!({"event": "presence", "events": events})))
///     .allowing_joins(|request| async move {
///         // The principal is the authorizer's, so it can be trusted. The group is the client's.
///         let is_own = request.principal.is_some_and(|name| request.group.as_str() == format!("inbox of {name}"));
///         Ok(JoinDecision::allow_if(is_own || request.group == "lobby"))
///     })
///     .build();
/// # let _ = hub;
/// ```
#[must_use = "it makes nothing until `build` is called"]
pub struct HubBuilder(Parts);

impl HubBuilder {
    pub(super) fn new(registry: Arc<dyn Registry>, pusher: Pusher) -> Self {
        Self(Parts {
            registry,
            pushers: Pushers::new(pusher),
            namespace: None,
            announcer: Announcer::default(),
            join_policy: JoinPolicy::Unset,
            grace: GRACE,
            sweep_period: SWEEP_PERIOD,
            sweep_interval: SWEEP_INTERVAL,
            sweep_rate: SWEEP_RATE,
            progress: Default::default(),
            proven: Default::default(),
        })
    }

    /// Makes the hub.
    #[must_use]
    pub fn build(self) -> Hub {
        Hub { parts: Arc::new(self.0) }
    }

    /// Asks this function whether a client may join a group. Default: no client may.
    ///
    /// [`Hub::join`] and [`Hub::join_all`] ask it, once for each group. A group that the client names is a claim like any other:
    /// check that the principal is a member, or that anybody may join. An error of the function fails the call with
    /// [`JoinError::Policy`](super::JoinError::Policy).
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::hub::{HubBuilder, JoinDecision};
    ///
    /// # #[derive(Clone)] struct Members;
    /// # impl Members {
    /// #     async fn contains(&self, room: &str, name: &str) -> std::io::Result<bool> { Ok(room == name) }
    /// # }
    /// # fn show(builder: HubBuilder, members: Members) -> HubBuilder {
    /// builder.allowing_joins(move |request| {
    ///     let members = members.clone();
    ///     async move {
    ///         let Some(name) = &request.principal else { return Ok(JoinDecision::Refuse) };
    ///         Ok(JoinDecision::allow_if(members.contains(request.group.as_str(), name.as_str()).await?))
    ///     }
    /// })
    /// # }
    /// ```
    pub fn allowing_joins<F, Fut>(mut self, policy: F) -> Self
    where
        F: Fn(JoinRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<JoinDecision, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.0.join_policy = JoinPolicy::asking(policy);
        self
    }

    /// Lets every client join every group whose name it knows or guesses.
    ///
    /// Right for public rooms and for tests.
    pub fn allowing_all_joins(mut self) -> Self {
        self.0.join_policy = JoinPolicy::Open;
        self
    }

    /// Keeps the connections of all events in this namespace. Default: that of the event's API and stage.
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.0.namespace = Some(namespace);
        self
    }

    /// Pushes to the connections of this stage of this API through this pusher.
    pub fn with_pusher_for(mut self, api_id: ApiId, stage: Stage, pusher: Pusher) -> Self {
        self.0.pushers.add(api_id, stage, pusher);
        self
    }

    /// Keeps connections that are younger than this, since they may not be open yet. Default: 30 seconds.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.0.grace = grace;
        self
    }

    /// Lets [sweeps](Hub::sweep) ask about each connection once in this time. Default: 10 minutes.
    ///
    /// Sweeps can ask about somewhat less than `rate × period` connections in a period: about 54,000 by default, if a function
    /// sweeps for 54 seconds of each minute.
    pub fn with_sweep_period(mut self, period: Duration) -> Self {
        self.0.sweep_period = period;
        self
    }

    /// States how often [`sweep`](Hub::sweep) is called. Default: once a minute.
    ///
    /// If that is no more often than once in a period, every sweep asks about everybody.
    pub fn with_sweep_interval(mut self, interval: Duration) -> Self {
        self.0.sweep_interval = interval;
        self
    }

    /// Lets a [sweep](Hub::sweep) make at most this many requests a second. Default: 100; from 1 to 1000.
    pub fn with_sweep_rate(mut self, requests: u32) -> Self {
        self.0.sweep_rate = requests.clamp(1, 1000);
        self
    }

    /// Announces presence to groups: which principals joined and left, in the message that this function returns, if any.
    ///
    /// A principal joins with its first connection in a group and leaves with its last. A connection without a principal is not
    /// announced. A message is about one group and has at least one event: those that one call noticed, gathered, and earlier
    /// ones that could not be announced. A connection is not told of itself if it is the only one in the message.
    ///
    /// Sending to an audience makes at most as many pushes again to announce the stale connections that it has removed. Events
    /// of other groups that would cost more wait until this process announces something else to their group, sweeps, or
    /// [announces](Hub::announce) all; at most 10,000 wait. To announce them reliably, see
    /// [`announcing_through`](Self::announcing_through).
    ///
    /// Announcing is best-effort. A client that must know reads [`principals`](Hub::principals), and ignores an event whose
    /// [version](PresenceEvent::version) is lower than that of the last one about the same principal and group.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::hub::{HubBuilder, Presence};
    /// use serde_json::json;
    ///
    /// # fn show(builder: HubBuilder) -> HubBuilder {
    /// builder.announcing(|events| {
    ///     let of = |kind: Presence| -> Vec<_> {
    ///         events.iter().filter(|event| event.kind == kind).map(|event| &event.principal).collect()
    ///     };
    ///     let room = &events.first()?.group;
    ///     Some(json!({"event": "presence", "room": room, "joined": of(Presence::Joined), "left": of(Presence::Left)}))
    /// })
    /// # }
    /// ```
    pub fn announcing<T: Serialize>(
        mut self,
        message: impl Fn(&[PresenceEvent]) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.0.announcer = self.0.announcer.with_message(message);
        self
    }

    /// Hands presence events to a queue of your own, instead of announcing them in the invocation that notices them.
    ///
    /// The consumer of the queue passes them to [`announce`](Hub::announce). Events are serializable.
    pub fn announcing_through<F, Fut>(mut self, queue: F) -> Self
    where
        F: Fn(Vec<PresenceEvent>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.0.announcer = self.0.announcer.with_queue(queue);
        self
    }
}

impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder").field("registry", &self.0.registry).finish_non_exhaustive()
    }
}
