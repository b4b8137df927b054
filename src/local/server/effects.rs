//! Carries out the effects that the rules decide.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::super::rules::{Effect, Input, Output, Reply, gone, limit_exceeded};
use super::super::timeline::{EntryKind, Timeline};
use super::invocation::Call;
use super::outbox::{Close, Refused};
use super::{State, Verdict};

/// Carries out effects without waiting, so that they stay in order on each socket.
pub(super) fn carry_out(
    state: &mut State,
    now: SystemTime,
    effects: Vec<Effect>,
    reply: &mut Reply,
    calls: &mut Vec<Call>,
    timeline: &Timeline,
) {
    let mut effects = VecDeque::from(effects);
    while let Some(effect) = effects.pop_front() {
        match effect {
            Effect::Invoke { call, request_id, function, payload, timeout, killed_after, starts_after, yields } => {
                let function = state.functions.get(function).cloned();
                let alive = state.alive.clone();
                calls.push(Call {
                    call,
                    request_id,
                    function,
                    payload,
                    limit: timeout,
                    killed_after,
                    starts_after,
                    yields,
                    alive,
                });
            }
            Effect::Accept { connection, subprotocol } => {
                let verdict = Verdict::Accepted { subprotocol };
                let told = state.verdicts.remove(&connection).map(|client| client.send(verdict));
                if !matches!(told, Some(Ok(()))) {
                    // The client has already left.
                    state.sockets.remove(&connection);
                    let closed = Input::Closed { connection: &connection, code: 1006, reason: "" };
                    let Output { effects: more, notes, .. } = state.machine.apply(now, closed);
                    timeline.add(now, notes);
                    effects.extend(more);
                }
            }
            Effect::Refuse { connection, refusal } => {
                state.sockets.remove(&connection);
                if let Some(client) = state.verdicts.remove(&connection) {
                    let _ = client.send(Verdict::Refused(refusal));
                }
            }
            Effect::Send { connection, text } => {
                if let Some(Err(Refused::Full)) = state.sockets.get(&connection).map(|socket| socket.send(text)) {
                    tracing::warn!(connection_id = %connection, "the client reads too slowly: a frame is dropped");
                    let reason = "the client reads too slowly".into();
                    timeline.add(now, [(Some(connection), EntryKind::Dropped { reason })]);
                }
            }
            Effect::Push { connection, text } => {
                let refusal = match state.sockets.get(&connection).map(|socket| socket.send(text)) {
                    Some(Ok(())) => continue,
                    // MGT-7
                    Some(Err(Refused::Full)) => limit_exceeded(),
                    Some(Err(Refused::Closed)) | None => gone(),
                };
                let reason =
                    format!("its socket takes no more, so the push is answered with {}", refusal.status).into();
                timeline.add(now, [(Some(connection), EntryKind::Dropped { reason })]);
                if matches!(reply, Reply::Answer(_)) {
                    *reply = Reply::Answer(Err(refusal));
                }
            }
            Effect::Close { connection, code, reason } => {
                if let Some(socket) = state.sockets.remove(&connection) {
                    socket.close(Close { code, reason });
                }
            }
            Effect::Hold { connection, held } => {
                if let Some(socket) = state.sockets.get(&connection) {
                    socket.hold(held);
                }
            }
        }
    }
}
