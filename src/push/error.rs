//! The error of a push.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::event::{ApiId, ConnectionId, Stage, chain};

type Source = Box<dyn StdError + Send + Sync>;

/// A push, a close, or a query of a connection failed.
///
/// [`source`](StdError::source) has the error that API Gateway returned.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The connection is closed, or not open yet, because `$connect` has not completed: 410.
    ///
    /// A connection opened in the last few seconds may still become available.
    #[error(
        "the connection {connection_id} is gone, or not open yet: API Gateway opens it only after `$connect` has \
         returned"
    )]
    Gone {
        /// The connection that is not open.
        connection_id: ConnectionId,
    },
    /// The payload is larger than the 131072 bytes that one push can carry.
    ///
    /// The crate rejects it before sending, or API Gateway returns 413.
    #[error("the payload has {size} bytes, more than the maximum of 131072 for one push")]
    TooLarge {
        /// The size of the payload in bytes.
        size: usize,
    },
    /// The account sends too much, or the client reads too slowly: 429.
    ///
    /// Retried, for a [bounded time](crate::Pusher::with_throttle_timeout).
    #[error("the push to {connection_id} was throttled")]
    Throttled {
        /// The connection that was pushed to.
        connection_id: ConnectionId,
    },
    /// The client does not read what is pushed to it.
    ///
    /// Its connection returned 429 repeatedly, while others of the same broadcast succeeded. API
    /// Gateway buffers unread messages, up to a limit. Close the connection, or let the client
    /// catch up.
    #[error("the client of {connection_id} does not read its messages")]
    SlowConsumer {
        /// The connection whose client does not read.
        connection_id: ConnectionId,
    },
    /// The caller is not allowed to push here: 403.
    #[error(
        "not allowed to push to {connection_id}: the role needs `execute-api:ManageConnections` on this API and stage, \
         and the endpoint must be this API's"
    )]
    Forbidden {
        /// The connection that was pushed to.
        connection_id: ConnectionId,
        /// The error that API Gateway returned.
        source: Source,
    },
    /// API Gateway rejected the request, such as one with an invalid connection id: 400.
    #[error("API Gateway refused the request about the connection {connection_id}")]
    BadRequest {
        /// The connection of the request.
        connection_id: ConnectionId,
        /// The error that API Gateway returned.
        source: Source,
    },
    /// API Gateway failed: 5xx. Retried for 500, 502, 503, and 504.
    #[error("API Gateway failed with status {status}")]
    Unavailable {
        /// The status of the response.
        status: StatusCode,
        /// The error that API Gateway returned.
        source: Source,
    },
    /// The endpoint is unreachable, or closed the connection early. Retried.
    #[error("the endpoint cannot be reached")]
    Unreachable {
        /// The error of the HTTP client.
        source: Source,
    },
    /// There was no response in time; the push may have arrived. Retried while there is time.
    #[error("no response within {} ms", .after.as_millis())]
    TimedOut {
        /// The time that passed without a response.
        after: Duration,
    },
    /// There are no usable credentials to sign with.
    #[error("there are no AWS credentials to sign with")]
    Credentials {
        /// Why there are no usable credentials.
        source: Source,
    },
    /// The endpoint's certificate is not trusted, so nothing was sent.
    #[error("the endpoint's certificate is not trusted")]
    Untrusted {
        /// The error of the TLS handshake.
        source: Source,
    },
    /// A broadcast was interrupted before the response; the payload may have arrived.
    #[error("interrupted before the response arrived")]
    Interrupted,
    /// The connection belongs to an API or stage that has no pusher.
    #[error("no pusher for {api_id}/{stage}, the API and stage of the connection {connection_id}")]
    OtherApi {
        /// The connection that was not pushed to.
        connection_id: ConnectionId,
        /// The connection's API.
        api_id: ApiId,
        /// The connection's stage.
        stage: Stage,
    },
    /// The value failed to serialize as JSON.
    #[error("the payload failed to serialize as JSON")]
    NotJson {
        /// The error of the serializer.
        source: serde_json::Error,
    },
    /// The response has a status that `@connections` does not use.
    ///
    /// It may come from something other than a WebSocket API.
    #[error("unexpected status {status}: is the endpoint that of a WebSocket API, with its stage?")]
    Unexpected {
        /// The status of the response.
        status: StatusCode,
        /// The error in the response.
        source: Source,
    },
}

