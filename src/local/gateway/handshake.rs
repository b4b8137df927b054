//! How a connection comes about: authorizer, `$connect`, verdict.

use std::time::SystemTime;

use rand::Rng as _;

use super::super::answer;
use super::super::event::{Handshake, Origin, Parts};
use super::super::function::FunctionError;
use super::super::identity::IdentitySource;
use super::faults::{Late, Occasion};
use super::{Api, Authorizer, Connection, Effect, Fault, Machine, Pending, Purpose, Refusal, frame_text};
use crate::authorizer::{Decision, RouteArn};
use crate::event::wire::INTEGRATION_LATENCY;
use crate::event::{ConnectionId, RequestId, RouteKey, Stage};

impl Machine {
    /// A client asks for a connection. The verdict comes as [`Effect::Accept`] or [`Effect::Refuse`] (CON-1).
    pub(crate) fn upgrade(
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
        let pending = Pending { handshake, request_id, trace_id };
        let connection =
            Connection { origin, last_active_at: now, authorizer: None, pending: Some(pending), due: None };
        self.connections.insert(connection_id.clone(), connection);
        let effects = match self.api.authorizer.clone() {
            // LIM-5
            _ if !self.new_connections.take(now) => self.refuse(&connection_id, 429, None, "Too Many Requests"),
            Some(authorizer) => self.authorize(now, &connection_id, &authorizer),
            None => self.connect(now, &connection_id),
        };
        (connection_id, effects)
    }

    /// AUT-3: without its identity sources a request is refused before the authorizer is asked.
    fn authorize(&mut self, now: SystemTime, id: &ConnectionId, authorizer: &Authorizer) -> Vec<Effect> {
        let Some((connection, pending)) = self.pending(id) else { return Vec::new() };
        let origin = &connection.origin;
        let variables = self.stage_variables(&origin.stage);
        let context = [
            ("identity.sourceIp", origin.source_ip.to_string()),
            ("identity.userAgent", origin.user_agent.clone().unwrap_or_default()),
            ("domainName", origin.domain_name.clone()),
            ("stage", origin.stage.to_string()),
            ("apiId", origin.api_id.to_string()),
            ("connectionId", id.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let is_there = |source: &IdentitySource| source.is_in(&pending.handshake, variables, &context);
        if !authorizer.identity_sources.iter().all(is_there) {
            return self.refuse(id, 401, None, "Unauthorized");
        }
        let request_id = pending.request_id.clone();
        let parts = Parts { origin, request_id: &request_id, now, authorizer: None, stage_variables: variables };
        let payload = match self.connect_arn(origin) {
            Some(arn) => parts.authorize(&pending.handshake, &pending.trace_id, &arn),
            None => return self.refuse(id, 500, None, "Internal server error"),
        };
        self.invoke(now, id, &request_id, Purpose::Authorize, authorizer.function, payload, Api::INTEGRATION_TIMEOUT)
    }

    /// CON-4: without a `$connect` route every connection is accepted.
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

    /// The verdict is positive.
    pub(super) fn accept(&mut self, now: SystemTime, id: &ConnectionId, selected: Option<String>) -> Vec<Effect> {
        match self.faults.strike(Occasion::Open, id.as_str()) {
            Some(Fault::OpenLate(delay)) => {
                self.later(now, delay, id, Late::Open { subprotocol: selected });
                Vec::new()
            }
            _ => self.open(now, id, selected),
        }
    }

    /// CON-5: only a subprotocol that the client offered is passed on.
    pub(super) fn open(&mut self, now: SystemTime, id: &ConnectionId, selected: Option<String>) -> Vec<Effect> {
        let Some(connection) = self.connections.get_mut(id) else { return Vec::new() };
        let Some(pending) = connection.pending.take() else { return Vec::new() };
        let subprotocol =
            selected.filter(|selected| pending.handshake.subprotocols().any(|offered| offered == selected));
        // Only the event for `$connect` itself tells how long the authorizer took (EVT-14).
        if let Some(authorizer) = &mut connection.authorizer {
            authorizer.remove(INTEGRATION_LATENCY);
        }
        connection.last_active_at = now;
        self.schedule(id.clone());
        let mut effects = vec![Effect::Accept { connection: id.clone(), subprotocol }];
        effects.extend(self.open_with_faults(id));
        effects
    }

    /// CON-8, and DIS-2: a refused connection never was, so `$disconnect` is not called.
    pub(super) fn refuse(
        &mut self,
        id: &ConnectionId,
        status: u16,
        error_type: Option<&'static str>,
        text: &str,
    ) -> Vec<Effect> {
        let Some(pending) = self.connections.remove(id).and_then(|connection| connection.pending) else {
            return Vec::new();
        };
        let body = frame_text(text, id, &pending.request_id);
        vec![Effect::Refuse { connection: id.clone(), refusal: Refusal { status, error_type, body } }]
    }

    /// The authorizer answered, or failed.
    pub(super) fn authorized(
        &mut self,
        now: SystemTime,
        id: &ConnectionId,
        started: SystemTime,
        answer: Result<Vec<u8>, FunctionError>,
    ) -> Vec<Effect> {
        let response = match answer {
            Ok(answer) => match answer::authorization(&answer) {
                Ok(response) => response,
                // AUT-4, AUT-8
                Err(error_type) => return self.refuse(id, 500, error_type, "Internal server error"),
            },
            // AUT-7
            Err(error) if error.message == "Unauthorized" => return self.refuse(id, 401, None, "Unauthorized"),
            Err(_) => return self.refuse(id, 500, None, "Internal server error"),
        };
        let Some(arn) = self.connections.get(id).and_then(|connection| self.connect_arn(&connection.origin)) else {
            return Vec::new();
        };
        // AUT-5
        match response.policy_document().evaluate(&arn) {
            Decision::Allow => {}
            Decision::Deny => {
                return self.refuse(
                    id,
                    403,
                    None,
                    "User is not authorized to access this resource with an explicit deny",
                );
            }
            Decision::ImplicitDeny => {
                return self.refuse(id, 403, None, "User is not authorized to access this resource");
            }
        }
        let latency = now.duration_since(started).unwrap_or_default().as_millis();
        if let Some(connection) = self.connections.get_mut(id) {
            connection.authorizer = Some(answer::downstream(&response, latency));
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
