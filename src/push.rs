//! Sending to connections from anywhere that knows their ids.
//!
//! A [`Pusher`] serializes, checks the size, and retries what can be retried until a deadline; to many connections it
//! [broadcasts](Pusher::broadcast) and reports what became of each; to one it [streams](Pusher::stream) the tokens of a
//! language model. Below it a [`Push`] makes single attempts: [`Sdk`] over
//! AWS's own client, [`Direct`] without it, a [`Recorder`] in your unit tests, or your own.
//!
//! | transport | right when |
//! |---|---|
//! | [`Sdk`] | the function uses the AWS SDK anyway, needs its credential sources, or pushes now and then |
//! | [`Direct`] | it broadcasts, has little memory and thus little CPU, or shall start quickly and be small |

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
pub use self::broadcast::{Broadcast, Failure, Report};
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
pub use self::stream::{StreamEnd, StreamError, StreamReport, Streaming};
use crate::event::ConnectionId;
use crate::metrics::PushTimer;
use crate::retry::{Attempts, Passing, Span};

/// One way to reach connections: each call is a single attempt.
#[async_trait]
pub trait Push: Send + Sync + fmt::Debug {
    /// Sends a payload as one text frame.
    ///
    /// # Errors
    ///
    /// [`PushError`] by meaning.
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError>;

    /// Asks about a connection.
    ///
    /// # Errors
    ///
    /// [`PushError`] by meaning.
    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError>;

    /// Closes a connection.
    ///
    /// # Errors
    ///
    /// [`PushError`] by meaning.
    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError>;

    /// Where it reaches connections, if it is one place. A [`Hub`](crate::hub::Hub) does not send it those of another API.
    fn endpoint(&self) -> Option<&Endpoint> {
        None
    }

    /// Gets ready, so that the first push need not. Unless a transport has its own way, there is nothing to do.
    ///
    /// # Errors
    ///
    /// [`PushError`] by meaning.
    async fn warm_up(&self) -> Result<(), PushError> {
        Ok(())
    }
}

/// Sends to connections, closes them, and asks about them.
///
/// What can be retried (429, 500, 502, 503, 504, an endpoint that cannot be reached, an attempt without an answer) is
/// retried with exponential backoff and full jitter. It ends at the earliest of
///
/// - the [throttle timeout](Self::with_throttle_timeout), 5 seconds after the first 429, when that is answered again: the client
///   may not read, and the caller should not wait for it;
/// - the [timeout](Self::with_timeout) of the call. Default: the deadline of the invocation of a route, or else 10 seconds;
/// - the deadline of the Lambda invocation, less 200 ms, when the call is made in a route that a
///   [`Router`](crate::Router) runs, in the same task.
///
/// A push whose answer was lost may arrive twice. Two pushes to one connection arrive in order when the second is made
/// after the first has returned.
///
/// Clones are cheap and share the transport.
///
/// # Panics
///
/// Calls need a tokio runtime with its timer enabled, and panic without one.
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

/// As many as a small function has CPU for, when an answer takes some 15 ms.
const CONCURRENCY: usize = 64;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const THROTTLE_TIMEOUT: Duration = Duration::from_secs(5);

impl Pusher {
    /// A pusher over this transport.
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

    /// A pusher over the AWS SDK, to the [endpoint of the environment](Endpoint::from_env), with the
    /// credentials of the environment.
    ///
    /// Where a local gateway or an emulator is the endpoint, any credentials will do, but there must be some.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint`] says what to set.
    #[cfg(feature = "sdk")]
    pub async fn from_env() -> Result<Self, InvalidEndpoint> {
        Ok(Self::new(Sdk::new(&Endpoint::from_env()?).await?))
    }

    /// Bounds each call, retries included, by this time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Bounds each attempt by this time. Default: 5 seconds.
    #[must_use]
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Bounds the time from the first 429 of a call to its last attempt. Default: 5 seconds.
    ///
    /// API Gateway answers 429 when the account sends too much, and also when the client does not read. A function that waits
    /// for a client that does not read would be held until its deadline. In a broadcast, where the two can be told apart, a
    /// client that does not read has [two seconds](Self::broadcast) at most.
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

    /// Makes each call a single attempt.
    #[must_use]
    pub fn without_retries(mut self) -> Self {
        self.most_attempts = 1;
        self
    }

    /// Lets a broadcast have at most this many pushes under way at a time. Default: 64; at least 1.
    #[must_use]
    pub fn with_concurrency(mut self, pushes: usize) -> Self {
        self.concurrency = pushes.max(1);
        self
    }

    /// Takes the randomness of the delays between attempts from a function that returns numbers from 0 to 1.
    ///
    /// For tests. The clock is tokio's, which a test can pause.
    #[must_use]
    pub fn with_random(mut self, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.random = Arc::new(random);
        self
    }

    /// Where it reaches connections, if its transport says so.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.transport.endpoint()
    }

    #[cfg(feature = "hub")]
    pub(crate) fn transport(&self) -> &Arc<dyn Push> {
        &self.transport
    }

    /// Sends a value as JSON.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent; otherwise the error of the last
    /// attempt.
    pub async fn send<T: Serialize + ?Sized>(&self, connection_id: &ConnectionId, value: &T) -> Result<(), PushError> {
        self.send_payload(connection_id, &Payload::json(value)?).await
    }

    /// Sends a text.
    ///
    /// # Errors
    ///
    /// [`PushError::TooLarge`] before anything is sent; otherwise the error of the last attempt.
    pub async fn send_text(&self, connection_id: &ConnectionId, text: impl Into<String>) -> Result<(), PushError> {
        self.send_bytes(connection_id, text.into()).await
    }

    /// Sends bytes. They arrive as a text frame, so they should be UTF-8.
    ///
    /// # Errors
    ///
    /// [`PushError::TooLarge`] before anything is sent; otherwise the error of the last attempt.
    pub async fn send_bytes(&self, connection_id: &ConnectionId, payload: impl Into<Bytes>) -> Result<(), PushError> {
        self.send_payload(connection_id, &Payload::new(payload)?).await
    }

    /// Sends a payload, which was made before.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub async fn send_payload(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        self.retry("send", connection_id, || self.transport.post(connection_id, payload)).await
    }

    /// How long a call that starts now may last.
    fn span(&self) -> Span {
        Span::new(self.timeout)
    }

    /// Makes attempts until one succeeds, the error will not pass, or there is no time left.
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

    /// Connects and gets credentials ahead of the first push, which then need not wait for either.
    ///
    /// Worth a call before the function's first invocation. It is a single attempt. With [`Direct`] and [`Sdk`] it is one
    /// request for `/ping`, which API Gateway itself answers; other transports may have nothing to do.
    ///
    /// # Errors
    ///
    /// [`PushError::Credentials`], [`PushError::Untrusted`], [`PushError::Unreachable`], and [`PushError::TimedOut`]. A later
    /// push tries again.
    pub async fn warm_up(&self) -> Result<(), PushError> {
        let start = Instant::now();
        let limit = self.span().left().min(self.attempt_timeout);
        timeout(limit, self.transport.warm_up())
            .await
            .unwrap_or_else(|_| Err(PushError::TimedOut { after: start.elapsed() }))
    }

    /// Asks API Gateway about a connection.
    ///
    /// # Errors
    ///
    /// The error of the last attempt; [`PushError::Gone`] when the connection is not open.
    pub async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.retry("info", connection_id, || self.transport.info(connection_id)).await
    }

    /// Closes a connection: its client gets the close code 1000.
    ///
    /// # Errors
    ///
    /// The error of the last attempt; [`PushError::Gone`] when the connection is not open.
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
