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

/// Builds a [`Hub`] with custom settings.
///
/// A built hub cannot be changed, so its clones cannot differ.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Pusher;
/// use lambda_websocket::hub::{Hub, JoinDecision};
/// use lambda_websocket::push::Recorder;
/// use lambda_websocket::registry::InMemory;
///
/// let hub = Hub::builder(InMemory::new(), Pusher::new(Recorder::new()))
///     .announcing(|events| Some(serde_json::json!({"event": "presence", "events": events})))
///     .allowing_joins(|request| async move {
///         // The principal comes from the authorizer, the group from the client.
///         let group = request.group.as_str();
///         let is_own = |name| group == format!("inbox of {name}");
///         let is_own = request.principal.is_some_and(is_own);
///         Ok(JoinDecision::allow_if(is_own || request.group == "lobby"))
///     })
///     .build();
/// # let _ = hub;
/// ```
#[must_use = "a builder does nothing until `build` is called"]
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

    /// Builds the hub.
    #[must_use]
    pub fn build(self) -> Hub {
        Hub { parts: Arc::new(self.0) }
    }

    /// Calls this function to decide whether a client may join a group. Default: no client may.
    ///
    /// [`Hub::join`] and [`Hub::join_all`] call it once for each group. The client names the group,
    /// so do not trust it: check that the principal is a member, or that the group is open to
    /// everyone. If the function returns an error, the call fails with
    /// [`JoinError::Policy`](super::JoinError::Policy).
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::hub::{HubBuilder, JoinDecision};
    ///
    /// # #[derive(Clone)] struct Members;
    /// # impl Members {
    /// #     async fn contains(&self, room: &str, name: &str) -> std::io::Result<bool> {
    /// #         Ok(room == name)
    /// #     }
    /// # }
    /// # fn show(builder: HubBuilder, members: Members) -> HubBuilder {
    /// builder.allowing_joins(move |request| {
    ///     let members = members.clone();
    ///     async move {
    ///         let Some(name) = &request.principal else { return Ok(JoinDecision::Refuse) };
    ///         let is_member = members.contains(request.group.as_str(), name.as_str()).await?;
    ///         Ok(JoinDecision::allow_if(is_member))
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
    /// Suitable for public rooms and for tests.
    pub fn allowing_all_joins(mut self) -> Self {
        self.0.join_policy = JoinPolicy::Open;
        self
    }

    /// Keeps the connections of all events in this namespace. Default: the namespace of the event's
    /// API and stage.
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.0.namespace = Some(namespace);
        self
    }

    /// Uses this pusher for connections of this API and stage.
    pub fn with_pusher_for(mut self, api_id: ApiId, stage: Stage, pusher: Pusher) -> Self {
        self.0.pushers.add(api_id, stage, pusher);
        self
    }

    /// Keeps connections that are younger than this, since they may not be open yet. Default: 30
    /// seconds.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.0.grace = grace;
        self
    }

    /// Makes [sweeps](Hub::sweep) check each connection once in this period. Default: 10 minutes.
    ///
    /// Sweeps can check somewhat fewer than `rate × period` connections in a period: about 54,000
    /// by default, if a function sweeps for 54 seconds of each minute.
    pub fn with_sweep_period(mut self, period: Duration) -> Self {
        self.0.sweep_period = period;
        self
    }

    /// Sets the interval at which [`sweep`](Hub::sweep) is called. Default: one minute.
    ///
    /// If the interval is at least the period, every sweep checks all connections.
    pub fn with_sweep_interval(mut self, interval: Duration) -> Self {
        self.0.sweep_interval = interval;
        self
    }

    /// Limits a [sweep](Hub::sweep) to this many requests a second. Default: 100; from 1 to 1000.
    pub fn with_sweep_rate(mut self, requests: u32) -> Self {
        self.0.sweep_rate = requests.clamp(1, 1000);
        self
    }

    /// Announces to groups which principals joined and left. Default: no announcements.
    ///
    /// This function returns the message to send, or `None` to send nothing.
    ///
    /// A principal joins with its first connection in a group and leaves with its last. A
    /// connection without a principal is not announced. A message is about one group and has at
    /// least one event: all events of one call, and earlier ones that could not be announced. A
    /// connection does not receive a message whose events are all its own.
    ///
    /// After sending to an audience, the hub announces the stale connections that it removed with
    /// at most as many pushes as the message took. Events of other groups that would take more stay
    /// pending until this process next announces something to their group, sweeps, or
    /// [announces](Hub::announce) all of them; at most 10,000 are pending. To announce them
    /// reliably, see [`announcing_through`](Self::announcing_through).
    ///
    /// Announcements are best-effort. A client that needs the exact state reads
    /// [`principals`](Hub::principals), and ignores an event with a lower
    /// [version](PresenceEvent::version) than the last one about the same principal and group.
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
    ///         let of_kind = events.iter().filter(|event| event.kind == kind);
    ///         of_kind.map(|event| &event.principal).collect()
    ///     };
    ///     let room = &events.first()?.group;
    ///     let (joined, left) = (of(Presence::Joined), of(Presence::Left));
    ///     Some(json!({"event": "presence", "room": room, "joined": joined, "left": left}))
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

    /// Sends presence events to your own queue instead of announcing them in the same invocation.
    ///
    /// The queue's consumer passes them to [`announce`](Hub::announce). Events are serializable.
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
