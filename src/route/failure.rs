//! Failures, as reported to the log and the error hook.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::protocol::{Addressee, ErrorBody};
use super::{Error, ErrorCode};
use crate::event::{CorrelationId, RequestContext};

/// An event that the function rejected or failed to handle.
///
/// `Display` is for the log and quotes nothing of the message.
#[derive(Debug, Clone)]
pub struct Failure {
    kind: FailureKind,
    code: ErrorCode,
    text: String,
    client_text: ClientText,
    details: Option<Value>,
    correlation_id: Option<CorrelationId>,
    context: Arc<RequestContext>,
}

/// The kind of a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The function has no route with the message's key, and no `$default`.
    UnknownAction,
    /// The member `id` of the message is not a valid correlation id.
    InvalidId,
    /// The body of the message does not fit the type that the route takes.
    InvalidBody,
    /// A value of the client is not valid, such as an [`InvalidId`](crate::event::InvalidId).
    InvalidValue,
    /// The route returned an [`Error::client`].
    Refused,
    /// The route returned another error.
    Internal,
    /// The route panicked.
    Panicked,
    /// The reply exceeds the maximum message size of 131072 bytes.
    ReplyTooLarge,
    /// The reply could not be [pushed](super::Router::push_replies).
    ReplyNotPushed,
}

/// The text for the client. `Debug` shows only its length.
#[derive(Clone)]
struct ClientText(String);

impl fmt::Debug for ClientText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The message that API Gateway sends when a function fails.
pub(crate) const INTERNAL: &str = "Internal server error";

impl Failure {
    pub(super) fn new(error: &Error, context: Arc<RequestContext>, correlation_id: Option<CorrelationId>) -> Self {
        let client_text = error.client_text().unwrap_or(INTERNAL).to_owned();
        // The client learns nothing else about the error. The request id leads to the log.
        let in_log =
            || (*error.code() == ErrorCode::INTERNAL).then(|| serde_json::json!({"requestId": context.request_id}));
        let details = error.details().cloned().or_else(in_log);
        Self {
            kind: error.kind(),
            code: error.code().clone(),
            text: error.log_text(),
            client_text: ClientText(client_text),
            details,
            correlation_id,
            context,
        }
    }

    #[cfg(feature = "push")]
    pub(super) fn not_pushed(error: &Error, context: Arc<RequestContext>, id: Option<CorrelationId>) -> Self {
        Self { kind: FailureKind::ReplyNotPushed, ..Self::new(error, context, id) }
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Returns the code that the client gets.
    pub fn code(&self) -> &ErrorCode {
        &self.code
    }

    /// Returns the status of the response. From 400 to 499, the client made a mistake.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Returns the text that the client gets.
    ///
    /// It may quote the client's message, so do not log it.
    pub fn client_text(&self) -> &str {
        &self.client_text.0
    }

    /// Returns the details that the client gets.
    ///
    /// For an internal error, they hold the request id.
    pub fn details(&self) -> Option<&Value> {
        self.details.as_ref()
    }

    /// Returns the correlation id of the request, if the client sent one.
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        self.correlation_id.as_ref()
    }

    /// Returns the request context, with the connection and the request.
    pub fn request_context(&self) -> &RequestContext {
        &self.context
    }

    pub(super) fn body(&self) -> ErrorBody<'_> {
        ErrorBody { code: &self.code, message: &self.client_text.0, details: self.details.as_ref() }
    }

    /// Returns what identifies the request: its id, or else its action.
    pub(super) fn addressee<'a>(&'a self, action: Option<&'a str>) -> Addressee<'a> {
        match &self.correlation_id {
            Some(id) => Addressee::Id(id),
            None => Addressee::Action(action.unwrap_or(self.context.route_key.as_str())),
        }
    }

    pub(super) fn log(&self) {
        let (code, status) = (self.code.as_str(), self.status().as_u16());
        match (self.kind, self.status().is_client_error()) {
            (_, true) => tracing::warn!(code, status, reason = %self.text, "the event was refused"),
            (FailureKind::ReplyNotPushed, false) => {
                tracing::error!(code, status, error = %self.text, "the reply was not pushed");
            }
            (_, false) => tracing::error!(code, status, error = %self.text, "the route failed"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => write!(f, "refused with {}", self.code),
            text => f.write_str(text),
        }
    }
}

/// The mappings from the application's error types to [`Error`].
#[derive(Clone, Default)]
pub(crate) struct ErrorMap(Vec<Arc<Mapping>>);

type Mapping = dyn Fn(&(dyn StdError + 'static)) -> Option<Error> + Send + Sync;

impl ErrorMap {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add<E: StdError + 'static>(&mut self, map: impl Fn(&E) -> Option<Error> + Send + Sync + 'static) {
        self.0.push(Arc::new(move |error| error.downcast_ref::<E>().and_then(&map)));
    }

    /// Maps an error with the first mapping that matches it or a source.
    ///
    /// The outermost error is tried first.
    pub(crate) fn apply(&self, error: Error) -> Error {
        if error.is_for_client() || self.0.is_empty() {
            return error;
        }
        let outermost = error.source().map(|source| source as &(dyn StdError + 'static));
        let mapped = std::iter::successors(outermost, |error: &&(dyn StdError + 'static)| (*error).source())
            .find_map(|error| self.0.iter().find_map(|mapping| mapping(error)));
        match mapped {
            Some(mapped) => mapped.caused_by(error),
            None => error,
        }
    }
}
