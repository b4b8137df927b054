//! Messages of clients, and the routes that they select.

use std::borrow::Cow;
use std::time::SystemTime;

use super::super::selection::Selected;
use super::super::timeline::{Body, EntryKind, Origin};
use super::faults::{Late, Occasion};
use super::{Effect, Fault, Integration, Machine, Purpose, frame_text};
use crate::event::{ConnectionId, MessageId, RequestId, RouteKey};

impl Machine {
    /// Handles a text message from a client.
    pub(super) fn message(&mut self, now: SystemTime, id: &ConnectionId, body: &str) -> Vec<Effect> {
        if self.is_half_open(id) || !self.touch(now, id) {
            return Vec::new();
        }
        match self.strike(Occasion::Message, id.as_str()) {
            Some(Fault::MessageLate(longest)) => {
                let delay = self.random_delay(longest);
                self.later(now, delay, id, Late::Message(body.to_owned()));
                Vec::new()
            }
            _ => self.routed(now, id, body),
        }
    }

    /// Passes a message to the route that it selects.
    pub(super) fn routed(&mut self, now: SystemTime, id: &ConnectionId, body: &str) -> Vec<Effect> {
        if !self.is_open(id) {
            return Vec::new();
        }
        let request_id: RequestId = self.id();
        let message_id: MessageId = self.id();
        if !self.requests.take(now) {
            // LIM-5; how AWS informs the client is not known.
            self.received(id, body, None, "the rate of requests is exhausted".into());
            return self.say(now, id, "Too Many Requests", &request_id);
        }
        let (route, reason) = self.select(body);
        let Some((route_key, integration)) = route else {
            // RTE-4
            self.received(id, body, None, reason);
            return self.say(now, id, "Forbidden", &request_id);
        };
        self.received(id, body, Some(&route_key), reason);
        let Some(connection) = self.connections.get(id) else { return Vec::new() };
        let payload = self.parts(connection, &request_id, now).message(route_key.as_str(), &message_id, body);
        let purpose = Purpose::Message { route_key, has_route_response: integration.has_route_response };
        self.invoke(now, id, &request_id, purpose, integration.function, payload, integration.timeout)
    }

    fn received(&mut self, id: &ConnectionId, body: &str, route_key: Option<&RouteKey>, reason: Cow<'static, str>) {
        let route_key = route_key.map(RouteKey::to_string);
        self.note(id, EntryKind::Received { text: Body::new(body), route_key, reason });
    }

    /// Selects a route, and explains why (RTE-3, RTE-5).
    ///
    /// It is an exact match of a custom route key, or `$default`.
    fn select(&self, body: &str) -> (Option<(RouteKey, Integration)>, Cow<'static, str>) {
        let reason = match self.api.selection.select(body) {
            Selected::Key(key) => {
                let route = self.api.routes.get_key_value(key.as_str()).filter(|_| !key.starts_with('$'));
                if let Some((route_key, integration)) = route {
                    return (Some((route_key.clone(), *integration)), "the selection expression gave it".into());
                }
                format!("the selection expression gave {key:?}, which is no route")
            }
            Selected::Nothing(reason) => format!("the selection expression gave nothing: {reason}"),
        };
        let default = self.api.routes.get_key_value(RouteKey::DEFAULT);
        (default.map(|(route_key, integration)| (route_key.clone(), *integration)), reason.into())
    }

    /// Sends one of the gateway's own messages to a client.
    pub(super) fn say(
        &mut self,
        now: SystemTime,
        id: &ConnectionId,
        message: &str,
        request_id: &RequestId,
    ) -> Vec<Effect> {
        self.send(now, id, frame_text(message, id, request_id), Origin::Gateway).into_iter().collect()
    }
}
