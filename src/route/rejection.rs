//! A client's mistake, as opposed to a failure of ours.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use super::response::Response;
use crate::event::{InvalidBody, RequestContext};

/// A message that its function refused: the client's mistake, which does not fail the invocation.
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
}

impl Rejection {
    pub(super) fn no_route(context: Arc<RequestContext>) -> Self {
        Self { kind: RejectionKind::NoRoute, context }
    }

    pub(super) fn body(context: Arc<RequestContext>, error: InvalidBody) -> Self {
        Self { kind: RejectionKind::Body(error), context }
    }

    /// Why the message was rejected.
    pub fn kind(&self) -> &RejectionKind {
        &self.kind
    }

    /// The connection and the request of the message.
    pub fn request_context(&self) -> &RequestContext {
        &self.context
    }

    /// The status that the function answers: 404 without a route, 400 for a body that does not fit.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            RejectionKind::NoRoute => StatusCode::NOT_FOUND,
            RejectionKind::Body(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client may read: it may quote the client's own message, so it is not for a log.
    pub fn client_text(&self) -> &str {
        match &self.kind {
            RejectionKind::NoRoute => "no such route",
            RejectionKind::Body(error) => error.client_text(),
        }
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
            RejectionKind::Body(error) => error.fmt(f),
        }
    }
}