impl PushError {
    /// Classifies a response of `@connections`. Returns `None` for a success.
    ///
    /// The status decides. If it is not one of the API's own, the `x-amzn-ErrorType` header
    /// decides, and then the type in the body. Body and header may both be missing.
    pub fn from_response(
        connection_id: &ConnectionId,
        payload_size: usize,
        status: StatusCode,
        error_type: Option<&str>,
        body: &[u8],
    ) -> Option<Self> {
        if status.is_success() {
            return None;
        }
        let said = Said::new(error_type, body);
        let connection_id = connection_id.clone();
        Some(match status.as_u16() {
            400 => Self::BadRequest { connection_id, source: said.into() },
            403 => Self::Forbidden { connection_id, source: said.into() },
            410 => Self::Gone { connection_id },
            413 => Self::TooLarge { size: payload_size },
            429 => Self::Throttled { connection_id },
            500..=599 => Self::Unavailable { status, source: said.into() },
            _ => match said.kind.as_str() {
                "GoneException" => Self::Gone { connection_id },
                "ForbiddenException" | "AccessDeniedException" => {
                    Self::Forbidden { connection_id, source: said.into() }
                }
                "PayloadTooLargeException" => Self::TooLarge { size: payload_size },
                "LimitExceededException" | "TooManyRequestsException" | "ThrottlingException" => {
                    Self::Throttled { connection_id }
                }
                "BadRequestException" => Self::BadRequest { connection_id, source: said.into() },
                _ => Self::Unexpected { status, source: said.into() },
            },
        })
    }

    /// Returns whether the credentials or the time of the signature were rejected, rather than the
    /// request itself.
    #[cfg(feature = "direct")]
    pub(super) fn is_about_signature(&self) -> bool {
        const KINDS: [&str; 8] = [
            "ExpiredTokenException",
            "ExpiredToken",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ];
        let Self::Forbidden { source, .. } = self else {
            return false;
        };
        source.downcast_ref::<Said>().is_some_and(|said| KINDS.contains(&said.kind.as_str()))
    }

    /// Returns the kind of the error for metrics and logs, such as `gone` or `timed_out`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gone { .. } => "gone",
            Self::TooLarge { .. } => "too_large",
            Self::Throttled { .. } => "throttled",
            Self::SlowConsumer { .. } => "slow_consumer",
            Self::Forbidden { .. } => "forbidden",
            Self::BadRequest { .. } => "bad_request",
            Self::Unavailable { .. } => "unavailable",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Credentials { .. } => "credentials",
            Self::Untrusted { .. } => "untrusted",
            Self::Interrupted => "interrupted",
            Self::OtherApi { .. } => "other_api",
            Self::NotJson { .. } => "not_json",
            Self::Unexpected { .. } => "unexpected",
        }
    }

    /// Returns whether the same push may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Unavailable { status, .. } => matches!(status.as_u16(), 500 | 502 | 503 | 504),
            Self::Gone { .. }
            | Self::TooLarge { .. }
            | Self::SlowConsumer { .. }
            | Self::Forbidden { .. }
            | Self::BadRequest { .. }
            | Self::Credentials { .. }
            | Self::Untrusted { .. }
            | Self::Interrupted
            | Self::OtherApi { .. }
            | Self::NotJson { .. }
            | Self::Unexpected { .. } => false,
        }
    }
}

/// Prints the error and its sources, because `main` prints the `Debug` form of an error that it
/// returns.
impl fmt::Debug for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// The error type and message of a response.
#[derive(Debug, thiserror::Error)]
#[error("{kind}{}{message}", if .kind.is_empty() || .message.is_empty() { "" } else { ": " })]
struct Said {
    kind: String,
    message: String,
}

impl Said {
    fn new(error_type: Option<&str>, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct ErrorBody {
            #[serde(rename = "__type", alias = "code")]
            kind: Option<String>,
            // IAM capitalizes it.
            #[serde(alias = "Message")]
            message: Option<String>,
        }
        let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let kind = error_type.map(str::to_owned).or(body.kind).unwrap_or_default();
        // Both `GoneException:http://…` and `com.amazonaws…#GoneException` are in use.
        let kind = kind.split(':').next().unwrap_or_default().trim();
        let kind = kind.rsplit('#').next().unwrap_or_default().to_owned();
        let message = body.message.unwrap_or_default();
        if kind.is_empty() && message.is_empty() {
            return Self { kind, message: "the response has no error message".to_owned() };
        }
        Self { kind, message }
    }
}
