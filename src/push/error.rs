//! Why a push did not arrive.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::event::{ApiId, ConnectionId, Stage, chain};

type Source = Box<dyn StdError + Send + Sync>;

/// A push, a close or a question about a connection failed.
///
/// What API Gateway itself said is behind [`source`](StdError::source).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The connection is closed, or `$connect` has not been answered yet: 410.
    ///
    /// A connection that is younger than a few seconds may still come about.
    #[error(
        "the connection {connection_id} is gone, or not open yet: API Gateway opens it only after `$connect` has been answered"
    )]
    Gone {
        /// The connection.
        connection_id: ConnectionId,
    },
    /// The payload has more than the 131072 bytes that one push can carry: refused here, or 413.
    #[error("the payload has {size} bytes, of which one push carries at most 131072")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The account sends too much, or the client reads too slowly: 429. Retried, for a [bounded
    /// time](crate::Pusher::with_throttle_timeout).
    #[error("the push to {connection_id} was throttled")]
    Throttled {
        /// The connection.
        connection_id: ConnectionId,
    },
    /// The client does not read: its connection answered 429 again and again, while others of the same broadcast got through.
    ///
    /// API Gateway keeps what it has not read yet, up to a limit. Close the connection, or leave it to the client to catch up.
    #[error("the client of {connection_id} does not read what is pushed to it")]
    SlowConsumer {
        /// The connection.
        connection_id: ConnectionId,
    },
    /// The caller may not push here: 403.
    #[error(
        "not allowed to push to {connection_id}: the role needs `execute-api:ManageConnections` on this API and stage, \
         and the endpoint must be this API's"
    )]
    Forbidden {
        /// The connection.
        connection_id: ConnectionId,
        /// What API Gateway said.
        source: Source,
    },
    /// API Gateway does not take the request: 400, as for an id that is not one of its own.
    #[error("API Gateway refused the request about the connection {connection_id}")]
    BadRequest {
        /// The connection.
        connection_id: ConnectionId,
        /// What API Gateway said.
        source: Source,
    },
    /// API Gateway failed: 5xx. Retried.
    #[error("API Gateway failed with status {status}")]
    Unavailable {
        /// The status.
        status: StatusCode,
        /// What API Gateway said.
        source: Source,
    },
    /// The endpoint cannot be reached, or it broke off. Retried.
    #[error("the endpoint cannot be reached")]
    Unreachable {
        /// Why not.
        source: Source,
    },
    /// There was no answer in time. Whether the push arrived is not known. Retried while there is time.
    #[error("no answer within {} ms", .after.as_millis())]
    TimedOut {
        /// How long it took.
        after: Duration,
    },
    /// There are no credentials to sign with.
    #[error("there are no AWS credentials to sign with")]
    Credentials {
        /// Why not.
        source: Source,
    },
    /// The endpoint's certificate is not trusted, so nothing was sent.
    #[error("the endpoint's certificate is not trusted")]
    Untrusted {
        /// Why not.
        source: Source,
    },
    /// A broadcast was interrupted before the answer came; the payload may have arrived.
    #[error("interrupted before the answer came")]
    Interrupted,
    /// The connection is one of another API or stage than those that can be pushed to.
    #[error("the connection {connection_id} is one of {api_id}/{stage}, for which there is no pusher")]
    OtherApi {
        /// The connection.
        connection_id: ConnectionId,
        /// Its API.
        api_id: ApiId,
        /// Its stage.
        stage: Stage,
    },
    /// The value failed to serialize as JSON.
    #[error("the payload failed to serialize as JSON")]
    NotJson {
        /// Why not.
        source: serde_json::Error,
    },
    /// The answer has a status that `@connections` does not have. It may come from something else.
    #[error("unexpected status {status}: is the endpoint that of a WebSocket API, with its stage?")]
    Unexpected {
        /// The status.
        status: StatusCode,
        /// What the answer said.
        source: Source,
    },
}

impl PushError {
    /// What an answer of `@connections` means.
    ///
    /// The status decides; where it is not one of the API's own, the `x-amzn-ErrorType` header does, and then the type in
    /// the body. Body and header may both be missing. `None` for a success.
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

    /// Whether the credentials, or the time of the signature, were refused, rather than what was asked for.
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

    /// Returns the kind of the error as a fixed text for metrics and logs, such as `gone` or `timed_out`.
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

    /// Whether the same push may succeed a little later.
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

/// The texts of the error and its sources: it is what a `main` prints that returns the error.
impl fmt::Debug for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// What an error answer said of itself.
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
            // IAM spells it with a capital.
            #[serde(alias = "Message")]
            message: Option<String>,
        }
        let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let kind = error_type.map(str::to_owned).or(body.kind).unwrap_or_default();
        // `GoneException:http://…` and `com.amazonaws…#GoneException` are both in use.
        let kind = kind.split(':').next().unwrap_or_default().trim();
        let kind = kind.rsplit('#').next().unwrap_or_default().to_owned();
        let message = body.message.unwrap_or_default();
        if kind.is_empty() && message.is_empty() {
            return Self { kind, message: "the answer says nothing more".to_owned() };
        }
        Self { kind, message }
    }
}
