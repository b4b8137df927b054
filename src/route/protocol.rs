//! The reply protocol: the members of a client's request, and the frames of its replies.
//!
//! Only this file and its submodule know the names of the members.

mod request;

use std::fmt;
use std::sync::Arc;

use memchr::memmem::Finder;
use serde_json::Value;
use smol_str::SmolStr;

pub(super) use self::request::{InvalidRequestId, Request};
use super::ErrorCode;
use crate::event::CorrelationId;

/// The names of the members in requests and replies.
///
/// A client's message may have a member `id`, a string or a number. Then exactly one final reply
/// with the same `id` ends the request: `{"id":…,"result":…}` or
/// `{"id":…,"error":{"code":…,"message":…,"details":…}}`. See the
/// [protocol](super#the-reply-protocol).
///
/// Set the same format on all routers and workers of an API. Clones are cheap.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Router;
/// use lambda_websocket::route::{Member, ReplyFormat};
///
/// // As JSON-RPC 2.0 names them.
/// let format = ReplyFormat::default()
///     .renamed(Member::Details, "data")
///     .renamed(Member::Action, "method");
/// let router = Router::new().reply_format(format);
/// ```
#[derive(Clone)]
pub struct ReplyFormat {
    names: [SmolStr; Member::ALL.len()],
    /// Searches for the quoted name of the id, to skip messages without one. `None` ignores ids.
    ids: Option<Arc<Finder<'static>>>,
}

/// A member of a request or a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Member {
    /// `id`: the id of a request, and of each reply to it.
    Id,
    /// `action`: the action of a request, and of an error without an id.
    Action,
    /// `result`: the result of a request.
    Result,
    /// `progress`: the progress of a worker on a request.
    Progress,
    /// `accepted`: `true` if the request was put into a queue.
    Accepted,
    /// `error`: the reason that a request has no result.
    Error,
    /// `code`: the [code](ErrorCode) in an error.
    Code,
    /// `message`: the human-readable text of an error.
    Message,
    /// `details`: the machine-readable details of an error.
    Details,
}

impl ReplyFormat {
    pub(super) fn is_default(&self) -> bool {
        self.ids.is_some() && self.names == Self::default().names
    }
}

impl Member {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Id, "id"),
        (Self::Action, "action"),
        (Self::Result, "result"),
        (Self::Progress, "progress"),
        (Self::Accepted, "accepted"),
        (Self::Error, "error"),
        (Self::Code, "code"),
        (Self::Message, "message"),
        (Self::Details, "details"),
    ];

    /// Returns whether it is a member of the object `error`, not of the frame.
    fn is_inner(self) -> bool {
        matches!(self, Self::Code | Self::Message | Self::Details)
    }
}

/// The request that a frame refers to: by its id, or by its action.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Addressee<'a> {
    Id(&'a CorrelationId),
    Action(&'a str),
}

/// The content of an error frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorBody<'a> {
    pub(crate) code: &'a ErrorCode,
    pub(crate) message: &'a str,
    pub(crate) details: Option<&'a Value>,
}

impl ReplyFormat {
    /// Renames a member. A name has 1 to 64 of `A-Z a-z 0-9 _ . $ @ -`.
    ///
    /// # Panics
    ///
    /// If the name is not valid, or another member of the same object has it.
    #[must_use]
    #[track_caller]
    pub fn renamed(mut self, member: Member, name: &str) -> Self {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.$@-".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
            panic!("{name:?} is not a valid member name: expected 1 to 64 of `A-Z a-z 0-9 _ . $ @ -`");
        }
        // A name with only these characters needs no escapes.
        let quoted = SmolStr::from(format!("\"{name}\""));
        for ((other, _), taken) in Member::ALL.iter().zip(&self.names) {
            if *other != member && other.is_inner() == member.is_inner() && *taken == quoted {
                panic!("{name:?} is already the name of {other:?}");
            }
        }
        for ((other, _), own) in Member::ALL.iter().zip(&mut self.names) {
            if *other == member {
                own.clone_from(&quoted);
            }
        }
        if member == Member::Id && self.ids.is_some() {
            self.ids = Some(finder(&quoted));
        }
        self
    }

    /// Ignores the ids of clients: a member `id` has no meaning.
    ///
    /// A route's reply is sent as it is, and errors name the action. Frames of workers carry API
    /// Gateway's request id.
    #[must_use]
    pub fn without_ids(mut self) -> Self {
        self.ids = None;
        self
    }

    /// Returns the name of a member in quotes.
    fn name(&self, member: Member) -> &str {
        let named = Member::ALL.iter().zip(&self.names).find(|((other, _), _)| *other == member);
        named.map_or("", |(_, name)| name)
    }

    /// `{"id":…,"result":…}`
    pub(crate) fn result(&self, id: &CorrelationId, json: &str) -> String {
        self.frame(Member::Id, id.as_json(), Member::Result, json)
    }

    /// `{"id":…,"progress":…}`
    #[cfg(feature = "worker")]
    pub(crate) fn progress(&self, id: &CorrelationId, json: &str) -> String {
        self.frame(Member::Id, id.as_json(), Member::Progress, json)
    }

    /// `{"id":…,"accepted":true}`
    #[cfg_attr(not(feature = "reply"), allow(dead_code, reason = "only `reply` uses `accepted` frames"))]
    pub(crate) fn accepted(&self, id: &CorrelationId) -> String {
        self.frame(Member::Id, id.as_json(), Member::Accepted, "true")
    }

    /// `{"id":…,"error":{"code":…,"message":…,"details":…}}`, or `action` in place of `id`.
    pub(crate) fn error(&self, to: Addressee<'_>, error: ErrorBody<'_>) -> String {
        let mut object = String::from("{");
        let mut add = |member, json: &str| {
            if object.len() > 1 {
                object.push(',');
            }
            object.push_str(self.name(member));
            object.push(':');
            object.push_str(json);
        };
        add(Member::Code, &json(error.code.as_str()));
        add(Member::Message, &json(error.message));
        if let Some(details) = error.details {
            add(Member::Details, &details.to_string());
        }
        object.push('}');
        match to {
            Addressee::Id(id) => self.frame(Member::Id, id.as_json(), Member::Error, &object),
            Addressee::Action(action) => self.frame(Member::Action, &json(action), Member::Error, &object),
        }
    }

    fn frame(&self, first: Member, to: &str, second: Member, content: &str) -> String {
        let (first, second) = (self.name(first), self.name(second));
        let mut frame = String::with_capacity(
            [first, to, second, content].iter().fold(5_usize, |sum, part| sum.saturating_add(part.len())),
        );
        for part in ["{", first, ":", to, ",", second, ":", content, "}"] {
            frame.push_str(part);
        }
        frame
    }
}

/// Serializes a string as JSON.
pub(super) fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

impl Default for ReplyFormat {
    fn default() -> Self {
        let names = Member::ALL.map(|(_, name)| SmolStr::from(format!("\"{name}\"")));
        Self { names, ids: Some(finder("\"id\"")) }
    }
}

fn finder(quoted: &str) -> Arc<Finder<'static>> {
    Arc::new(Finder::new(quoted).into_owned())
}

impl fmt::Debug for ReplyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Member::ALL.iter().zip(&self.names).map(|((member, _), name)| (member, name.as_str()));
        f.debug_map().entries(names).finish()
    }
}
