//! The rules of API Gateway as a pure state machine.
//!
//! Every input of the gateway goes through [`Machine::apply`]: an upgrade, a frame, the response of
//! a function, a call of `@connections`, the passing of time. It returns the reply, the effects
//! that the server has to carry out, and records that say why. Time is a parameter and randomness
//! comes from a seed, so a test can skip two hours and get the same ids twice.

mod calls;
mod connection;
mod faults;
mod handshake;
mod input;
mod management;
mod messages;
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
use self::faults::{Faults, Late};
pub(super) use self::input::{Input, Managed, Output, Reply};
pub(super) use self::management::{gone, limit_exceeded, too_large};
use self::throttle::Bucket;
pub(super) use self::throttle::Rate;
use super::identity::IdentitySource;
use super::payload::{Handshake, Origin, Parts};
use super::selection::RouteSelection;
use super::timeline::EntryKind;
use crate::event::{ApiId, ConnectionId, Region, RequestId, RouteKey, Stage};

/// The configuration of an API.
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
    /// The limit on new connections.
    pub(super) connections: Option<Rate>,
    /// The shared limit on messages and calls of `@connections`.
    pub(super) requests: Option<Rate>,
    /// The maximum number of concurrent invocations.
    pub(super) concurrency: usize,
    /// The maximum number of concurrent invocations of single functions.
    pub(super) function_concurrency: BTreeMap<FunctionId, usize>,
    /// Whether functions start in an order that the seed chooses.
    pub(super) is_interleaved: bool,
}

impl Api {
    pub(super) const ACCOUNT: &'static str = "123456789012";
}

/// The function that a route calls, and whether the client gets its response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integration {
    pub(super) function: FunctionId,
    pub(super) has_route_response: bool,
    pub(super) timeout: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct Authorizer {
    pub(super) function: FunctionId,
    pub(super) identity_sources: Vec<IdentitySource>,
}

/// The index of a function in the server's list.
pub(super) type FunctionId = usize;

/// An action that the server has to carry out.
#[derive(Debug)]
pub(super) enum Effect {
    /// Call a function; its response always comes back as one [`Input::Answered`].
    Invoke {
        call: CallId,
        /// The request id, which Lambda assigns to an invocation.
        request_id: String,
        function: FunctionId,
        payload: Vec<u8>,
        timeout: Duration,
        /// Kill the invocation after this time.
        killed_after: Option<Duration>,
        /// Call the function only after this time.
        starts_after: Option<Duration>,
        /// Yield to other tasks this many times first, and do not call the function inline.
        yields: Option<u8>,
    },
    /// Respond to the upgrade with 101.
    Accept { connection: ConnectionId, subprotocol: Option<String> },
    /// Respond to the upgrade with this refusal.
    Refuse { connection: ConnectionId, refusal: Refusal },
    /// Send a text frame.
    Send { connection: ConnectionId, text: String },
    /// Send a text frame that was pushed; if its socket cannot take it, the reply says so.
    Push { connection: ConnectionId, text: String },
    /// Send a close frame and release the socket.
    Close { connection: ConnectionId, code: u16, reason: &'static str },
    /// Hold frames back until they are released.
    Hold { connection: ConnectionId, held: bool },
}

/// An HTTP response that refuses a request.
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
    // Present until `$connect` has responded.
    pending: Option<Pending>,
    // When it is due next, once it is open.
    due: Option<SystemTime>,
    // Whether its socket has ended while a fault keeps the gateway from noticing.
    is_lost: bool,
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

/// The state machine of the gateway.
///
/// Invariants: every call has an entry in `due` until it is late, and every open connection has
/// one; `running` counts the calls by function, including late ones; a connection is pending or
/// open, and is removed when it is neither.
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
    running: HashMap<FunctionId, usize>,
    is_draining: bool,
    notes: Vec<(Option<ConnectionId>, EntryKind)>,
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
            running: HashMap::new(),
            is_draining: false,
            notes: Vec::new(),
        }
    }

    pub(super) fn has_stage(&self, stage: &str) -> bool {
        self.api.stages.keys().any(|known| known == stage)
    }

    /// Returns the function of a route.
    pub(super) fn function(&self, route_key: &str) -> Option<FunctionId> {
        self.api.routes.get(route_key).map(|integration| integration.function)
    }

    /// Returns the function of the authorizer.
    pub(super) fn authorizer(&self) -> Option<FunctionId> {
        self.api.authorizer.as_ref().map(|authorizer| authorizer.function)
    }

    /// Returns when [`Input::Tick`] next has something to do.
    pub(super) fn next_due(&self) -> Option<SystemTime> {
        self.due.first().map(|(time, _)| *time)
    }

    fn note(&mut self, id: &ConnectionId, what: EntryKind) {
        self.notes.push((Some(id.clone()), what));
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

    /// Generates an id (EVT-12): URL-safe base64 of 11 bytes.
    ///
    /// Every such string is a legal identifier.
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

/// Returns a message of the gateway itself, with exactly this spacing (RTE-4).
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
