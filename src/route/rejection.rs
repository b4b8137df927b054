//! A client's mistake, as opposed to a failure of ours.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use super::response::Response;
use crate::event::{InvalidBody, InvalidId, RequestContext};
#[cfg(feature = "registry")]
use crate::registry::InvalidData;

/// An event that its function refused: the client's mistake, which does not fail the invocation.
///
/// The function answers with [`status`](Self::status) and [`client_text`](Self::client_text). The client sees that where
/// the route has a route response; elsewhere [`Router::on_rejection`](super::Router::on_rejection) can push it.
///
/// `Display` is for the log: it quotes nothing of the message.
#[derive(Debug, Clone)]
pub struct Rejection {
    kind: RejectionKind,
    context: Arc<RequestContext>,
}

/// Why a message was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The function has no route with the message's key, and no `$default`.
    NoRoute,
    /// The body does not fit what the route takes.
    Body(InvalidBody),
    /// A value of the client is not what the route needs.
    Value(InvalidValue),
}

/// A value that a client sent, and that the route could not use.
///
/// Its `Display` quotes nothing of the value, so it may be logged. [`client_text`](Self::client_text) is for the client.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidValue {
    text: String,
    client_text: String,
}

impl InvalidValue {
    /// What is wrong, with the value: only for the client that sent it.
    pub fn client_text(&self) -> &str {
        &self.client_text
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidValue({})", self.text)
    }
}

impl RejectionKind {
    /// What an error that a route returns says about the client's values, if it does.
    pub(super) fn from_error(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(invalid) = error.downcast_ref::<InvalidBody>() {
            return Some(Self::Body(invalid.clone()));
        }
        if let Some(invalid) = error.downcast_ref::<InvalidId>() {
            return Some(Self::Value(InvalidValue { text: invalid.unquoted(), client_text: invalid.to_string() }));
        }
        #[cfg(feature = "registry")]
        if let Some(invalid @ InvalidData::TooLarge { .. }) = error.downcast_ref::<InvalidData>() {
            return Some(Self::Value(InvalidValue { text: invalid.to_string(), client_text: invalid.to_string() }));
        }
        None
    }

    /// Quotes nothing of the client.
    pub(super) fn log_text(&self) -> String {
        match self {
            Self::NoRoute => "no such route".to_owned(),
            Self::Body(error) => error.to_string(),
            Self::Value(error) => error.to_string(),
        }
    }

    pub(super) fn client_text(&self) -> &str {
        match self {
            Self::NoRoute => "no such route",
            Self::Body(error) => error.client_text(),
            Self::Value(error) => error.client_text(),
        }
    }
}

impl Rejection {
    pub(super) fn new(kind: RejectionKind, context: Arc<RequestContext>) -> Self {
        Self { kind, context }
    }

    /// Why the message was rejected.
    pub fn kind(&self) -> &RejectionKind {
        &self.kind
    }

    /// The connection and the request of the message.
    pub fn request_context(&self) -> &RequestContext {
        &self.context
    }

    /// The status that the function answers: 404 without a route, otherwise 400.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            RejectionKind::NoRoute => StatusCode::NOT_FOUND,
            RejectionKind::Body(_) | RejectionKind::Value(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client may read: it may quote the client's own message, so it is not for a log.
    pub fn client_text(&self) -> &str {
        self.kind.client_text()
    }

    pub(super) fn response(&self) -> Response {
        Response::refusal(self.status(), self.client_text(), &self.context.connection_id, &self.context.request_id)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            RejectionKind::NoRoute => {
                write!(f, "no route {:?} and no `$default`", self.context.route_key.as_str())
            }
            kind => f.write_str(&kind.log_text()),
        }
    }
}
