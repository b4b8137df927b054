//! What a route returns when it cannot answer.

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

/// A route, or a job, has no result.
///
/// Any error becomes one with `?`. What becomes of it depends on whose mistake it is:
///
/// | made of | the client gets | the log gets |
/// |---|---|---|
/// | [`Error::client`] with a code whose status is from 400 to 499 | its code, text and details | a warning with the code and the source |
/// | [`Error::client`] with another code | its code, text and details | an error with its sources |
/// | [`InvalidBody`], [`InvalidId`], or data of a connection that are too large | `invalid_message` and the reason | a warning that quotes nothing |
/// | an error for which a mapping of [`Router::map_error`](super::Router::map_error) has one of these | the same | the same |
/// | any other error, [`Error::message`] | `internal`, with the request id and nothing else | an error with its sources |
///
/// The outermost error decides: an [`Error`] that is [boxed](Self::into_boxed) and comes back through `?` is what it was, while one
/// that is only the source of another error, by `context` or `#[source]`, is not for the client. Mappings, however, look for
/// their type among the sources, too. An [`InvalidId`] among the sources quotes nothing in the log.
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
    /// For the log. Of an error for the client whose text is not for the log, this is one that quotes nothing.
    text: String,
    /// The code and the text for the client, if there are some; without a text, that for the log is for the client.
    answer: Option<(ErrorCode, Option<String>)>,
    details: Option<Value>,
    source: Option<BoxError>,
}

impl Error {
    fn new(kind: FailureKind, text: String) -> Self {
        Self(Box::new(Inner { kind, text, answer: None, details: None, source: None }))
    }

    /// Creates an error whose text is for the log alone.
    pub fn message(text: impl fmt::Display) -> Self {
        Self::new(FailureKind::Internal, text.to_string())
    }

    /// Creates an error whose code and text are for the client.
    ///
    /// The code is an [`ErrorCode`], or the [`StatusCode`] of one. On `$connect` its status becomes that of the handshake.
    pub fn client(code: impl Into<ErrorCode>, text: impl fmt::Display) -> Self {
        let mut error = Self::new(FailureKind::Refused, text.to_string());
        error.0.answer = Some((code.into(), None));
        error
    }

    /// The client's mistake: what the log says, and what the client reads.
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

    /// A reply that is too large for a message: our mistake, of which the client learns what it is.
    pub(crate) fn reply_too_large(size: usize, limit: usize) -> Self {
        let mut error = Self::new(
            FailureKind::ReplyTooLarge,
            format!("the reply has {size} bytes, and a message carries at most {limit}"),
        );
        error.0.answer = Some((ErrorCode::TOO_LARGE.with_status(StatusCode::INTERNAL_SERVER_ERROR), None));
        error
    }

    /// Adds what the client's program needs to know about the error, as JSON.
    ///
    /// Only the details of an error that is for the client reach it. A value that fails to serialize as JSON makes the error an
    /// internal one that says so.
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

    /// Adds what caused the error, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The error that `?` turned into this one, or that was given to [`with_source`](Self::with_source).
    ///
    /// A client's mistake has none.
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }

    /// The code that the client gets: [`internal`](ErrorCode::INTERNAL) if the error is not for the client.
    pub fn code(&self) -> &ErrorCode {
        const INTERNAL: &ErrorCode = &ErrorCode::INTERNAL;
        self.0.answer.as_ref().map_or(INTERNAL, |(code, _)| code)
    }

    /// The text for the client, where there is one. It may quote what the client has sent.
    pub fn client_text(&self) -> Option<&str> {
        let (_, text) = self.0.answer.as_ref()?;
        Some(text.as_deref().unwrap_or(&self.0.text))
    }

    /// The details for the client, where there are some.
    pub fn details(&self) -> Option<&Value> {
        self.0.details.as_ref().filter(|_| self.is_for_client())
    }

    /// The error and its sources in one line, for a log.
    pub fn chain(&self) -> impl fmt::Display {
        let mut texts = self.0.source.as_deref().map(|source| texts(source)).unwrap_or_default();
        // An error that `?` has turned into this one has the same text.
        if texts.first() != Some(&self.0.text) {
            texts.insert(0, self.0.text.clone());
        }
        texts.join(": ")
    }

    /// Returns the error as one that implements [`std::error::Error`].
    pub fn into_boxed(self) -> BoxError {
        Box::new(FailedInvocation::new(self))
    }

    /// Whether the client gets its code and its text.
    pub(crate) fn is_for_client(&self) -> bool {
        self.0.answer.is_some()
    }

    pub(super) fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// What the log says of the error, which quotes nothing of the client.
    pub(crate) fn log_text(&self) -> String {
        match self.0.kind {
            // The text is the client's, and may quote it.
            FailureKind::Refused if self.code().status().is_client_error() => {
                self.0.source.as_deref().map(|source| chain(source)).unwrap_or_default()
            }
            _ => self.chain().to_string(),
        }
    }

    /// Keeps what has become this error by a mapping.
    pub(super) fn caused_by(mut self, original: Self) -> Self {
        if self.0.source.is_none() {
            self.0.source = original.0.source;
        }
        self
    }
}

/// Any error, and whatever else becomes a boxed one: `anyhow::Error`, `Box<dyn Error + Send + Sync>`, `&'static str`, `String`.
///
/// With the feature `anyhow` the error inside an `anyhow::Error` counts as the outermost one. Without it, what is inside is
/// known by its text and its sources alone.
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

/// The error inside an `anyhow::Error` is boxed as what it is, so that it can be told by its type.
#[cfg(feature = "anyhow")]
fn boxed<E: Into<BoxError> + 'static>(source: E) -> BoxError {
    let mut source = Some(source);
    let any: &mut dyn std::any::Any = &mut source;
    if let Some(error) = any.downcast_mut::<Option<anyhow::Error>>().and_then(Option::take) {
        return error.reallocate_into_boxed_dyn_error_without_backtrace();
    }
    source.map_or_else(|| "an error without a text".into(), Into::into)
}

/// What an error that a route returns says about the client's values, if it does.
///
/// Such an error has no source, whose text would quote the client.
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

/// Shows texts alone: what sources show of themselves may be a client's.
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

/// An error of a route that fails its Lambda invocation.
///
/// Its text is that of the [`Error`], and its source is the error's source.
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

    /// Returns the error and its sources in one line, for a log.
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
