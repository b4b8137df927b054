//! The handshake of a connection: authorizer, `$connect`, verdict.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use rand::Rng as _;

use super::super::function::FunctionError;
use super::super::identity::IdentitySource;
use super::super::payload::{Handshake, Origin, Parts};
use super::super::proxy_response;
use super::super::timeline::EntryKind;
use super::faults::{Late, Occasion};
use super::{Api, Authorizer, Connection, Effect, Fault, Machine, Pending, Purpose, Refusal, frame_text};
use crate::authorizer::{ConditionKeys, Decision, RouteArn};
use crate::event::wire::INTEGRATION_LATENCY;
use crate::event::{ConnectionId, RequestId, RouteKey, Stage};
use crate::quotas;

impl Machine {
    /// Handles a client's request for a connection (CON-1).
    ///
    /// The verdict is an [`Effect::Accept`] or an [`Effect::Refuse`].
    pub(super) fn upgrade(
        &mut self,
        now: SystemTime,
        stage: Stage,
        handshake: Handshake,
    ) -> (ConnectionId, Vec<Effect>) {
        let connection_id: ConnectionId = self.id();
        let request_id: RequestId = self.id();
        let trace_id = self.trace_id(now);
        let origin = Origin {
            api_id: self.api.api_id.clone(),
            stage,
            connection_id: connection_id.clone(),
            domain_name: handshake.header("host").unwrap_or_default().to_owned(),
            source_ip: handshake.source_ip,
            user_agent: handshake.header("user-agent").map(str::to_owned),
            connected_at: now,
        };
        let client = SocketAddr::new(handshake.source_ip, handshake.source_port);
        self.note(&connection_id, EntryKind::Handshake { stage: origin.stage.clone(), client });
        let pending = Pending { handshake, request_id, trace_id };
        let connection = Connection {
            origin,
            last_active_at: now,
            authorizer: None,
            pending: Some(pending),
            due: None,
            is_lost: false,
        };
        self.connections.insert(connection_id.clone(), connection);
        let effects = match self.api.authorizer.clone() {
            // LIM-5
            _ if self.is_draining => {
                self.refuse(&connection_id, 503, None, "Service Unavailable", "the gateway shuts down")
            }
            _ if !self.new_connections.take(now) => {
                let reason = "the rate of new connections is exhausted";
                self.refuse(&connection_id, 429, None, "Too Many Requests", reason)
            }
            Some(authorizer) => self.authorize(now, &connection_id, &authorizer),
            None => self.connect(now, &connection_id),
        };
        (connection_id, effects)
    }

    /// Calls the authorizer, unless the request lacks its identity sources (AUT-3).
    fn authorize(&mut self, now: SystemTime, id: &ConnectionId, authorizer: &Authorizer) -> Vec<Effect> {
        let Some((connection, pending)) = self.pending(id) else { return Vec::new() };
        let origin = &connection.origin;
        let variables = self.stage_variables(&origin.stage);
        let user_agent = origin.user_agent.as_deref().unwrap_or_default();
        // All other members are in every event, and never empty.
        let context = [("identity.userAgent".to_owned(), user_agent.to_owned())];
        let is_there = |source: &&IdentitySource| source.is_in(&pending.handshake, variables, &context);
        if let Some(missing) = authorizer.identity_sources.iter().find(|source| !is_there(source)) {
            let reason = format!("the request lacks the identity source {missing}, so the authorizer is not asked");
            return self.refuse(id, 401, None, "Unauthorized", reason);
        }
        let request_id = pending.request_id.clone();
        let parts = Parts { origin, request_id: &request_id, now, authorizer: None, stage_variables: variables };
        let payload = match self.connect_arn(origin) {
            Some(arn) => parts.authorize(&pending.handshake, &pending.trace_id, &arn),
            None => return self.refuse(id, 500, None, "Internal server error", "the route has no legal ARN"),
        };
        self.invoke(now, id, &request_id, Purpose::Authorize, authorizer.function, payload, quotas::INTEGRATION_TIMEOUT)
    }

    /// Calls `$connect`; without that route, every connection is accepted (CON-4).
    fn connect(&mut self, now: SystemTime, id: &ConnectionId) -> Vec<Effect> {
        let Some(integration) = self.api.routes.get(RouteKey::CONNECT).copied() else {
            return self.accept(now, id, None);
        };
        let Some((connection, pending)) = self.pending(id) else { return Vec::new() };
        let request_id = pending.request_id.clone();
        let parts = self.parts(connection, &request_id, now);
        let payload = parts.connect(&pending.handshake, &pending.trace_id);
        self.invoke(now, id, &request_id, Purpose::Connect, integration.function, payload, integration.timeout)
    }

    /// Accepts the connection, unless a fault delays it.
    pub(super) fn accept(&mut self, now: SystemTime, id: &ConnectionId, selected: Option<String>) -> Vec<Effect> {
        match self.strike(Occasion::Open, id.as_str()) {
            Some(Fault::OpenLate(delay)) => {
                self.later(now, delay, id, Late::Open { subprotocol: selected });
                Vec::new()
            }
            _ => self.open(now, id, selected),
        }
    }

