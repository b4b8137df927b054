//! Faults that a test injects.

use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::timeline::{Body, EntryKind, Origin};
use super::{Due, Effect, FunctionId, Machine, Purpose, Refusal};
use crate::event::{ConnectionId, RequestId};

/// A failure that occurs on AWS, injected on demand.
///
/// See [`Gateway::inject`](super::super::Gateway::inject).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A push fails with 410, as if the connection were stale.
    PostGone,
    /// A push fails with 429 and `LimitExceededException`.
    PostThrottled,
    /// A push fails with 500.
    PostFailed,
    /// A push gets no response and is not delivered.
    PostUnanswered,
    /// A push is delivered but gets no response: a retry delivers it twice.
    PostAnswerLost,
    /// A push is delivered twice, with one response.
    PostDuplicated,
    /// `GetConnection` fails with 410.
    GetGone,
    /// `GetConnection` fails with 429.
    GetThrottled,
    /// `GetConnection` fails with 500.
    GetFailed,
    /// `GetConnection` gets no response.
    GetUnanswered,
    /// `DeleteConnection` fails with 410, and does not close the connection.
    DeleteGone,
    /// `DeleteConnection` fails with 429.
    DeleteThrottled,
    /// `DeleteConnection` fails with 500.
    DeleteFailed,
    /// `DeleteConnection` gets no response, and does not close the connection.
    DeleteUnanswered,
    /// `DeleteConnection` closes the connection, but gets no response.
    DeleteAnswerLost,
    /// `$disconnect` is never called.
    DisconnectLost,
    /// `$disconnect` is called this much later.
    DisconnectLate(Duration),
    /// A connection opens this much later than `$connect` accepts it.
    ///
    /// Until then, pushes fail with 410.
    OpenLate(Duration),
    /// The client has disconnected without the gateway noticing.
    ///
    /// Pushes succeed with 200 but are not delivered, until the connection has been idle for too
    /// long.
    HalfOpen,
    /// The client reads nothing: once 256 messages wait for it, pushes fail with 429.
    ///
    /// The messages are delivered when the faults are
    /// [cleared](super::super::Gateway::clear_faults).
    SlowConsumer,
    /// A message is sent later, by a random time up to this one.
    ///
    /// Messages overtake each other.
    TextLate(Duration),
    /// An invocation is killed after this time, or when it responds if that is sooner.
    ///
    /// Its response is lost. A [process](super::super::Process) dies and is started again.
    FunctionKilled(Duration),
    /// An invocation is throttled, as if no concurrency were left.
    FunctionThrottled,
    /// An invocation starts only after this time, like a cold start.
    ColdStart(Duration),
    /// A client's message reaches its route later, by a random time up to this one.
    ///
    /// Messages overtake each other.
    MessageLate(Duration),
}

/// When a [`Fault`] occurs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum When {
    /// The next *n* opportunities.
    Next(usize),
    /// Each opportunity, with this probability from 0 to 1.
    ///
    /// The same [seed](super::super::GatewayBuilder::seed) and the same order of events make the same
    /// choices.
    Sometimes(f64),
    /// Each opportunity on this connection.
    On(ConnectionId),
}

/// The operation that a fault affects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    Post,
    Get,
    Delete,
    Message,
    Disconnect,
    Open,
    /// The state of a connection, from its opening or from the injection of the fault.
    State,
    Text,
    Invocation,
}

impl Fault {
    fn occasion(self) -> Occasion {
        match self {
            Self::PostGone
            | Self::PostThrottled
            | Self::PostFailed
            | Self::PostUnanswered
            | Self::PostAnswerLost
            | Self::PostDuplicated => Occasion::Post,
            Self::GetGone | Self::GetThrottled | Self::GetFailed | Self::GetUnanswered => Occasion::Get,
            Self::DeleteGone
            | Self::DeleteThrottled
            | Self::DeleteFailed
            | Self::DeleteUnanswered
            | Self::DeleteAnswerLost => Occasion::Delete,
            Self::MessageLate(_) => Occasion::Message,
            Self::DisconnectLost | Self::DisconnectLate(_) => Occasion::Disconnect,
            Self::OpenLate(_) => Occasion::Open,
            Self::HalfOpen | Self::SlowConsumer => Occasion::State,
            Self::TextLate(_) => Occasion::Text,
            Self::FunctionKilled(_) | Self::FunctionThrottled | Self::ColdStart(_) => Occasion::Invocation,
        }
    }
}

/// The active faults.
pub(super) struct Faults {
    pub(super) active: Vec<(Fault, When)>,
    // A separate generator, so that faults do not change the ids.
    random: StdRng,
}

