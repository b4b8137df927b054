//! Pushes messages to connections, from any code that knows their ids.
//!
//! A [`Pusher`] serializes a payload, checks its size, and retries until a deadline. It sends to
//! one connection, [broadcasts](Pusher::broadcast) to many and reports each outcome, or
//! [streams](Pusher::stream) the tokens of a language model to one. The transport below it is a
//! [`Push`], which makes single attempts: [`Sdk`] over the AWS SDK, [`Direct`] without it,
//! [`Recorder`] for unit tests, or your own.
//!
//! | transport | use it when the function |
//! |---|---|
//! | [`Sdk`] | already depends on the AWS SDK, needs its credential sources, or pushes occasionally |
//! | [`Direct`] | broadcasts, has little memory and thus little CPU, or needs a short cold start and a small binary |

mod broadcast;
#[cfg(feature = "direct")]
mod direct;
mod endpoint;
mod error;
mod incomplete;
mod info;
#[cfg(any(feature = "sdk", feature = "direct"))]
mod opening;
mod payload;
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
mod pushers;
mod recorder;
#[cfg(any(feature = "sdk", feature = "direct"))]
mod roots;
#[cfg(feature = "sdk")]
mod sdk;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

#[cfg(feature = "hub")]
pub(crate) use self::broadcast::Content;
pub use self::broadcast::{Broadcast, FailedPush, Report};
#[cfg(feature = "direct")]
pub use self::direct::{Direct, NotConfigured};
pub use self::endpoint::{Endpoint, InvalidEndpoint};
pub use self::error::PushError;
pub use self::incomplete::Incomplete;
pub use self::info::ConnectionInfo;
pub use self::payload::{MAX_PAYLOAD_BYTES, Payload};
pub(crate) use self::pushers::Pushers;
pub use self::recorder::{RecordedPush, Recorder};
#[cfg(any(feature = "sdk", feature = "direct"))]
pub use self::roots::UntrustedRoot;
#[cfg(feature = "sdk")]
pub use self::sdk::Sdk;
pub use self::stream::{PendingStream, StreamEnd, StreamError, StreamReport};
use crate::event::ConnectionId;
use crate::metrics::PushTimer;
use crate::retry::{Attempts, Passing, Span};

/// A transport that reaches connections. Each call is a single attempt.
#[async_trait]
pub trait Push: Send + Sync + fmt::Debug {
    /// Sends a payload as one text frame.
    ///
    /// # Errors
    ///
    /// For a response, [`PushError::Gone`], [`PushError::Throttled`], [`PushError::Unavailable`],
    /// [`PushError::Forbidden`], [`PushError::BadRequest`], [`PushError::TooLarge`], or
    /// [`PushError::Unexpected`], as [`PushError::from_response`] classifies it. Without a
    /// response, [`PushError::Unreachable`], [`PushError::Untrusted`], or
    /// [`PushError::Credentials`].
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError>;

    /// Queries a connection's status.
    ///
    /// # Errors
    ///
    /// As for [`post`](Self::post), except [`PushError::TooLarge`].
    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError>;

    /// Closes a connection.
    ///
    /// # Errors
    ///
    /// As for [`post`](Self::post), except [`PushError::TooLarge`].
    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError>;

    /// Returns the endpoint that this transport calls, if there is exactly one.
    ///
    /// A [`Hub`](crate::hub::Hub) does not send it connections of another API.
    fn endpoint(&self) -> Option<&Endpoint> {
        None
    }

    /// Prepares the transport ahead of the first push. Default: does nothing.
    ///
    /// # Errors
    ///
    /// [`PushError::Credentials`], [`PushError::Untrusted`], and [`PushError::Unreachable`].
    async fn warm_up(&self) -> Result<(), PushError> {
        Ok(())
    }
}

