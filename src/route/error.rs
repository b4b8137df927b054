//! The error of a route.

use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::protocol::InvalidRequestId;
use super::{ErrorCode, FailureKind};
use crate::event::{InvalidBody, InvalidId, RouteKey, chain, texts};
#[cfg(feature = "hub")]
use crate::hub::JoinError;
#[cfg(feature = "registry")]
use crate::registry::InvalidData;

/// The error of a route or of a job.
///
/// The `?` operator converts any error into one. The origin of the error decides what the client
/// and the log get:
///
/// | origin | the client gets | the log gets |
/// |---|---|---|
/// | [`Error::client`] with a code whose status is from 400 to 499 | its code, text and details | a warning with the code and the source |
/// | [`Error::client`] with another code | its code, text and details | an error with its sources |
/// | [`InvalidBody`], [`InvalidId`], or connection data that are too large | `invalid_message` and the reason | a warning that quotes nothing |
/// | an error that [`Router::map_error`](super::Router::map_error) maps to one of these | the same | the same |
/// | any other error, [`Error::message`] | `internal` with the request id | an error with its sources |
///
/// The outermost error decides. An [`Error`] that was [boxed](Self::into_boxed) and is converted
/// back by `?` is unchanged. One that is only the source of another error, by `context` or
/// `#[source]`, is not for the client. Mappings also look for their type among the sources. In the
/// log, an [`InvalidId`] among the sources quotes nothing.
///
/// # Examples
///
/// ```
/// use lambda_websocket::route::{Error, ErrorCode, StatusCode};
///
/// let quantity = "many".parse::<u32>().map_err(|error| {
///     Error::client(ErrorCode::INVALID_MESSAGE, "the quantity is not a number").with_source(error)
/// });
/// assert_eq!(quantity.unwrap_err().to_string(), "the quantity is not a number");
///
/// const SOLD_OUT: ErrorCode = ErrorCode::new("sold_out");
/// let error = Error::client(SOLD_OUT, "there are 3 tickets left").with_details(&serde_json::json!({"left": 3}));
/// assert_eq!((error.code().as_str(), error.code().status()), ("sold_out", StatusCode::BAD_REQUEST));
/// ```
pub struct Error(Box<Inner>);

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

struct Inner {
    kind: FailureKind,
    /// The text for the log. If the client's text may quote the client, this one quotes nothing.
    text: String,
    /// The code and the text for the client. If the inner text is `None`, the client gets the text
    /// for the log.
    answer: Option<(ErrorCode, Option<String>)>,
    details: Option<Value>,
    source: Option<BoxError>,
}

impl Error {
    fn new(kind: FailureKind, text: String) -> Self {
        Self(Box::new(Inner { kind, text, answer: None, details: None, source: None }))
    }

    /// Creates an error whose text is for the log only.
    pub fn message(text: impl fmt::Display) -> Self {
        Self::new(FailureKind::Internal, text.to_string())
    }

    /// Creates an error whose code and text are for the client.
    ///
    /// Pass an [`ErrorCode`], or a [`StatusCode`] to use its code. On `$connect` the status of the
    /// code becomes that of the handshake.
    pub fn client(code: impl Into<ErrorCode>, text: impl fmt::Display) -> Self {
        let mut error = Self::new(FailureKind::Refused, text.to_string());
        error.0.answer = Some((code.into(), None));
        error
    }

    /// Creates an error for a client's mistake, with separate texts for log and client.
    fn mistake(kind: FailureKind, code: ErrorCode, text: String, client_text: String) -> Self {
        let mut error = Self::new(kind, text);
        error.0.answer = Some((code, Some(client_text)));
        error
    }

    pub(super) fn unknown_action(key: &RouteKey) -> Self {
        let text = format!("no route {:?} and no `$default`", key.as_str());
        Self::mistake(FailureKind::UnknownAction, ErrorCode::UNKNOWN_ACTION, text, "there is no such action".to_owned())
    }

    pub(super) fn invalid_id(invalid: &InvalidRequestId) -> Self {
        let text = invalid.to_string();
        Self::mistake(FailureKind::InvalidId, ErrorCode::INVALID_MESSAGE, text.clone(), text)
    }

    pub(super) fn panicked(text: &str) -> Self {
        Self::new(FailureKind::Panicked, format!("the route panicked: {text}"))
    }

    /// Creates the error for a reply that exceeds the maximum message size.
    ///
    /// It is the service's fault, so the status is 500, but the client gets the text.
    pub(crate) fn reply_too_large(size: usize, limit: usize) -> Self {
        let mut error = Self::new(
            FailureKind::ReplyTooLarge,
            format!("the reply has {size} bytes, more than the maximum of {limit} for one message"),
        );
        error.0.answer = Some((ErrorCode::TOO_LARGE.with_status(StatusCode::INTERNAL_SERVER_ERROR), None));
        error
    }

    /// Adds details for the client's program, as JSON.
    ///
    /// They reach the client only if the error is for the client. A value that fails to serialize
    /// as JSON turns this into an internal error that says so.
    #[must_use]
    pub fn with_details<T: Serialize + ?Sized>(mut self, details: &T) -> Self {
        match serde_json::to_value(details) {
            Ok(details) => {
                self.0.details = Some(details);
                self
            }
            Err(error) => Self::message(format_args!("the details of an error failed to serialize as JSON: {error}")),
        }
    }

