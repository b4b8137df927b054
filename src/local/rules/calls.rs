//! Function calls: how they start, and what their responses mean.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use rand::{Rng as _, RngExt as _};

use super::super::function::FunctionError;
use super::super::proxy_response::ProxyResponse;
use super::super::timeline::{EntryKind, Origin};
use super::faults::Occasion;
use super::{Due, Effect, Fault, FunctionId, Machine, frame_text};
use crate::event::{ConnectionId, RequestId, RouteKey};
use crate::push::MAX_PAYLOAD_BYTES;

/// The maximum number of yields before an interleaved invocation.
const MAX_YIELDS: u8 = 16;

/// The id of one function call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId(u64);

#[derive(Debug)]
pub(super) struct Call {
    connection: ConnectionId,
    request_id: RequestId,
    function: FunctionId,
    started: SystemTime,
    due: SystemTime,
    purpose: Purpose,
    /// Whether it has timed out: the function runs on, but nobody waits for it.
    is_late: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Authorize,
    Connect,
    Message { route_key: RouteKey, has_route_response: bool },
    Disconnect,
}

impl Purpose {
    fn name(&self) -> &str {
        match self {
            Self::Authorize => "authorizer",
            Self::Connect => RouteKey::CONNECT,
            Self::Message { route_key, .. } => route_key.as_str(),
            Self::Disconnect => RouteKey::DISCONNECT,
        }
    }
}

#[cfg(test)]
impl Call {
    pub(super) fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    pub(super) fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }
}

/// The response of a function, or its failure.
type Answer = Result<Vec<u8>, FunctionError>;