/// Sends messages to connections, closes connections, and queries their status.
///
/// Retryable errors (429, 500, 502, 503, 504, an unreachable endpoint, an attempt without a
/// response) are retried with exponential backoff and full jitter. Retries end at the earliest of
///
/// - the [throttle timeout](Self::with_throttle_timeout), 5 seconds after the first 429, when the
///   response is 429 again: the client may not be reading, and the caller should not wait for it;
/// - the [timeout](Self::with_timeout) of the call. Default: the invocation's deadline in a route,
///   otherwise 10 seconds;
/// - 200 ms before the deadline of the Lambda invocation, when the call is made in a route that a
///   [`Router`](crate::Router) runs, in the same task.
///
/// A push whose response was lost may arrive twice. Two pushes to one connection arrive in order if
/// the second begins after the first has returned.
///
/// Clones are cheap and share the transport.
///
/// # Panics
///
/// Calls panic outside a tokio runtime with its timer enabled.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Pusher;
/// use lambda_websocket::event::ConnectionId;
/// use lambda_websocket::push::Recorder;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let recorder = Recorder::new();
/// let pusher = Pusher::new(recorder.clone());
/// let connection_id = ConnectionId::new("L0SM9cOFvHcCIhw=")?;
/// pusher.send(&connection_id, &serde_json::json!({"hello": "world"})).await?;
/// assert_eq!(recorder.pushes()[0].text(), r#"{"hello":"world"}"#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pusher {
    transport: Arc<dyn Push>,
    timeout: Option<Duration>,
    attempt_timeout: Duration,
    most_attempts: usize,
    throttle_timeout: Duration,
    concurrency: usize,
    random: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// As many as a small function has CPU for, at some 15 ms per response.
const CONCURRENCY: usize = 64;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const THROTTLE_TIMEOUT: Duration = Duration::from_secs(5);

impl Pusher {
    /// Creates a pusher over a transport.
    pub fn new(transport: impl Push + 'static) -> Self {
        Self {
            transport: Arc::new(transport),
            timeout: None,
            attempt_timeout: ATTEMPT_TIMEOUT,
            most_attempts: usize::MAX,
            throttle_timeout: THROTTLE_TIMEOUT,
            concurrency: CONCURRENCY,
            random: Arc::new(fastrand::f64),
        }
    }

    /// Creates a pusher over the AWS SDK, configured by the environment.
    ///
    /// It uses the [endpoint](Endpoint::from_env) and the credentials of the environment. A local
    /// gateway or an emulator accepts any credentials, but some must be set.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::NotInEnvironment`], [`InvalidEndpoint::Variable`], and
    /// [`InvalidEndpoint::NoRegion`].
    #[cfg(feature = "sdk")]
    pub async fn from_env() -> Result<Self, InvalidEndpoint> {
        Ok(Self::new(Sdk::new(&Endpoint::from_env()?).await?))
    }

