//! What goes wrong because a test wants it to.

use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Due, Effect, FunctionId, Machine, Purpose, Refusal};
use crate::event::{ConnectionId, RequestId};

/// Something that goes wrong on AWS now and then, and here when a test wants it to.
///
/// [`Gateway::inject`](super::super::Gateway::inject) says when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A push is answered with 410, as if the connection were gone.
    PostGone,
    /// A push is answered with 429 and `LimitExceededException`.
    PostThrottled,
    /// A push is answered with 500.
    PostFailed,
    /// A push is not answered, and does not arrive.
    PostUnanswered,
    /// A push arrives and is not answered: who tries again sends it twice.
    PostAnswerLost,
    /// `$disconnect` is never called.
    DisconnectLost,
    /// `$disconnect` is called so much later.
    DisconnectLate(Duration),
    /// A connection opens so much later than `$connect` has let it in; until then a push is answered with 410.
    OpenLate(Duration),
    /// The client is gone, and the gateway does not notice: pushes are answered with 200 and do not arrive, until the
    /// connection has been idle for too long.
    HalfOpen,
    /// The client takes nothing: after 256 texts that wait for it, pushes are answered with 429. They arrive when the
    /// faults are [cleared](super::super::Gateway::clear_faults).
    SlowConsumer,
    /// A text arrives later, by a random time up to this one: texts overtake each other.
    TextLate(Duration),
    /// An invocation is killed after this time, or as it answers when that is sooner: its answer is lost. A
    /// [process](super::super::Process) dies and is started again.
    FunctionKilled(Duration),
}

/// When a [`Fault`] happens.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum When {
    /// The next so many times that it can.
    Next(usize),
    /// Each time that it can, with this probability from 0 to 1. The same [seed](super::super::Builder::seed) and the same
    /// order of events make the same choices.
    Sometimes(f64),
    /// Each time that it can, on this connection.
    On(ConnectionId),
}

/// What a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    Post,
    Disconnect,
    Open,
    /// The state of a connection, which it has from its opening or from when the fault came.
    State,
    Text,
    Invocation,
}

impl Fault {
    fn occasion(self) -> Occasion {
        match self {
            Self::PostGone | Self::PostThrottled | Self::PostFailed | Self::PostUnanswered | Self::PostAnswerLost => {
                Occasion::Post
            }
            Self::DisconnectLost | Self::DisconnectLate(_) => Occasion::Disconnect,
            Self::OpenLate(_) => Occasion::Open,
            Self::HalfOpen | Self::SlowConsumer => Occasion::State,
            Self::TextLate(_) => Occasion::Text,
            Self::FunctionKilled(_) => Occasion::Invocation,
        }
    }
}

/// The faults that can happen now.
pub(super) struct Faults {
    pub(super) active: Vec<(Fault, When)>,
    // One of its own, so that faults do not change the ids.
    random: StdRng,
}

/// Something that happens later because of a fault.
pub(super) enum Late {
    Open { subprotocol: Option<String> },
    Text(String),
    Disconnect { request_id: RequestId, function: FunctionId, payload: Vec<u8>, timeout: Duration },
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { active: Vec::new(), random: StdRng::seed_from_u64(!seed) }
    }

    /// The fault that strikes now, where one does.
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

    /// Forgets a connection that is no more.
    pub(super) fn forget(&mut self, id: &ConnectionId) {
        self.active.retain(|(_, when)| !matches!(when, When::On(on) if on == id));
    }
}

impl Machine {
    /// From now on this fault happens.
    pub(crate) fn inject(&mut self, fault: Fault, when: When) -> Vec<Effect> {
        let effects = match (fault, &when) {
            (Fault::SlowConsumer, When::On(id)) => vec![Effect::Hold { connection: id.clone(), held: true }],
            _ => Vec::new(),
        };
        if when != When::Next(0) {
            self.faults.active.push((fault, when));
        }
        effects
    }

    /// Nothing goes wrong any more. What was late stays late.
    pub(crate) fn clear_faults(&mut self) -> Vec<Effect> {
        let held = |(fault, when): (Fault, When)| match (fault, when) {
            (Fault::SlowConsumer, When::On(connection)) => Some(Effect::Hold { connection, held: false }),
            _ => None,
        };
        self.faults.active.drain(..).filter_map(held).collect()
    }

    /// The faults that a connection has from its opening on.
    pub(super) fn open_with_faults(&mut self, id: &ConnectionId) -> Vec<Effect> {
        match self.faults.strike(Occasion::State, id.as_str()) {
            Some(fault) if !self.faults.is(fault, id) => self.inject(fault, When::On(id.clone())),
            _ => Vec::new(),
        }
    }

    pub(super) fn is_half_open(&self, id: &ConnectionId) -> bool {
        self.faults.is(Fault::HalfOpen, id)
    }

    /// Sends a text to an open connection, unless a fault holds it up.
    pub(super) fn send(&mut self, now: SystemTime, id: &ConnectionId, text: String) -> Option<Effect> {
        if self.is_half_open(id) {
            return None;
        }
        match self.faults.strike(Occasion::Text, id.as_str()) {
            Some(Fault::TextLate(longest)) => {
                let delay = longest.mul_f64(self.faults.random.random::<f64>());
                self.later(now, delay, id, Late::Text(text));
                None
            }
            _ => Some(Effect::Send { connection: id.clone(), text }),
        }
    }

    pub(super) fn later(&mut self, now: SystemTime, delay: Duration, id: &ConnectionId, late: Late) {
        let number = self.next_late;
        self.next_late = number.wrapping_add(1);
        self.late.insert(number, (id.clone(), late));
        self.due.insert((now.checked_add(delay).unwrap_or(now), Due::Late(number)));
    }

    /// What was late happens.
    pub(super) fn at_last(&mut self, now: SystemTime, number: u64) -> Vec<Effect> {
        match self.late.remove(&number) {
            Some((id, Late::Open { subprotocol })) => self.open(now, &id, subprotocol),
            Some((connection, Late::Text(text))) => vec![Effect::Send { connection, text }],
            Some((id, Late::Disconnect { request_id, function, payload, timeout })) => {
                self.invoke(now, &id, &request_id, Purpose::Disconnect, function, payload, timeout)
            }
            None => Vec::new(),
        }
    }
}

/// The answers of AWS when it is the one that fails.
pub(super) fn failure() -> Refusal {
    Refusal { status: 500, error_type: None, body: r#"{"message":"Internal server error"}"#.to_owned() }
}
