//! What a route returns when it cannot answer.

use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;

use super::RejectionKind;
use crate::event::{chain, texts};

/// A route could not answer.
///
/// Any error becomes one with `?`. What becomes of it depends on whose mistake it is:
///
/// | made of | the client gets | the log gets |
/// |---|---|---|
/// | [`InvalidId`](crate::event::InvalidId), [`InvalidBody`](crate::event::InvalidBody), or data of a connection that are too large | 400 and the reason: a [`Rejection`](super::Rejection) | a warning that quotes nothing |
/// | [`Error::client`] with a status from 400 to 499 | that status and text | a warning with status and source |
/// | [`Error::client`] with another status | that status and text | an error with its sources |
/// | any other error, [`Error::message`] | 500 without detail | an error with its sources |
///
/// An [`InvalidId`](crate::event::InvalidId) among the sources of an error quotes nothing in the log either.
///
/// # Examples
///
/// ```
/// use lambda_websocket::route::{Error, StatusCode};
///
/// let quantity = "many".parse::<u32>().map_err(|error| {
///     Error::client(StatusCode::BAD_REQUEST, "the quantity is not a number").with_source(error)
/// });
/// assert_eq!(quantity.unwrap_err().to_string(), "the quantity is not a number");
/// ```
pub struct Error(Box<Inner>);

type BoxError = Box<dyn StdError + Send + Sync>;

struct Inner {
    /// For the log, and for the client if there is a status for it.
    text: String,
    answer: Option<StatusCode>,
    /// What the client did wrong. Such an error has no source, whose text would quote the client.
    rejection: Option<RejectionKind>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error whose text is for the log alone.
    pub fn message(text: impl fmt::Display) -> Self {
        Self(Box::new(Inner { text: text.to_string(), answer: None, rejection: None, source: None }))
    }

    /// An error whose status and text are for the client.
    ///
    /// On `$connect` the status becomes that of the handshake. A status that says success would let the client in, so it
    /// is replaced by 500. On the other routes the client sees the text where the route has a route response.
    pub fn client(status: StatusCode, text: impl fmt::Display) -> Self {
        let status = if status.is_success() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        Self(Box::new(Inner { text: text.to_string(), answer: Some(status), rejection: None, source: None }))
    }

    /// Adds what caused the error, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The error that `?` turned into this one, or that was given to [`with_source`](Self::with_source).
    ///
    /// A client's mistake has none.
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }

    /// The status and the text for the client, where there are some.
    pub fn answer(&self) -> Option<(StatusCode, &str)> {
        if let Some(rejection) = &self.0.rejection {
            return Some((StatusCode::BAD_REQUEST, rejection.client_text()));
        }
        self.0.answer.map(|status| (status, self.0.text.as_str()))
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

    /// What the client did wrong, if that is why the route could not answer.
    pub(super) fn rejection(self) -> Result<RejectionKind, Self> {
        match self.0.rejection {
            Some(rejection) => Ok(rejection),
            None => Err(self),
        }
    }
}

/// Any error, and whatever else becomes a boxed one: `anyhow::Error`, `Box<dyn Error + Send + Sync>`, `&str`, `String`.
impl<E: Into<BoxError>> From<E> for Error {
    fn from(source: E) -> Self {
        let source = match source.into().downcast::<FailedInvocation>() {
            // It has been through a layer.
            Ok(failed) => return failed.into_error(),
            Err(source) => source,
        };
        if let Some(rejection) = RejectionKind::from_error(source.as_ref()) {
            let text = rejection.log_text();
            return Self(Box::new(Inner { text, answer: None, rejection: Some(rejection), source: None }));
        }
        let text = texts(source.as_ref()).into_iter().next().unwrap_or_default();
        Self(Box::new(Inner { text, answer: None, rejection: None, source: Some(source) }))
    }
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
            .field("text", &self.0.text)
            .field("answer", &self.0.answer)
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