    /// Opens the connection; only a subprotocol that the client offered is passed on (CON-5).
    pub(super) fn open(&mut self, now: SystemTime, id: &ConnectionId, selected: Option<String>) -> Vec<Effect> {
        let Some(connection) = self.connections.get_mut(id) else { return Vec::new() };
        let Some(pending) = connection.pending.take() else { return Vec::new() };
        let subprotocol =
            selected.filter(|selected| pending.handshake.subprotocols().any(|offered| offered == selected));
        // Only the event for `$connect` itself has the latency of the authorizer (EVT-14).
        if let Some(authorizer) = &mut connection.authorizer {
            authorizer.remove(INTEGRATION_LATENCY);
        }
        connection.last_active_at = now;
        self.schedule(id.clone());
        self.note(id, EntryKind::Opened { subprotocol: subprotocol.clone() });
        let mut effects = vec![Effect::Accept { connection: id.clone(), subprotocol }];
        effects.extend(self.open_with_faults(id));
        effects
    }

    /// Refuses the client (CON-8).
    ///
    /// A refused connection never existed, so `$disconnect` is not called (DIS-2).
    pub(super) fn refuse(
        &mut self,
        id: &ConnectionId,
        status: u16,
        error_type: Option<&'static str>,
        text: &str,
        reason: impl Into<Cow<'static, str>>,
    ) -> Vec<Effect> {
        let Some(pending) = self.connections.remove(id).and_then(|connection| connection.pending) else {
            return Vec::new();
        };
        self.note(id, EntryKind::Refused { status, reason: reason.into() });
        let body = frame_text(text, id, &pending.request_id);
        vec![Effect::Refuse { connection: id.clone(), refusal: Refusal { status, error_type, body } }]
    }

    /// Handles the response or the failure of the authorizer.
    pub(super) fn authorized(
        &mut self,
        now: SystemTime,
        id: &ConnectionId,
        started: SystemTime,
        answer: Result<Vec<u8>, FunctionError>,
    ) -> Vec<Effect> {
        let response = match answer {
            Ok(answer) => match proxy_response::authorization(&answer) {
                Ok(response) => response,
                // AUT-4, AUT-8
                Err((error_type, reason)) => {
                    let reason = format!("the authorizer's answer is not usable: {reason}");
                    return self.refuse(id, 500, error_type, "Internal server error", reason);
                }
            },
            // AUT-7
            Err(error) if error.message == "Unauthorized" => {
                return self.refuse(id, 401, None, "Unauthorized", "the authorizer said so");
            }
            Err(error) => {
                let reason = format!("the authorizer failed with {error}");
                return self.refuse(id, 500, None, "Internal server error", reason);
            }
        };
        let Some(arn) = self.connections.get(id).and_then(|connection| self.connect_arn(&connection.origin)) else {
            return Vec::new();
        };
        let Some((connection, pending)) = self.pending(id) else { return Vec::new() };
        // AUT-5, AUT-13
        let mut keys = ConditionKeys::new()
            .with_source_ip(connection.origin.source_ip)
            .with_time(now)
            .with_secure_transport(false);
        if let Some(user_agent) = &connection.origin.user_agent {
            keys = keys.with_user_agent(user_agent);
        }
        if let Some(referer) = pending.handshake.header("referer") {
            keys = keys.with_referer(referer);
        }
        match response.policy_document().evaluate_for(&arn, &keys) {
            Decision::Allow => {}
            Decision::Deny => {
                let text = "User is not authorized to access this resource with an explicit deny";
                return self.refuse(id, 403, None, text, "the authorizer's policy denies it");
            }
            Decision::ImplicitDeny => {
                let reason = format!("no statement of the authorizer's policy allows {arn}");
                return self.refuse(id, 403, None, "User is not authorized to access this resource", reason);
            }
        }
        let latency = now.duration_since(started).unwrap_or_default().as_millis();
        if let Some(connection) = self.connections.get_mut(id) {
            connection.authorizer = Some(proxy_response::downstream(&response, latency));
        }
        self.connect(now, id)
    }

    fn pending(&self, id: &ConnectionId) -> Option<(&Connection, &Pending)> {
        let connection = self.connections.get(id)?;
        Some((connection, connection.pending.as_ref()?))
    }

    fn connect_arn(&self, origin: &Origin) -> Option<RouteArn> {
        let (region, account) = (&self.api.region, Api::ACCOUNT);
        format!("arn:aws:execute-api:{region}:{account}:{}/{}/$connect", origin.api_id, origin.stage).parse().ok()
    }

    fn trace_id(&mut self, now: SystemTime) -> String {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let [high, low] = [self.random.next_u32(), self.random.next_u32()];
        format!("Root=1-{:08x}-{high:08x}{low:08x}{:08x}", seconds & 0xffff_ffff, self.random.next_u32())
    }
}
