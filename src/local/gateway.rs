//! The rules of API Gateway as a pure state machine.
//!
//! Inputs are what happens to the gateway: an upgrade, a frame, the answer of a function, a call of `@connections`, time
//! passing. Each returns the effects that the outside has to carry out. Time comes in as a value and randomness from a
//! seed, so a test can let two hours pass in no time and see the same ids twice.

mod calls;
mod faults;
mod handshake;
mod management;
mod throttle;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value};

use self::calls::Call;
pub(super) use self::calls::CallId;
use self::calls::Purpose;
pub use self::faults::{Fault, When};
use self::faults::{Faults, Late, Occasion};
pub(super) use self::management::{Delivery, gone, limit_exceeded};
use self::throttle::Bucket;
pub(super) use self::throttle::Rate;
use super::event::{Handshake, Origin, Parts};
use super::identity::IdentitySource;
use super::selection::RouteSelection;
use crate::event::{ApiId, ConnectionId, MessageId, Region, RequestId, RouteKey, Stage};

/// How an API is set up.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) api_id: ApiId,
    pub(super) region: Region,
    pub(super) stages: BTreeMap<Stage, Vec<(String, String)>>,
    pub(super) selection: RouteSelection,
    pub(super) routes: BTreeMap<RouteKey, Integration>,
    pub(super) authorizer: Option<Authorizer>,
    pub(super) idle_timeout: Duration,
    pub(super) lifetime: Duration,
    /// New connections.
    pub(super) connections: Option<Rate>,
    /// Messages and calls of `@connections` together.
    pub(super) requests: Option<Rate>,
}

impl Api {
    pub(super) const ACCOUNT: &'static str = "123456789012";
    pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
    pub(super) const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
    pub(super) const INTEGRATION_TIMEOUT: Duration = Duration::from_secs(29);
}

/// Which function a route calls, and whether the client gets its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integration {
    pub(super) function: FunctionId,
    pub(super) two_way: bool,
    pub(super) timeout: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct Authorizer {
    pub(super) function: FunctionId,
    pub(super) identity_sources: Vec<IdentitySource>,
}

/// The place of a function in the list of those that the outside can call.
pub(super) type FunctionId = usize;

/// What the outside has to do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Call a function; its answer comes back as [`Machine::answered`].
    Invoke {
        call: CallId,
        function: FunctionId,
        payload: Vec<u8>,
        timeout: Duration,
        /// Kill it after this time.
        killed_after: Option<Duration>,
    },
    /// Answer the upgrade with 101.
    Accept { connection: ConnectionId, subprotocol: Option<String> },
    /// Answer the upgrade with this instead.
    Refuse { connection: ConnectionId, refusal: Refusal },
    /// Send a text frame.
    Send { connection: ConnectionId, text: String },
    /// Send a close frame and let the socket go.
    Close { connection: ConnectionId, code: u16, reason: &'static str },
    /// Send nothing until told otherwise.
    Hold { connection: ConnectionId, held: bool },
}

/// An HTTP answer that says no.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error_type: Option<&'static str>,
    pub(super) body: String,
}

#[derive(Debug)]
struct Connection {
    origin: Origin,
    last_active_at: SystemTime,
    authorizer: Option<Map<String, Value>>,
    // There until `$connect` has been answered.
    pending: Option<Pending>,
    // Where it stands among what is due, once it is open.
    due: Option<SystemTime>,
}

#[derive(Debug)]
struct Pending {
    handshake: Handshake,
    request_id: RequestId,
    trace_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Call(CallId),
    Connection(ConnectionId),
    Late(u64),
}

pub(super) struct Machine {
    api: Api,
    random: StdRng,
    connections: HashMap<ConnectionId, Connection>,
    calls: HashMap<CallId, Call>,
    next_call: u64,
    due: BTreeSet<(SystemTime, Due)>,
    new_connections: Bucket,
    requests: Bucket,
    faults: Faults,
    late: HashMap<u64, (ConnectionId, Late)>,
    next_late: u64,
}

