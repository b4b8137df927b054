//! Calls of functions: how they start, and what their answers mean.

use std::time::{Duration, SystemTime};

use super::super::answer::ProxyAnswer;
use super::super::function::FunctionError;
use super::faults::Occasion;
use super::{Due, Effect, Fault, FunctionId, Machine};
use crate::event::{ConnectionId, RequestId};

/// One call of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId(u64);

#[derive(Debug)]
pub(super) struct Call {
    connection: ConnectionId,
    request_id: RequestId,
    started: SystemTime,
    due: SystemTime,
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Authorize,
    Connect,
    Message { two_way: bool },
    Disconnect,
}

impl Machine {
    /// A function answered, or failed.
    pub(crate) fn answered(
        &mut self,
        now: SystemTime,
        call: CallId,
        answer: Result<Vec<u8>, FunctionError>,
    ) -> Vec<Effect> {
        // An answer after the time limit is not awaited any more (MSG-4).
        let Some(Call { connection, request_id, started, due, purpose }) = self.calls.remove(&call) else {
            return Vec::new();
        };
        self.due.remove(&(due, Due::Call(call)));
        match purpose {
            Purpose::Authorize => self.authorized(now, &connection, started, answer),
            Purpose::Connect => match answer.ok().and_then(|answer| ProxyAnswer::parse(&answer)) {
                // CON-2
                Some(answer) if (200..300).contains(&answer.status) => {
                    self.accept(now, &connection, answer.header("sec-websocket-protocol"))
                }
                Some(answer) => self.refuse(&connection, answer.status, None, answer.reason()),
                // CON-3
                None => self.refuse(&connection, 502, None, "Internal server error"),
            },
            Purpose::Message { two_way } => {
                if !self.touch(now, &connection) {
                    return Vec::new();
                }
                let text = match answer.ok().and_then(|answer| ProxyAnswer::parse(&answer)) {
                    // MSG-2
                    Some(answer) if two_way => answer.body.filter(|body| !body.is_empty()),
                    // MSG-1
                    Some(_) => None,
                    // MSG-3
                    None => Some(super::frame_text("Internal server error", &connection, &request_id)),
                };
                text.and_then(|text| self.send(now, &connection, text)).into_iter().collect()
            }
            Purpose::Disconnect => Vec::new(),
        }
    }

    /// MSG-4: the function runs on, but nobody waits for it.
    pub(super) fn timed_out(&mut self, now: SystemTime, call: CallId) -> Vec<Effect> {
        let Some(Call { connection, request_id, purpose, .. }) = self.calls.remove(&call) else { return Vec::new() };
        match purpose {
            Purpose::Authorize => self.refuse(&connection, 500, None, "Internal server error"),
            Purpose::Connect => self.refuse(&connection, 504, None, "Endpoint request timed out"),
            Purpose::Message { .. } if self.touch(now, &connection) => {
                self.say(now, &connection, "Endpoint request timed out", &request_id)
            }
            Purpose::Message { .. } | Purpose::Disconnect => Vec::new(),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one call of a function has this many parts")]
    pub(super) fn invoke(
        &mut self,
        now: SystemTime,
        connection: &ConnectionId,
        request_id: &RequestId,
        purpose: Purpose,
        function: FunctionId,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Vec<Effect> {
        let call = CallId(self.next_call);
        self.next_call = self.next_call.wrapping_add(1);
        let due = now.checked_add(timeout).unwrap_or(now);
        self.due.insert((due, Due::Call(call)));
        let killed_after = match self.faults.strike(Occasion::Invocation, connection.as_str()) {
            Some(Fault::FunctionKilled(after)) => Some(after),
            _ => None,
        };
        let (connection, request_id) = (connection.clone(), request_id.clone());
        self.calls.insert(call, Call { connection, request_id, started: now, due, purpose });
        vec![Effect::Invoke { call, function, payload, timeout, killed_after }]
    }
}
