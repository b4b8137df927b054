//! The one door of the rules.

use std::time::SystemTime;

use super::super::event::Handshake;
use super::super::function::FunctionError;
use super::super::timeline::What;
use super::management::Delivery;
use super::{CallId, Effect, Fault, Machine, Refusal, When};
use crate::event::{ConnectionId, Stage};

/// Something that happens to the gateway.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A client asks for a connection. The reply is its id; the verdict is an effect.
    Upgrade { stage: Stage, handshake: Handshake },
    /// The client left before its socket was opened.
    NeverOpened { connection: &'a ConnectionId },
    /// A client sent a text message.
    Message { connection: &'a ConnectionId, text: &'a str },
    /// A client sent what it may not send.
    Violation { connection: &'a ConnectionId, code: u16, reason: &'static str },
    /// A socket is closed from the client's side, or lost.
    Closed { connection: &'a ConnectionId, code: u16, reason: &'a str },
    /// A function answered, or failed.
    Answered { call: CallId, answer: Result<Vec<u8>, FunctionError> },
    /// A call of `@connections`. Without a stage it is for the connection's own.
    Manage { stage: Option<&'a str>, id: &'a str, call: Managed },
    /// Time passes.
    Tick,
    /// A fault happens from now on.
    Inject { fault: Fault, when: When },
    /// No fault happens any more.
    ClearFaults,
    /// The gateway ends: it refuses whoever waits or comes, and closes every connection.
    Drain,
}

/// What a call of `@connections` wants.
#[derive(Debug)]
pub(crate) enum Managed {
    /// Its size has been checked.
    Post(String),
    Get,
    Delete,
}

/// What comes of an input.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) reply: Reply,
    pub(crate) effects: Vec<Effect>,
    /// What happened and why, by connection.
    pub(crate) notes: Vec<(Option<ConnectionId>, What)>,
}

/// What who brought the input is told at once.
#[derive(Debug)]
pub(crate) enum Reply {
    None,
    /// The connection that was asked for.
    Connection(ConnectionId),
    /// The HTTP answer to a call of `@connections`: status and body.
    Answer(Result<(u16, String), Refusal>),
    /// A fault keeps the answer.
    Unanswered,
}

impl Machine {
    /// Lets something happen. Nothing else changes the state.
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
        self.notes.push((ConnectionId::new(id).ok(), What::Managed { method, status, bytes }));
        (reply, effects)
    }
}
