//! Sending to a connection from anywhere that knows its id.
//!
//! A [`Pusher`] serialises, checks the size, and retries what can be retried until a deadline. Below it a [`Push`] makes
//! single attempts: [`Sdk`] over AWS's own client, a [`Recorder`] in your unit tests, or one of yours.

mod endpoint;
mod error;
mod recorder;
#[cfg(feature = "sdk")]
mod sdk;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use backon::BackoffBuilder as _;
use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

pub use self::endpoint::{Endpoint, InvalidEndpoint};
pub use self::error::PushError;
pub use self::recorder::{Pushed, Recorder};
#[cfg(feature = "sdk")]
pub use self::sdk::Sdk;
use crate::event::{ConnectionId, current_deadline};

/// The largest payload of one push, in bytes.
///
/// See the [quotas](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html).
pub const LARGEST_PAYLOAD: usize = 131_072;

/// One way to reach connections: each call is a single attempt.
#[async_trait]
pub trait Push: Send + Sync + fmt::Debug {
    /// Sends a payload as one text frame. It has at most [`LARGEST_PAYLOAD`] bytes.
    ///
    /// # Errors
    ///
    /// [`PushError`] by meaning.
    async fn post(&self, connection_id: &ConnectionId, payload: Bytes) -> Result<(), PushError>;

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
}

/// What API Gateway knows about an open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// When it was opened.
    pub connected_at: SystemTime,
    /// When a message last went in either direction.
    pub last_active_at: SystemTime,
    /// The client's address, where it is known.
    pub source_ip: Option<IpAddr>,
    /// What the client sent as `User-Agent`.
    pub user_agent: Option<String>,
}

impl ConnectionInfo {
    /// What is known about a connection that was opened and last active at these times.
    pub fn new(connected_at: SystemTime, last_active_at: SystemTime) -> Self {
        Self { connected_at, last_active_at, source_ip: None, user_agent: None }
    }

    /// Adds who the client is.
    #[must_use]
    pub fn with_client(mut self, source_ip: Option<IpAddr>, user_agent: Option<String>) -> Self {
        self.source_ip = source_ip;
        self.user_agent = user_agent;
        self
    }
}

/// Sends to connections, closes them, and asks about them.
///
/// What can be retried (429, 500, 502, 503, 504, an endpoint that cannot be reached, an attempt without an answer) is
/// retried with exponential backoff and full jitter. It ends at the earliest of
///
/// - the [timeout](Self::with_timeout) of the call, 10 seconds unless you set another or a route's invocation has a later
///   deadline;
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
    random: Arc<dyn Fn() -> f64 + Send + Sync>,
}

const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_millis(200);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

impl Pusher {
    /// A pusher over this transport.
    pub fn new(transport: impl Push + 'static) -> Self {
        Self {
            transport: Arc::new(transport),
            timeout: None,
            attempt_timeout: ATTEMPT_TIMEOUT,
            most_attempts: usize::MAX,
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

    /// Bounds each attempt by this time; it is 5 seconds unless set.
    #[must_use]
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Makes each call a single attempt.
    #[must_use]
    pub fn without_retries(mut self) -> Self {
        self.most_attempts = 1;
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

    /// Sends a value as JSON.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`] before anything is sent; otherwise the error of the last
    /// attempt.
    pub async fn send<T: Serialize + ?Sized>(&self, connection_id: &ConnectionId, value: &T) -> Result<(), PushError> {
        let payload = serde_json::to_vec(value).map_err(|source| PushError::NotJson { source })?;
        self.send_bytes(connection_id, payload).await
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
        let payload = payload.into();
        if payload.len() > LARGEST_PAYLOAD {
            return Err(PushError::TooLarge { size: payload.len() });
        }
        self.retry(|| self.transport.post(connection_id, payload.clone())).await
    }

    /// Asks API Gateway about a connection.
    ///
    /// # Errors
    ///
    /// The error of the last attempt; [`PushError::Gone`] when the connection is not open.
    pub async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.retry(|| self.transport.info(connection_id)).await
    }

    /// Closes a connection: its client gets the close code 1000.
    ///
    /// # Errors
    ///
    /// The error of the last attempt; [`PushError::Gone`] when the connection is not open.
    pub async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.retry(|| self.transport.close(connection_id)).await
    }

    async fn retry<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, PushError>
    where
        F: Future<Output = Result<T, PushError>>,
    {
        let start = Instant::now();
        let budget = self.budget(SystemTime::now());
        let left = || budget.saturating_sub(start.elapsed());
        let mut delays = backon::ExponentialBuilder::new()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(LONGEST_DELAY)
            .without_max_times()
            .build();
        let mut attempts: usize = 0;
        loop {
            if left().is_zero() {
                return Err(PushError::TimedOut { after: start.elapsed() });
            }
            attempts = attempts.saturating_add(1);
            let error = match timeout(left().min(self.attempt_timeout), attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => PushError::TimedOut { after: start.elapsed() },
            };
            let delay = delays.next().unwrap_or(LONGEST_DELAY).mul_f64((self.random)().clamp(0.0, 1.0));
            if !error.is_retryable() || attempts >= self.most_attempts || delay >= left() {
                return Err(error);
            }
            tracing::debug!(%error, ?delay, "the push is tried again");
            sleep(delay).await;
        }
    }

    /// How long a call that starts now may take.
    fn budget(&self, now: SystemTime) -> Duration {
        let invocation =
            current_deadline().map(|deadline| deadline.duration_since(now).unwrap_or_default().saturating_sub(MARGIN));
        match (self.timeout, invocation) {
            (Some(timeout), Some(invocation)) => timeout.min(invocation),
            (Some(timeout), None) => timeout,
            (None, Some(invocation)) => invocation,
            (None, None) => TIMEOUT,
        }
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