    /// Sets the timeout of each call, retries included.
    ///
    /// Default: the invocation's deadline in a route, otherwise 10 seconds.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the timeout of each attempt. Default: 5 seconds.
    #[must_use]
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Sets the time from the first 429 of a call to its last attempt. Default: 5 seconds.
    ///
    /// API Gateway returns 429 when the account sends too much, and also when the client does not
    /// read. Without this limit, one such client would hold a function until its deadline. A
    /// broadcast can tell the two apart, and gives a client that does not read [two
    /// seconds](Self::broadcast) at most.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lambda_websocket::{Pusher, push::Recorder};
    /// // A worker on a queue may wait for an account that is throttled.
    /// let pusher = Pusher::new(Recorder::new()).with_throttle_timeout(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn with_throttle_timeout(mut self, timeout: Duration) -> Self {
        self.throttle_timeout = timeout;
        self
    }

    /// Disables retries: each call is a single attempt.
    #[must_use]
    pub fn without_retries(mut self) -> Self {
        self.most_attempts = 1;
        self
    }

    /// Sets the maximum number of concurrent pushes of a broadcast. Default: 64; minimum: 1.
    #[must_use]
    pub fn with_concurrency(mut self, pushes: usize) -> Self {
        self.concurrency = pushes.max(1);
        self
    }

    /// Sets the source of jitter: a function that returns numbers from 0 to 1.
    ///
    /// For tests. The clock is tokio's, which a test can pause.
    #[must_use]
    pub fn with_random(mut self, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.random = Arc::new(random);
        self
    }

    /// Returns the endpoint that the transport calls, if there is exactly one.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.transport.endpoint()
    }

    #[cfg(feature = "hub")]
    pub(crate) fn transport(&self) -> &Arc<dyn Push> {
        &self.transport
    }

    /// Sends a value as JSON to one connection.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent; otherwise as for
    /// [`send_payload`](Self::send_payload).
    pub async fn send<T: Serialize + ?Sized>(&self, connection_id: &ConnectionId, value: &T) -> Result<(), PushError> {
        self.send_payload(connection_id, &Payload::json(value)?).await
    }

    /// Sends a text message to one connection.
    ///
    /// # Errors
    ///
    /// [`PushError::TooLarge`] before anything is sent; otherwise as for
    /// [`send_payload`](Self::send_payload).
    pub async fn send_text(&self, connection_id: &ConnectionId, text: impl Into<String>) -> Result<(), PushError> {
        self.send_bytes(connection_id, text.into()).await
    }

    /// Sends bytes as a text frame to one connection. They should be UTF-8.
    ///
    /// # Errors
    ///
    /// [`PushError::TooLarge`] before anything is sent; otherwise as for
    /// [`send_payload`](Self::send_payload).
    pub async fn send_bytes(&self, connection_id: &ConnectionId, payload: impl Into<Bytes>) -> Result<(), PushError> {
        self.send_payload(connection_id, &Payload::new(payload)?).await
    }

    /// Sends an existing payload to one connection.
    ///
    /// # Errors
    ///
    /// The error of the last attempt: [`PushError::Gone`] when the connection is closed or not open
    /// yet, [`PushError::TimedOut`] when there was no response in time, or another error of the
    /// [transport](Push::post).
    pub async fn send_payload(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        self.retry("send", connection_id, || self.transport.post(connection_id, payload)).await
    }

    /// Returns the time span of a call that starts now.
    fn span(&self) -> Span {
        Span::new(self.timeout)
    }

    /// Makes attempts until one succeeds, an error is permanent, or the time is up.
    async fn retry<T, F>(
        &self,
        operation: &'static str,
        connection_id: &ConnectionId,
        attempt: impl Fn() -> F,
    ) -> Result<T, PushError>
    where
        F: Future<Output = Result<T, PushError>>,
    {
        let timer = PushTimer::start(operation);
        let counted = || {
            timer.attempt();
            let attempt = attempt();
            async {
                let outcome = attempt.await;
                if matches!(outcome, Err(PushError::Throttled { .. })) {
                    timer.throttled();
                }
                outcome
            }
        };
        let mut first_refusal = None;
        let left = |error: &PushError| match error {
            PushError::Throttled { .. } => {
                self.throttle_timeout.saturating_sub(first_refusal.get_or_insert_with(Instant::now).elapsed())
            }
            _ => Duration::MAX,
        };
        let attempts = Attempts { timeout: self.attempt_timeout, most: self.most_attempts, random: &*self.random };
        let span = tracing::info_span!("push", operation, %connection_id);
        let outcome = attempts.run_within(self.span(), left, counted).instrument(span).await;
        timer.end(outcome.as_ref().err().map_or("delivered", PushError::kind));
        outcome
    }

    /// Opens the connection and loads credentials ahead of the first push.
    ///
    /// Call it before the function's first invocation. It makes a single attempt. [`Direct`] and
    /// [`Sdk`] request `/ping`, to which API Gateway itself responds. Other transports may do
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`PushError::Credentials`], [`PushError::Untrusted`], [`PushError::Unreachable`], and
    /// [`PushError::TimedOut`]. A later push tries again.
    pub async fn warm_up(&self) -> Result<(), PushError> {
        let start = Instant::now();
        let limit = self.span().left().min(self.attempt_timeout);
        timeout(limit, self.transport.warm_up())
            .await
            .unwrap_or_else(|_| Err(PushError::TimedOut { after: start.elapsed() }))
    }

    /// Queries a connection's status.
    ///
    /// # Errors
    ///
    /// [`PushError::Gone`] when the connection is not open, otherwise as for
    /// [`send_payload`](Self::send_payload).
    pub async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.retry("info", connection_id, || self.transport.info(connection_id)).await
    }

    /// Closes a connection with the close code 1000.
    ///
    /// # Errors
    ///
    /// [`PushError::Gone`] when the connection is not open, otherwise as for
    /// [`send_payload`](Self::send_payload).
    pub async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.retry("close", connection_id, || self.transport.close(connection_id)).await
    }
}

impl Passing for PushError {
    fn may_pass(&self) -> bool {
        self.is_retryable()
    }

    fn timed_out(after: Duration) -> Self {
        Self::TimedOut { after }
    }
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher")
            .field("transport", &self.transport)
            .field("timeout", &self.timeout)
            .field("attempt_timeout", &self.attempt_timeout)
            .finish_non_exhaustive()
    }
}