impl Machine {
    pub(super) fn new(api: Api, seed: u64) -> Self {
        Self {
            new_connections: Bucket::new(api.connections),
            requests: Bucket::new(api.requests),
            api,
            random: StdRng::seed_from_u64(seed),
            connections: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            due: BTreeSet::new(),
            faults: Faults::new(seed),
            late: HashMap::new(),
            next_late: 0,
        }
    }

    pub(super) fn has_stage(&self, stage: &str) -> bool {
        self.api.stages.keys().any(|known| known == stage)
    }

    /// When [`tick`](Self::tick) next has something to do.
    pub(super) fn next_due(&self) -> Option<SystemTime> {
        self.due.first().map(|(time, _)| *time)
    }

    /// The connections that are open.
    pub(super) fn open_connections(&self) -> Vec<ConnectionId> {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.pending.is_none())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// A client sent a text message.
    pub(super) fn message(&mut self, now: SystemTime, id: &ConnectionId, body: &str) -> Vec<Effect> {
        if self.is_half_open(id) || !self.touch(now, id) {
            return Vec::new();
        }
        let request_id: RequestId = self.id();
        let message_id: MessageId = self.id();
        if !self.requests.take(now) {
            // LIM-5; how AWS tells the client is not known.
            return self.say(now, id, "Too Many Requests", &request_id);
        }
        let Some((route_key, integration)) = self.select(body) else {
            // RTE-4
            return self.say(now, id, "Forbidden", &request_id);
        };
        let Some(connection) = self.connections.get(id) else { return Vec::new() };
        let payload = self.parts(connection, &request_id, now).message(&route_key, &message_id, body);
        let purpose = Purpose::Message { two_way: integration.two_way };
        self.invoke(now, id, &request_id, purpose, integration.function, payload, integration.timeout)
    }

    /// RTE-3 and RTE-5: an exact match of a custom key, else `$default`.
    fn select(&self, body: &str) -> Option<(String, Integration)> {
        let custom = self.api.selection.select(body).filter(|key| !key.starts_with('$'));
        custom.and_then(|key| self.api.routes.get(key.as_str()).map(|integration| (key, *integration))).or_else(|| {
            self.api.routes.get(RouteKey::DEFAULT).map(|integration| (RouteKey::DEFAULT.to_owned(), *integration))
        })
    }

    /// The client broke a rule of the gateway: it is closed with this code (LIM-1, LIM-2).
    pub(super) fn violation(
        &mut self,
        now: SystemTime,
        id: &ConnectionId,
        code: u16,
        reason: &'static str,
    ) -> Vec<Effect> {
        match self.is_half_open(id) {
            true => Vec::new(),
            false => self.close(now, id, code, reason),
        }
    }

    /// The socket is closed from the client's side, or lost (EVT-15).
    pub(super) fn closed(&mut self, now: SystemTime, id: &ConnectionId, code: u16, reason: &str) -> Vec<Effect> {
        match self.is_half_open(id) {
            true => Vec::new(),
            false => self.remove(now, id, code, reason),
        }
    }

    fn remove(&mut self, now: SystemTime, id: &ConnectionId, code: u16, reason: &str) -> Vec<Effect> {
        let Some(connection) = self.connections.remove(id) else { return Vec::new() };
        if let Some(due) = connection.due {
            self.due.remove(&(due, Due::Connection(id.clone())));
        }
        let fault = self.faults.strike(Occasion::Disconnect, id.as_str());
        self.faults.forget(id);
        let Some(Integration { function, timeout, .. }) = self.api.routes.get(RouteKey::DISCONNECT).copied() else {
            return Vec::new();
        };
        let request_id: RequestId = self.id();
        let payload = self.parts(&connection, &request_id, now).disconnect(code, reason);
        match fault {
            // DIS-1
            Some(Fault::DisconnectLost) => Vec::new(),
            Some(Fault::DisconnectLate(delay)) => {
                self.later(now, delay, id, Late::Disconnect { request_id, function, payload, timeout });
                Vec::new()
            }
            _ => self.invoke(now, id, &request_id, Purpose::Disconnect, function, payload, timeout),
        }
    }

    /// The client left during the handshake. Until `$connect` has answered there is nothing to close: its verdict will
    /// find nobody.
    pub(super) fn never_opened(&mut self, now: SystemTime, id: &ConnectionId) -> Vec<Effect> {
        match self.connections.get(id) {
            Some(connection) if connection.pending.is_none() => self.close(now, id, 1006, ""),
            _ => Vec::new(),
        }
    }

