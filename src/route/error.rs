//! What a route returns when it cannot answer.

use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;

/// A route could not answer.
///
/// Any error becomes one with `?`: the client then gets a 500 without detail, and the log gets the error with its
/// sources. [`Error::client`] says what the client shall get instead.
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

struct Inner {
    text: String,
    answer: Option<StatusCode>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error whose text is for the log alone.
    pub fn message(text: impl fmt::Display) -> Self {
        Self(Box::new(Inner { text: text.to_string(), answer: None, source: None }))
    }

    /// An error whose status and text are for the client.
    ///
    /// On `$connect` the status becomes that of the handshake. A status that says success would let the client in, so it
    /// is replaced by 500. On the other routes the client sees the text where the route has a route response.
    pub fn client(status: StatusCode, text: impl fmt::Display) -> Self {
        let status = if status.is_success() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        Self(Box::new(Inner { text: text.to_string(), answer: Some(status), source: None }))
    }

    /// Adds what caused the error, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The error that `?` turned into this one, or that was given to [`with_source`](Self::with_source).
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }

    /// The status and the text for the client, where there are some.
    pub fn answer(&self) -> Option<(StatusCode, &str)> {
        self.0.answer.map(|status| (status, self.0.text.as_str()))
    }

    /// The error and its sources in one line, for a log.
    pub fn chain(&self) -> impl fmt::Display {
        Chain(self)
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(source: E) -> Self {
        Self(Box::new(Inner { text: source.to_string(), answer: None, source: Some(Box::new(source)) }))
    }
}

impl From<Error> for Box<dyn StdError + Send + Sync> {
    fn from(error: Error) -> Self {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Boxed {
            text: String,
            source: Option<Box<dyn StdError + Send + Sync>>,
        }
        Box::new(Boxed { text: error.0.text, source: error.0.source })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("text", &self.0.text)
            .field("answer", &self.0.answer)
            .field("source", &self.0.source)
            .finish()
    }
}

struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut last = self.0.to_string();
        let mut next = self.0.source().map(|source| source as &dyn StdError);
        while let Some(error) = next {
            let text = error.to_string();
            if text != last {
                write!(f, ": {text}")?;
            }
            last = text;
            next = error.source();
        }
        Ok(())
    }
}