/// An action that a fault delays.
pub(super) enum Late {
    Open { subprotocol: Option<String> },
    Text(String, Origin),
    Message(String),
    Disconnect { request_id: RequestId, function: FunctionId, payload: Vec<u8>, timeout: Duration },
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { active: Vec::new(), random: StdRng::seed_from_u64(!seed) }
    }

    /// Returns the fault that occurs now, if any.
    pub(super) fn strike(&mut self, occasion: Occasion, id: &str) -> Option<Fault> {
        let random = &mut self.random;
        let struck = self.active.iter_mut().position(|(fault, when)| {
            fault.occasion() == occasion
                && match when {
                    When::Next(times) => *times > 0,
                    When::Sometimes(probability) => random.random::<f64>() < *probability,
                    When::On(connection) => *connection == *id,
                }
        })?;
        let (fault, when) = self.active.get_mut(struck)?;
        let fault = *fault;
        if let When::Next(times) = when {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.active.remove(struck);
            }
        }
        Some(fault)
    }

    fn is(&self, fault: Fault, id: &ConnectionId) -> bool {
        self.active.iter().any(|(active, when)| *active == fault && matches!(when, When::On(on) if on == id))
    }

    /// Forgets a connection that has ended.
    pub(super) fn forget(&mut self, id: &ConnectionId) {
        self.active.retain(|(_, when)| !matches!(when, When::On(on) if on == id));
    }
}

impl Machine {
    /// Activates a fault.
    pub(super) fn inject(&mut self, fault: Fault, when: When) -> Vec<Effect> {
        let effects = match (fault, &when) {
            (Fault::SlowConsumer, When::On(id)) => vec![Effect::Hold { connection: id.clone(), held: true }],
            _ => Vec::new(),
        };
        if when != When::Next(0) {
            self.faults.active.push((fault, when));
        }
        effects
    }

    /// Returns and records the fault that occurs now, if any.
    pub(super) fn strike(&mut self, occasion: Occasion, id: &str) -> Option<Fault> {
        let fault = self.faults.strike(occasion, id)?;
        self.notes.push((ConnectionId::new(id).ok(), EntryKind::Fault { fault }));
        Some(fault)
    }

    /// Removes all faults.
    ///
    /// Delayed actions stay delayed. A socket that has ended unnoticed is noticed now.
    pub(super) fn clear_faults(&mut self, now: SystemTime) -> Vec<Effect> {
        let held = |(fault, when): (Fault, When)| match (fault, when) {
            (Fault::SlowConsumer, When::On(connection)) => Some(Effect::Hold { connection, held: false }),
            _ => None,
        };
        let mut effects: Vec<Effect> = self.faults.active.drain(..).filter_map(held).collect();
        let mut lost: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, connection)| connection.is_lost).map(|(id, _)| id.clone()).collect();
        lost.sort_unstable();
        for id in lost {
            effects.extend(self.remove(now, &id, 1006, "", false));
        }
        effects
    }

    /// Applies the faults that a connection has from its opening.
    pub(super) fn open_with_faults(&mut self, id: &ConnectionId) -> Vec<Effect> {
        match self.strike(Occasion::State, id.as_str()) {
            Some(fault) if !self.faults.is(fault, id) => self.inject(fault, When::On(id.clone())),
            _ => Vec::new(),
        }
    }

    pub(super) fn is_half_open(&self, id: &ConnectionId) -> bool {
        self.faults.is(Fault::HalfOpen, id)
    }

    /// Sends a message to an open connection, unless a fault holds it back.
    pub(super) fn send(&mut self, now: SystemTime, id: &ConnectionId, text: String, origin: Origin) -> Option<Effect> {
        if self.is_half_open(id) {
            self.note(id, EntryKind::Dropped { reason: "the client is gone, and nobody has noticed".into() });
            return None;
        }
        match self.strike(Occasion::Text, id.as_str()) {
            Some(Fault::TextLate(longest)) => {
                let delay = self.random_delay(longest);
                self.later(now, delay, id, Late::Text(text, origin));
                None
            }
            _ => Some(self.sent(id, text, origin)),
        }
    }

    fn sent(&mut self, id: &ConnectionId, text: String, origin: Origin) -> Effect {
        self.note(id, EntryKind::Sent { text: Body::new(&text), origin });
        Effect::Send { connection: id.clone(), text }
    }

    pub(super) fn random_delay(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.faults.random.random::<f64>())
    }

    pub(super) fn later(&mut self, now: SystemTime, delay: Duration, id: &ConnectionId, late: Late) {
        let number = self.next_late;
        self.next_late = number.wrapping_add(1);
        self.late.insert(number, (id.clone(), late));
        self.due.insert((now.checked_add(delay).unwrap_or(now), Due::Late(number)));
    }

    /// Carries out a delayed action.
    pub(super) fn at_last(&mut self, now: SystemTime, number: u64) -> Vec<Effect> {
        match self.late.remove(&number) {
            Some((id, Late::Open { subprotocol })) => self.open(now, &id, subprotocol),
            Some((id, Late::Text(text, origin))) if self.is_open(&id) => vec![self.sent(&id, text, origin)],
            Some((id, Late::Message(text))) => self.routed(now, &id, &text),
            Some((id, Late::Disconnect { request_id, function, payload, timeout })) => {
                self.invoke(now, &id, &request_id, Purpose::Disconnect, function, payload, timeout)
            }
            Some((_, Late::Text(..))) | None => Vec::new(),
        }
    }
}

/// Returns the response of AWS when it fails itself.
pub(super) fn failure() -> Refusal {
    Refusal { status: 500, error_type: None, body: r#"{"message":"Internal server error"}"#.to_owned() }
}