    /// The gateway closes a connection.
    fn close(&mut self, now: SystemTime, id: &ConnectionId, code: u16, reason: &'static str) -> Vec<Effect> {
        if !self.connections.contains_key(id) {
            return Vec::new();
        }
        let mut effects = vec![Effect::Close { connection: id.clone(), code, reason }];
        effects.extend(self.remove(now, id, code, reason));
        effects
    }

    /// Closes every open connection, as a gateway that goes away.
    pub(super) fn close_all(&mut self, now: SystemTime) -> Vec<Effect> {
        let open = self.open_connections();
        open.iter().flat_map(|id| self.close(now, id, 1001, "Going away")).collect()
    }

    /// Time passes: calls run out of time, connections grow idle or old.
    pub(super) fn tick(&mut self, now: SystemTime) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.next_due().is_some_and(|time| time <= now) {
            match self.due.pop_first() {
                Some((_, Due::Call(call))) => effects.extend(self.timed_out(now, call)),
                Some((_, Due::Connection(id))) => effects.extend(self.expired(now, id)),
                Some((_, Due::Late(number))) => effects.extend(self.at_last(now, number)),
                None => break,
            }
        }
        effects
    }

    /// LIM-3: ten idle minutes, or two hours.
    fn expired(&mut self, now: SystemTime, id: ConnectionId) -> Vec<Effect> {
        let Some(connection) = self.connections.get(&id) else { return Vec::new() };
        if connection_due(&self.api, connection) <= now {
            return self.close(now, &id, 1001, "Going away");
        }
        self.schedule(id);
        Vec::new()
    }

    /// Notes when an open connection will be idle for too long, or too old, unless something happens.
    fn schedule(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let due = connection_due(&self.api, connection);
        connection.due = Some(due);
        self.due.insert((due, Due::Connection(id)));
    }

    /// Tells a client something in the gateway's own words.
    fn say(&mut self, now: SystemTime, id: &ConnectionId, message: &str, request_id: &RequestId) -> Vec<Effect> {
        self.send(now, id, frame_text(message, id, request_id)).into_iter().collect()
    }

    /// A data frame in either direction starts the idle time anew. Whether the connection is open.
    fn touch(&mut self, now: SystemTime, id: &ConnectionId) -> bool {
        match self.connections.get_mut(id).filter(|connection| connection.pending.is_none()) {
            Some(connection) => {
                connection.last_active_at = now;
                true
            }
            None => false,
        }
    }

    fn parts<'a>(&'a self, connection: &'a Connection, request_id: &'a RequestId, now: SystemTime) -> Parts<'a> {
        Parts {
            origin: &connection.origin,
            request_id,
            now,
            authorizer: connection.authorizer.as_ref(),
            stage_variables: self.stage_variables(&connection.origin.stage),
        }
    }

    fn stage_variables(&self, stage: &Stage) -> &[(String, String)] {
        self.api.stages.get(stage).map_or(&[], Vec::as_slice)
    }

    /// EVT-12: URL-safe base64 of 11 bytes. Every such text is a legal identifier.
    fn id<T: std::str::FromStr>(&mut self) -> T {
        loop {
            let mut bytes = [0_u8; 11];
            self.random.fill_bytes(&mut bytes);
            if let Ok(id) = URL_SAFE.encode(bytes).parse() {
                return id;
            }
        }
    }
}

fn connection_due(api: &Api, connection: &Connection) -> SystemTime {
    let idle = connection.last_active_at.checked_add(api.idle_timeout);
    let old = connection.origin.connected_at.checked_add(api.lifetime);
    match (idle, old) {
        (Some(idle), Some(old)) => idle.min(old),
        (one, other) => one.or(other).unwrap_or(connection.last_active_at),
    }
}

/// The gateway's own messages, with exactly this spacing (RTE-4).
fn frame_text(message: &str, connection: &ConnectionId, request_id: &RequestId) -> String {
    format!(r#"{{"message": "{message}", "connectionId":"{connection}", "requestId":"{request_id}"}}"#)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has failed, which is all it can do"
)]
mod tests;