impl Machine {
    /// Handles the response or the failure of a function.
    pub(super) fn answered(&mut self, now: SystemTime, call: CallId, answer: Answer) -> Vec<Effect> {
        let Some(ended) = self.calls.remove(&call) else { return Vec::new() };
        if let Some(running) = self.running.get_mut(&ended.function) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(&ended.function);
            }
        }
        if ended.is_late {
            // MSG-4
            let status = parse(&answer).ok().map(|parsed| parsed.status);
            self.report(now, &ended, &answer, status, "it was too late".into());
            return Vec::new();
        }
        self.due.remove(&(ended.due, Due::Call(call)));
        self.settle(now, ended, answer)
    }

    /// Handles a response that came in time.
    fn settle(&mut self, now: SystemTime, call: Call, answer: Answer) -> Vec<Effect> {
        let id = call.connection.clone();
        match &call.purpose {
            Purpose::Authorize => {
                self.report(now, &call, &answer, None, "the policy decides".into());
                self.authorized(now, &id, call.started, answer)
            }
            Purpose::Connect => match parse(&answer) {
                // CON-2
                Ok(parsed) if (200..300).contains(&parsed.status) => {
                    self.report(now, &call, &answer, Some(parsed.status), "the client is let in".into());
                    self.accept(now, &id, parsed.header("sec-websocket-protocol"))
                }
                // CON-3: an informational status does not complete a handshake.
                Ok(parsed) if parsed.status < 200 => {
                    let reason = format!("$connect answered the informational status {}", parsed.status);
                    self.report(now, &call, &answer, Some(parsed.status), "it is no answer to a handshake".into());
                    self.refuse(&id, 502, None, "Internal server error", reason)
                }
                Ok(parsed) => {
                    let reason = format!("$connect answered {}", parsed.status);
                    self.report(now, &call, &answer, Some(parsed.status), "the client is refused".into());
                    self.refuse(&id, parsed.status, None, parsed.reason(), reason)
                }
                // CON-3
                Err(reason) => {
                    self.report(now, &call, &answer, None, "the client is refused".into());
                    self.refuse(&id, 502, None, "Internal server error", format!("$connect {reason}"))
                }
            },
            Purpose::Message { has_route_response, .. } => {
                let parsed = parse(&answer);
                let status = parsed.as_ref().ok().map(|parsed| parsed.status);
                let failed = || Some((frame_text("Internal server error", &id, &call.request_id), Origin::Gateway));
                let (frame, effect): (_, Cow<'static, str>) = match parsed {
                    // MSG-1
                    Ok(_) if !has_route_response => {
                        (None, "the client gets nothing, since the route has no route response".into())
                    }
                    // MSG-2
                    Ok(parsed) => match parsed.body.unwrap_or_default() {
                        body if body.len() > MAX_PAYLOAD_BYTES => {
                            (failed(), format!("the body is larger than {MAX_PAYLOAD_BYTES} bytes").into())
                        }
                        body if body.is_empty() => {
                            let effect = "the client gets an empty frame, since there is no body";
                            (Some((body, Origin::RouteResponse)), effect.into())
                        }
                        body => (Some((body, Origin::RouteResponse)), "the client gets the body".into()),
                    },
                    // MSG-3
                    Err(reason) => (failed(), format!("it {reason}").into()),
                };
                let is_open = self.is_open(&id);
                let effect = if is_open { effect } else { "the connection is closed".into() };
                self.report(now, &call, &answer, status, effect);
                match frame {
                    // LIM-3: only a frame counts as activity.
                    Some((text, origin)) if is_open => {
                        self.touch(now, &id);
                        self.send(now, &id, text, origin).into_iter().collect()
                    }
                    _ => Vec::new(),
                }
            }
            Purpose::Disconnect => {
                let status = parse(&answer).ok().map(|parsed| parsed.status);
                self.report(now, &call, &answer, status, "its answer is ignored".into());
                Vec::new()
            }
        }
    }

    fn report(
        &mut self,
        now: SystemTime,
        call: &Call,
        answer: &Answer,
        status: Option<u16>,
        effect: Cow<'static, str>,
    ) {
        // DIS-2: any response of `$disconnect` is fine. An authorizer's response is judged with its
        // policy.
        let is_read = matches!(call.purpose, Purpose::Connect | Purpose::Message { .. });
        let failed = answer.is_err() || (status.is_none() && is_read);
        let (outcome, bytes): (Cow<'static, str>, usize) = match (answer, status) {
            (Ok(answer), Some(200)) => ("answered 200".into(), answer.len()),
            (Ok(answer), Some(status)) => (format!("answered {status}").into(), answer.len()),
            (Ok(answer), None) if !is_read => ("answered".into(), answer.len()),
            (Ok(answer), None) => ("gave a malformed answer".into(), answer.len()),
            (Err(error), _) => (format!("failed with {error}").into(), 0),
        };
        let took = now.duration_since(call.started).unwrap_or_default();
        let route_key = call.purpose.name().to_owned();
        self.note(&call.connection, EntryKind::Answered { route_key, outcome, took, bytes, failed, effect });
    }

    /// Handles a timeout (MSG-4): the function runs on, but nobody waits for it.
    pub(super) fn timed_out(&mut self, now: SystemTime, call: CallId) -> Vec<Effect> {
        let Some(late) = self.calls.get_mut(&call) else { return Vec::new() };
        late.is_late = true;
        let (id, request_id, purpose) = (late.connection.clone(), late.request_id.clone(), late.purpose.clone());
        let took = now.duration_since(late.started).unwrap_or_default();
        let route_key = purpose.name().to_owned();
        let effect = "the gateway does not wait any longer".into();
        self.note(
            &id,
            EntryKind::Answered { route_key, outcome: "has not answered".into(), took, bytes: 0, failed: true, effect },
        );
        let text = "Endpoint request timed out";
        match purpose {
            Purpose::Authorize => self.refuse(&id, 500, None, "Internal server error", "the authorizer took too long"),
            Purpose::Connect => self.refuse(&id, 504, None, text, "$connect took too long"),
            Purpose::Message { .. } if self.touch(now, &id) => self.say(now, &id, text, &request_id),
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
        let (id, request_id) = (connection.clone(), request_id.clone());
        let started = Call { connection: id, request_id, function, started: now, due, purpose, is_late: false };
        let (mut killed_after, mut starts_after) = (None, None);
        let mut throttled = self.throttled(function);
        match self.strike(Occasion::Invocation, connection.as_str()) {
            Some(Fault::FunctionKilled(after)) => killed_after = Some(after),
            Some(Fault::ColdStart(delay)) => starts_after = Some(delay),
            Some(Fault::FunctionThrottled) => throttled = Some("a fault"),
            _ => {}
        }
        if let Some(limit) = throttled {
            // LIM-7
            let text = format!("throttled by {limit}");
            return self.settle(now, started, Err(FunctionError::new("TooManyRequestsException", text)));
        }
        self.note(connection, EntryKind::Invoked { route_key: started.purpose.name().to_owned() });
        self.due.insert((due, Due::Call(call)));
        let running = self.running.entry(function).or_default();
        *running = running.saturating_add(1);
        self.calls.insert(call, started);
        let id = (u128::from(self.random.next_u64()) << 64) | u128::from(self.random.next_u64());
        let request_id = format!("{id:032x}");
        let yields = self.api.is_interleaved.then(|| self.random.random_range(0..MAX_YIELDS));
        vec![Effect::Invoke { call, request_id, function, payload, timeout, killed_after, starts_after, yields }]
    }

    /// Returns the limit that throttles another invocation, if one does.
    fn throttled(&self, function: FunctionId) -> Option<&'static str> {
        let own = self.api.function_concurrency.get(&function);
        if self.calls.len() >= self.api.concurrency {
            Some("the concurrency of the account")
        } else if own.is_some_and(|limit| self.running.get(&function).copied().unwrap_or_default() >= *limit) {
            Some("the concurrency of the function")
        } else {
            None
        }
    }
}

/// Parses a response, or explains why there is none.
fn parse(answer: &Answer) -> Result<ProxyResponse, String> {
    match answer {
        Ok(answer) => ProxyResponse::parse(answer).map_err(|reason| format!("gave a malformed answer: {reason}")),
        Err(error) => Err(format!("failed with {error}")),
    }
}
