//! Settings of a hub.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Hub;
use super::presence::PresenceEvent;
use crate::event::{ApiId, Stage};
use crate::push::Pusher;
use crate::registry::Namespace;

impl Hub {
    /// Keeps the connections of all events in this namespace. Default: that of the event's API and stage.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Pushes to the connections of this stage of this API through this pusher.
    #[must_use]
    pub fn with_pusher_for(mut self, api_id: ApiId, stage: Stage, pusher: Pusher) -> Self {
        Arc::make_mut(&mut self.pushers).add(api_id, stage, pusher);
        self
    }

    /// Keeps connections that are younger than this, since they may not be open yet. Default: 30 seconds.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Lets [sweeps](Self::sweep) ask about each connection once in this time. Default: 10 minutes.
    ///
    /// Sweeps can ask about somewhat less than `rate × period` connections in a period: about 54,000 by default, if a function
    /// sweeps for 54 seconds of each minute.
    #[must_use]
    pub fn with_sweep_period(mut self, period: Duration) -> Self {
        self.sweep_period = period;
        // It is counted in parts of a period.
        self.progress = Arc::default();
        self
    }

    /// States how often [`sweep`](Self::sweep) is called. Default: once a minute.
    ///
    /// If that is no more often than once in a period, every sweep asks about everybody.
    #[must_use]
    pub fn with_sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = interval;
        self
    }

    /// Lets a [sweep](Self::sweep) make at most this many requests a second. Default: 100; from 1 to 1000.
    #[must_use]
    pub fn with_sweep_rate(mut self, requests: u32) -> Self {
        self.sweep_rate = requests.clamp(1, 1000);
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
    /// [announces](Self::announce) all; at most 10,000 wait. To announce them reliably, see
    /// [`announcing_through`](Self::announcing_through).
    ///
    /// Announcing is best-effort. A client that must know reads [`principals`](Self::principals), and ignores an event whose
    /// [version](PresenceEvent::version) is lower than that of the last one about the same principal and group.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::hub::{Hub, Presence};
    /// use serde_json::json;
    ///
    /// # fn show(hub: Hub) -> Hub {
    /// hub.announcing(|events| {
    ///     let of = |kind: Presence| -> Vec<_> {
    ///         events.iter().filter(|event| event.kind == kind).map(|event| &event.principal).collect()
    ///     };
    ///     let room = &events.first()?.group;
    ///     Some(json!({"event": "presence", "room": room, "joined": of(Presence::Joined), "left": of(Presence::Left)}))
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn announcing<T: Serialize>(
        mut self,
        message: impl Fn(&[PresenceEvent]) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.announcer = self.announcer.with_message(message);
        self
    }

    /// Hands presence events to a queue of your own, instead of announcing them in the invocation that notices them.
    ///
    /// The consumer of the queue passes them to [`announce`](Self::announce). Events are serializable.
    #[must_use]
    pub fn announcing_through<F, Fut>(mut self, queue: F) -> Self
    where
        F: Fn(Vec<PresenceEvent>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.announcer = self.announcer.with_queue(queue);
        self
    }
}
