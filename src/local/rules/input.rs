//! The inputs and outputs of the rules.

use std::time::SystemTime;

use super::super::function::FunctionError;
use super::super::payload::Handshake;
use super::super::timeline::EntryKind;
use super::management::Delivery;
use super::{CallId, Effect, Fault, Machine, Refusal, When};
use crate::event::{ConnectionId, Stage};

/// An event that the gateway handles.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A client requests a connection. The reply is its id; the verdict is an effect.
    Upgrade { stage: Stage, handshake: Handshake },
    /// The client left before its socket was opened.
    NeverOpened { connection: &'a ConnectionId },
    /// A client sent a text message.
    Message { connection: &'a ConnectionId, text: &'a str },
    /// A client violated the protocol or a limit.
    Violation { connection: &'a ConnectionId, code: u16, reason: &'static str },
    /// The client closed the socket, or it was lost.
    Closed { connection: &'a ConnectionId, code: u16, reason: &'a str },
    /// A function responded or failed.
    Answered { call: CallId, answer: Result<Vec<u8>, FunctionError> },
    /// A call of `@connections`. Without a stage, it is for the stage of the connection.
    Manage { stage: Option<&'a str>, id: &'a str, call: Managed },
    /// Time passes.
    Tick,
    /// A fault is injected.
    Inject { fault: Fault, when: When },
    /// All faults are removed.
    ClearFaults,
    /// The gateway shuts down: it refuses pending and new clients, and closes every connection.
    Drain,
}

/// The operation of a call of `@connections`.
#[derive(Debug)]
pub(crate) enum Managed {
    /// The payload, whose size has been checked.
    Post(String),
    Get,
    Delete,
}

/// The result of an input.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) reply: Reply,
    pub(crate) effects: Vec<Effect>,
    /// What happened and why, by connection.
    pub(crate) notes: Vec<(Option<ConnectionId>, EntryKind)>,
}

/// The immediate reply to the source of the input.
#[derive(Debug)]
pub(crate) enum Reply {
    None,
    /// The id of the requested connection.
    Connection(ConnectionId),
    /// The HTTP response to a call of `@connections`: status and body.
    Answer(Result<(u16, String), Refusal>),
    /// A fault suppresses the response.
    Unanswered,
}

impl Machine {
    /// Handles an input. Nothing else changes the state.
    pub(crate) fn apply(&mut self, now: SystemTime, input: Input<'_>) -> Output {
        let (reply, effects) = match input {
            Input::Upgrade { stage, handshake } => {
                let (connection, effects) = self.upgrade(now, stage, handshake);
                (Reply::Connection(connection), effects)
            }
            Input::NeverOpened { connection } => (Reply::None, self.never_opened(now, connection)),
            Input::Message { connection, text } => (Reply::None, self.message(now, connection, text)),
            Input::Violation { connection, code, reason } => {
                (Reply::None, self.violation(now, connection, code, reason))
            }
            Input::Closed { connection, code, reason } => (Reply::None, self.closed(now, connection, code, reason)),
            Input::Answered { call, answer } => (Reply::None, self.answered(now, call, answer)),
            Input::Manage { stage, id, call } => self.manage(now, stage, id, call),
            Input::Tick => (Reply::None, self.tick(now)),
            Input::Inject { fault, when } => (Reply::None, self.inject(fault, when)),
            Input::ClearFaults => (Reply::None, self.clear_faults(now)),
            Input::Drain => (Reply::None, self.drain(now)),
        };
        Output { reply, effects, notes: std::mem::take(&mut self.notes) }
    }

    fn manage(&mut self, now: SystemTime, stage: Option<&str>, id: &str, call: Managed) -> (Reply, Vec<Effect>) {
        let (method, bytes) = match &call {
            Managed::Post(text) => ("POST", text.len()),
            Managed::Get => ("GET", 0),
            Managed::Delete => ("DELETE", 0),
        };
        let (reply, effects) = match call {
            Managed::Post(text) => match self.post(now, stage, id, text) {
                Delivery::To(connection, text) => {
                    (Reply::Answer(Ok((200, String::new()))), vec![Effect::Push { connection, text }])
                }
                Delivery::Twice(connection, text) => {
                    let again = Effect::Send { connection: connection.clone(), text: text.clone() };
                    (Reply::Answer(Ok((200, String::new()))), vec![Effect::Push { connection, text }, again])
                }
                Delivery::Swallowed => (Reply::Answer(Ok((200, String::new()))), Vec::new()),
                Delivery::Refused(refusal) => (Reply::Answer(Err(refusal)), Vec::new()),
                Delivery::Unanswered(delivered) => {
                    let push = delivered.map(|(connection, text)| Effect::Push { connection, text });
                    (Reply::Unanswered, push.into_iter().collect())
                }
            },
            Managed::Get => match self.info(now, stage, id) {
                Ok(Some(info)) => (Reply::Answer(Ok((200, info))), Vec::new()),
                Ok(None) => (Reply::Unanswered, Vec::new()),
                Err(refusal) => (Reply::Answer(Err(refusal)), Vec::new()),
            },
            Managed::Delete => match self.delete(now, stage, id) {
                Ok((is_answered, effects)) => {
                    let answer = Reply::Answer(Ok((204, String::new())));
                    (if is_answered { answer } else { Reply::Unanswered }, effects)
                }
                Err(refusal) => (Reply::Answer(Err(refusal)), Vec::new()),
            },
        };
        let status = match &reply {
            Reply::Answer(Ok((status, _)) | Err(Refusal { status, .. })) => Some(*status),
            _ => None,
        };
        self.notes.push((ConnectionId::new(id).ok(), EntryKind::Managed { method, status, bytes }));
        (reply, effects)
    }
}
