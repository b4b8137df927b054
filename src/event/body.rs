//! The body of a message.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;

use super::InvalidEvent;

/// The undecoded body of a message: at most 128 KB.
///
/// API Gateway passes text frames as they are. It sets `isBase64Encoded` for binary bodies, which
/// are decoded from base64 here.
///
/// See the
/// [quotas](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html).
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// A text frame, verbatim.
    Text(String),
    /// A binary body, decoded from base64.
    Bytes(Vec<u8>),
}

impl Body {
    pub(super) fn new(text: String, is_base64_encoded: bool) -> Result<Self, InvalidEvent> {
        if !is_base64_encoded {
            return Ok(Self::Text(text));
        }
        STANDARD.decode(text).map(Self::Bytes).map_err(|_| InvalidEvent::Member {
            member: "body".to_owned(),
            reason: "expected base64, since `isBase64Encoded` is true".to_owned(),
        })
    }

    /// Returns the body as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Returns the body as text, with invalid UTF-8 replaced by U+FFFD.
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes),
        }
    }

    /// Deserializes the body from JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidBody`] if the body is not JSON or does not fit `T`. Its
    /// [`client_text`](InvalidBody::client_text) names the member.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::event::Body;
    ///
    /// #[derive(Debug, serde::Deserialize)]
    /// struct Say {
    ///     text: String,
    /// }
    ///
    /// let error = Body::Text(r#"{"text": 7}"#.into()).json::<Say>().unwrap_err();
    /// assert_eq!(
    ///     error.client_text(),
    ///     "text: invalid type: integer `7`, expected a string at line 1 column 10"
    /// );
    /// ```
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, InvalidBody> {
        match self {
            Self::Text(text) => serde_json::from_str(text),
            Self::Bytes(bytes) => serde_json::from_slice(bytes),
        }
        .map_err(|error| InvalidBody::locate::<T>(error, self.as_bytes()))
    }
}

/// Shows the kind and the length. The content may be confidential.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, length) = match self {
            Self::Text(text) => ("Text", text.len()),
            Self::Bytes(bytes) => ("Bytes", bytes.len()),
        };
        write!(f, "{kind}({length} bytes)")
    }
}

/// The body of a message does not fit the type that its route takes.
///
/// Its `Display` gives the position and quotes nothing of the body, so it can be logged.
/// [`client_text`](Self::client_text) explains the problem to the client that sent the body.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message body is not {expected}: line {line}, column {column}")]
pub struct InvalidBody {
    expected: &'static str,
    line: usize,
    column: usize,
    client_text: Box<str>,
}

impl InvalidBody {
    /// Returns the problem, with the member's path and the value found.
    ///
    /// Only send it to the client that sent the body.
    pub fn client_text(&self) -> &str {
        &self.client_text
    }

    /// Parses the body again, this time tracking the path. Only rejected bodies pay for this.
    fn locate<T: DeserializeOwned>(error: serde_json::Error, body: &[u8]) -> Self {
        let expected = if error.is_data() { "valid for the route" } else { "JSON" };
        let json = &mut serde_json::Deserializer::from_slice(body);
        let path = serde_path_to_error::deserialize::<_, T>(json)
            .err()
            .filter(|_| error.is_data())
            .map(|error| error.path().to_string())
            .filter(|path| path != ".");
        let mut client_text = match path {
            Some(path) => format!("{path}: {error}"),
            None => error.to_string(),
        };
        // The error quotes the value found, which may be as long as the body.
        const MAX_CHARS: usize = 512;
        if let Some((end, _)) = client_text.char_indices().nth(MAX_CHARS) {
            client_text.truncate(end);
            client_text.push('…');
        }
        Self { expected, line: error.line(), column: error.column(), client_text: client_text.into() }
    }
}

impl fmt::Debug for InvalidBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidBody")
            .field("expected", &self.expected)
            .field("line", &self.line)
            .field("column", &self.column)
            .finish_non_exhaustive()
    }
}
