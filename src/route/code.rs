//! Error codes that client programs can match on.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::StatusCode;
use smol_str::SmolStr;

use crate::event::InvalidId;

/// A stable, machine-readable error code, such as `invalid_message`.
///
/// Each code has an HTTP status. On `$connect` it is the status of the handshake. On other routes
/// the client does not see it; a status from 400 to 499 marks a client's mistake. Two codes are
/// equal if their strings are.
///
/// | code | status | returned by |
/// |---|---|---|
/// | [`invalid_message`](Self::INVALID_MESSAGE) | 400 | the router: the message does not fit its route |
/// | [`unknown_action`](Self::UNKNOWN_ACTION) | 404 | the router: no route matches the message |
/// | [`authorization_expired`](Self::AUTHORIZATION_EXPIRED) | 401 | the router, if it [closes expired connections](crate::Router::close_expired) |
/// | [`too_large`](Self::TOO_LARGE) | 413 | the router and the worker: a reply has more than 128 KB |
/// | [`internal`](Self::INTERNAL) | 500 | the router and the worker: an error that is not for the client |
/// | `unauthorized`, `forbidden`, `not_found`, `conflict`, `too_many_requests`, `timeout`, `unavailable` | 401, 403, 404, 409, 429, 504, 503 | your routes |
/// | your own | 400, or as [set](Self::with_status) | your routes |
///
/// # Examples
///
/// ```
/// use lambda_websocket::route::{Error, ErrorCode, StatusCode};
///
/// // A text that is not legal does not compile.
/// const SOLD_OUT: ErrorCode =
///     ErrorCode::new("sold_out").with_status(StatusCode::CONFLICT);
///
/// let error = Error::client(SOLD_OUT, "the last ticket is sold");
/// assert_eq!(error.code().as_str(), "sold_out");
/// assert_eq!(ErrorCode::from(StatusCode::FORBIDDEN), ErrorCode::FORBIDDEN);
/// ```
#[derive(Clone)]
pub struct ErrorCode {
    text: SmolStr,
    status: StatusCode,
}

const EXPECTED: &str = "1 to 64 of `a-z 0-9 _ . -`";

impl ErrorCode {
    /// 400: the message does not fit its route.
    pub const INVALID_MESSAGE: Self = Self::known("invalid_message", StatusCode::BAD_REQUEST);
    /// 401: the client is not authenticated.
    pub const UNAUTHORIZED: Self = Self::known("unauthorized", StatusCode::UNAUTHORIZED);
    /// 401: the client's authorization has expired. It may connect again, with a new token.
    pub const AUTHORIZATION_EXPIRED: Self = Self::known("authorization_expired", StatusCode::UNAUTHORIZED);
    /// 403: the client lacks permission.
    pub const FORBIDDEN: Self = Self::known("forbidden", StatusCode::FORBIDDEN);
    /// 404: no route matches the message.
    pub const UNKNOWN_ACTION: Self = Self::known("unknown_action", StatusCode::NOT_FOUND);
    /// 404: the requested resource does not exist.
    pub const NOT_FOUND: Self = Self::known("not_found", StatusCode::NOT_FOUND);
    /// 409: the request conflicts with the current state.
    pub const CONFLICT: Self = Self::known("conflict", StatusCode::CONFLICT);
    /// 413: the message, or the reply to it, is too large.
    pub const TOO_LARGE: Self = Self::known("too_large", StatusCode::PAYLOAD_TOO_LARGE);
    /// 429: the client sends too many requests.
    pub const TOO_MANY_REQUESTS: Self = Self::known("too_many_requests", StatusCode::TOO_MANY_REQUESTS);
    /// 500: the service failed.
    pub const INTERNAL: Self = Self::known("internal", StatusCode::INTERNAL_SERVER_ERROR);
    /// 503: the service is temporarily unavailable.
    pub const UNAVAILABLE: Self = Self::known("unavailable", StatusCode::SERVICE_UNAVAILABLE);
    /// 504: the request took too long.
    pub const TIMEOUT: Self = Self::known("timeout", StatusCode::GATEWAY_TIMEOUT);

    /// Creates a code with status 400. It has 1 to 64 of `a-z 0-9 _ . -`.
    ///
    /// For a string that is only known at run time, use `TryFrom<&str>`.
    ///
    /// # Panics
    ///
    /// If the string is not a valid code. In a `const` this is a compile error.
    #[track_caller]
    pub const fn new(text: &'static str) -> Self {
        assert!(is_legal(text.as_bytes()), "an error code has 1 to 64 of `a-z 0-9 _ . -`");
        Self::known(text, StatusCode::BAD_REQUEST)
    }

    /// Sets the status.
    ///
    /// A success status would accept a connection on `$connect`, so it becomes 500.
    #[must_use]
    pub const fn with_status(self, status: StatusCode) -> Self {
        // `Self` has a destructor, so a `const fn` cannot destructure it.
        let mut code = self;
        code.status = match status.as_u16() {
            200..=299 => StatusCode::INTERNAL_SERVER_ERROR,
            _ => status,
        };
        code
    }

    /// Returns the code as a string slice.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    const fn known(text: &'static str, status: StatusCode) -> Self {
        Self { text: SmolStr::new_static(text), status }
    }
}

const fn is_legal(mut text: &[u8]) -> bool {
    if text.is_empty() || text.len() > 64 {
        return false;
    }
    while let [first, rest @ ..] = text {
        if !matches!(first, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-') {
            return false;
        }
        text = rest;
    }
    true
}

/// Returns the code of a status: `invalid_message` for 400.
///
/// A status without a code of its own uses its name, such as `unprocessable_entity`.
impl From<StatusCode> for ErrorCode {
    fn from(status: StatusCode) -> Self {
        let known = match status.as_u16() {
            400 => Self::INVALID_MESSAGE,
            401 => Self::UNAUTHORIZED,
            403 => Self::FORBIDDEN,
            404 => Self::NOT_FOUND,
            408 | 504 => Self::TIMEOUT,
            409 => Self::CONFLICT,
            413 => Self::TOO_LARGE,
            429 => Self::TOO_MANY_REQUESTS,
            200..=299 | 500 => Self::INTERNAL,
            503 => Self::UNAVAILABLE,
            other => {
                let reason = status.canonical_reason().map(|reason| {
                    let legal = reason.chars().filter(|character| *character != '\'');
                    legal.map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
                });
                let text: String = reason.unwrap_or_else(|| format!("status_{other}"));
                Self { text: text.into(), status }
            }
        };
        known.with_status(status)
    }
}

impl TryFrom<&str> for ErrorCode {
    type Error = InvalidId;

    fn try_from(text: &str) -> Result<Self, InvalidId> {
        match is_legal(text.as_bytes()) {
            true => Ok(Self { text: text.into(), status: StatusCode::BAD_REQUEST }),
            false => Err(InvalidId::new("error code", EXPECTED, text)),
        }
    }
}

impl PartialEq for ErrorCode {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ErrorCode {}

impl Hash for ErrorCode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorCode({}, {})", self.text, self.status.as_u16())
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}