    /// Adds the cause of the error, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns the underlying error, which `?` converted or [`with_source`](Self::with_source) set.
    ///
    /// It is `None` for an [`InvalidBody`] or an [`InvalidId`], since it would quote the client.
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }

    /// Returns the code for the client: [`internal`](ErrorCode::INTERNAL) for an internal error.
    pub fn code(&self) -> &ErrorCode {
        const INTERNAL: &ErrorCode = &ErrorCode::INTERNAL;
        self.0.answer.as_ref().map_or(INTERNAL, |(code, _)| code)
    }

    /// Returns the text for the client, if there is one. It may quote the client's message.
    pub fn client_text(&self) -> Option<&str> {
        let (_, text) = self.0.answer.as_ref()?;
        Some(text.as_deref().unwrap_or(&self.0.text))
    }

    /// Returns the details for the client, if there are any.
    pub fn details(&self) -> Option<&Value> {
        self.0.details.as_ref().filter(|_| self.is_for_client())
    }

    /// Returns the error and its sources in one line, for the log.
    pub fn chain(&self) -> impl fmt::Display {
        let mut texts = self.0.source.as_deref().map(|source| texts(source)).unwrap_or_default();
        // An error converted by `?` has the same text as its source.
        if texts.first() != Some(&self.0.text) {
            texts.insert(0, self.0.text.clone());
        }
        texts.join(": ")
    }

    /// Converts the error into a boxed [`std::error::Error`].
    pub fn into_boxed(self) -> BoxError {
        Box::new(FailedInvocation::new(self))
    }

    /// Returns whether the client gets the code and the text.
    pub(crate) fn is_for_client(&self) -> bool {
        self.0.answer.is_some()
    }

    pub(super) fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// Returns the text for the log, which quotes nothing of the client's message.
    pub(crate) fn log_text(&self) -> String {
        match self.0.kind {
            // The text is for the client, and may quote its message.
            FailureKind::Refused if self.code().status().is_client_error() => {
                self.0.source.as_deref().map(|source| chain(source)).unwrap_or_default()
            }
            _ => self.chain().to_string(),
        }
    }

    /// Sets the source of a mapped error to that of the original.
    pub(super) fn caused_by(mut self, original: Self) -> Self {
        if self.0.source.is_none() {
            self.0.source = original.0.source;
        }
        self
    }
}

/// Converts any error, and any type that converts into a boxed error.
///
/// Examples are `anyhow::Error`, `Box<dyn Error + Send + Sync>`, `&'static str`, and `String`.
///
/// With the feature `anyhow`, the error inside an `anyhow::Error` counts as the outermost one.
/// Without it, only its text and its sources are known.
impl<E: Into<BoxError> + 'static> From<E> for Error {
    fn from(source: E) -> Self {
        let source = match boxed(source).downcast::<FailedInvocation>() {
            Ok(failed) => return failed.into_error(),
            Err(source) => source,
        };
        if let Some(mistake) = mistake(source.as_ref()) {
            return mistake;
        }
        let text = texts(source.as_ref()).into_iter().next().unwrap_or_default();
        Self::new(FailureKind::Internal, text).with_source(source)
    }
}

#[cfg(not(feature = "anyhow"))]
fn boxed<E: Into<BoxError>>(source: E) -> BoxError {
    source.into()
}

/// Unwraps an `anyhow::Error`, so that the error inside can be downcast to its type.
#[cfg(feature = "anyhow")]
fn boxed<E: Into<BoxError> + 'static>(source: E) -> BoxError {
    let mut source = Some(source);
    let any: &mut dyn std::any::Any = &mut source;
    if let Some(error) = any.downcast_mut::<Option<anyhow::Error>>().and_then(Option::take) {
        return error.reallocate_into_boxed_dyn_error_without_backtrace();
    }
    source.map_or_else(|| "an error without a message".into(), Into::into)
}

/// Returns the error for the client, if a value of the client caused it.
///
/// It has no source, since the text of a source would quote the client.
fn mistake(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mistake = |kind, text, client_text| Some(Error::mistake(kind, ErrorCode::INVALID_MESSAGE, text, client_text));
    if let Some(invalid) = error.downcast_ref::<InvalidBody>() {
        return mistake(FailureKind::InvalidBody, invalid.to_string(), invalid.client_text().to_owned());
    }
    if let Some(invalid) = error.downcast_ref::<InvalidId>() {
        return mistake(FailureKind::InvalidValue, invalid.unquoted(), invalid.to_string());
    }
    #[cfg(feature = "hub")]
    if let Some(refused @ JoinError::NotAllowed { .. }) = error.downcast_ref::<JoinError>() {
        let text = refused.to_string();
        return Some(Error::mistake(FailureKind::Refused, ErrorCode::FORBIDDEN, text.clone(), text));
    }
    #[cfg(feature = "registry")]
    if let Some(invalid @ InvalidData::TooLarge { .. }) = error.downcast_ref::<InvalidData>() {
        return mistake(FailureKind::InvalidValue, invalid.to_string(), invalid.to_string());
    }
    None
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// Shows the texts only: the `Debug` output of a source may contain a client's data.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("code", self.code())
            .field("text", &self.0.text)
            .field("source", &self.0.source.as_deref().map(|source| chain(source)))
            .finish()
    }
}

/// An error of a route that fails the Lambda invocation.
///
/// It has the text and the source of the [`Error`].
#[derive(Debug)]
pub struct FailedInvocation(Error);

impl FailedInvocation {
    pub(super) fn new(error: Error) -> Self {
        Self(error)
    }

    /// Returns the error that the route returned.
    pub fn into_error(self) -> Error {
        self.0
    }

    /// Returns the error and its sources in one line, for the log.
    pub fn chain(&self) -> impl fmt::Display {
        self.0.chain()
    }
}

impl fmt::Display for FailedInvocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for FailedInvocation {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source().map(|source| source as _)
    }
}
