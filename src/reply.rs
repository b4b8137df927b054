//! Deferred replies: from a job queue back to the client that sent the request.
//!
//! A route takes the [`ReplyAddress`] of its event and [seals](Job::seal) it together with a job.
//! The function that finishes the job [opens](Job::open) it and pushes the result to the address.
//! Behind a queue, a `Worker` (feature `worker`) does that.
//!
//! # Examples
//!
//! ```
//! use std::time::SystemTime;
//!
//! use lambda_websocket::Message;
//! use lambda_websocket::reply::{Job, Keys};
//!
//! # fn route(event: Message, keys: &Keys) -> Result<(), Box<dyn std::error::Error>> {
//! // In the route: the body of a message in a queue.
//! let body = serde_json::to_string(&Job::seal(&["what", "to", "do"], &event.reply_address()?, keys)?)?;
//!
//! // Elsewhere, later: nobody has forged the address, exchanged its job, and it has not expired.
//! let job: Job = serde_json::from_str(&body)?;
//! let address = job.open(keys, SystemTime::now())?;
//! assert_eq!(address.connection_id(), event.connection_id());
//! assert_eq!(job.decode::<Vec<String>>()?, ["what", "to", "do"]);
//! # Ok(())
//! # }
//! ```

mod idempotency;
mod job;
mod sealed;
#[cfg(feature = "worker")]
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

pub use self::idempotency::IdempotencyKey;
pub use self::job::{Accepted, Job};
pub use self::sealed::{InvalidAddress, SealedAddress};
#[cfg(all(feature = "worker", feature = "dynamodb"))]
pub use self::worker::DynamoDb;
#[cfg(feature = "worker")]
pub use self::worker::{
    Claim, IdempotencyStore, InMemory, JobFailure, LeaseOwner, MessageRejection, Task, Undelivered, UnfinishedJob,
    Worker,
};
use crate::event::{Connect, ConnectionId, CorrelationId, Event, Message, RequestContext, RequestId, TraceContext};
pub use crate::keys::{InvalidKey, Keys};
use crate::push::{Endpoint, InvalidEndpoint};
use crate::quotas::CONNECTION_LIFETIME;
use crate::route::{EventKinds, FromEvent};

/// Address for replying to one request later.
///
/// It holds the connection, the endpoint that reaches it, and the request's correlation id. It
/// expires two hours after the connection was opened, the maximum duration of a connection. Sealing
/// truncates its times to whole seconds.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplyAddress {
    connection_id: ConnectionId,
    endpoint: Endpoint,
    correlation_id: CorrelationId,
    /// API Gateway's id of the request, for logging. `None` if the address was created by
    /// [`new`](Self::new).
    request_id: Option<RequestId>,
    expires_at: SystemTime,
    /// When the connection began to open; `None` if it is known to be open.
    connecting_since: Option<SystemTime>,
    /// The trace that the request belongs to.
    trace: Option<TraceContext>,
    /// Distinguishes several jobs of one request. Set when the address is sealed.
    job_id: Option<String>,
}

impl ReplyAddress {
    /// Creates an address for a connection behind an endpoint.
    pub fn new(
        connection_id: ConnectionId,
        endpoint: Endpoint,
        correlation_id: CorrelationId,
        expires_at: SystemTime,
    ) -> Self {
        Self {
            connection_id,
            endpoint,
            correlation_id,
            request_id: None,
            expires_at,
            connecting_since: None,
            trace: None,
            job_id: None,
        }
    }

    fn from_context(context: &RequestContext, id: Option<&CorrelationId>) -> Result<Self, InvalidEndpoint> {
        let id = id.map_or_else(|| CorrelationId::from(&context.request_id), CorrelationId::clone);
        let expires_at = context.connected_at.checked_add(CONNECTION_LIFETIME).unwrap_or(context.connected_at);
        let address = Self::new(context.connection_id.clone(), Endpoint::from_context(context)?, id, expires_at);
        Ok(Self { request_id: Some(context.request_id.clone()), trace: context.trace(), ..address })
    }

    /// Returns the id of the connection.
    pub fn connection_id(&self) -> &ConnectionId {
        &self.connection_id
    }

    /// Returns the endpoint at which the connection's API serves `@connections`.
    ///
    /// The endpoint of an event's address knows its [API and stage](Endpoint::api).
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the correlation id that replies carry.
    ///
    /// Default: the id that the client gave its request, or API Gateway's request id if it gave
    /// none.
    pub fn correlation_id(&self) -> &CorrelationId {
        &self.correlation_id
    }

    /// Returns API Gateway's id of the request, as it appears in the route's logs.
    ///
    /// Returns `None` if the address was created by [`new`](Self::new).
    pub fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// Returns the time at which the address expires.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Returns when the connection began to open, or `None` if it is open.
    ///
    /// By default only the address of a [`Connect`] event has this time: a connection that has sent
    /// a [`Message`] is open.
    pub fn connecting_since(&self) -> Option<SystemTime> {
        self.connecting_since
    }

    /// Returns the trace that the request belongs to.
    ///
    /// The job and its reply continue this trace.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// Sets the trace that the job and its reply continue.
    ///
    /// Default: the trace of the event, with the parent named by Lambda. If your tracer has its own
    /// span for the route, set that span's trace here, so that the job becomes its child.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Sets the correlation id that replies carry.
    #[must_use]
    pub fn with_correlation_id(mut self, correlation_id: CorrelationId) -> Self {
        self.correlation_id = correlation_id;
        self
    }

    /// Sets the endpoint that reaches the connection, such as that of a custom domain.
    ///
    /// If the endpoint does not know its API and stage, it is [given](Endpoint::for_api) those of
    /// the previous endpoint.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = match (endpoint.api(), self.endpoint.api()) {
            (None, Some((api_id, stage))) => endpoint.for_api(api_id.clone(), stage.clone()),
            _ => endpoint,
        };
        self
    }

    /// Sets the time at which the address expires.
    #[must_use]
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = expires_at;
        self
    }

    /// Sets when the connection began to open, if it may not be open yet.
    ///
    /// API Gateway returns 410 until `$connect` completes, which takes at most 29 seconds. A worker
    /// retries a push that failed with 410 until 30 seconds after this time.
    #[must_use]
    pub fn with_connecting_since(mut self, connecting_since: SystemTime) -> Self {
        self.connecting_since = Some(connecting_since);
        self
    }
}

/// Shows only the request id.
///
/// Anyone who has the other fields may be able to push, and the correlation id may be part of the
/// client's message.
impl fmt::Debug for ReplyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyAddress").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl<B> Message<B> {
    /// Returns the address for replying to this message later.
    ///
    /// The endpoint is derived from the event's host and stage. Behind a custom domain whose
    /// mapping key differs from the stage, set the endpoint with
    /// [`with_endpoint`](ReplyAddress::with_endpoint).
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] if the event's host is invalid.
    pub fn reply_address(&self) -> Result<ReplyAddress, InvalidEndpoint> {
        ReplyAddress::from_context(self.request_context(), self.correlation_id())
    }
}

impl Connect {
    /// Returns the address for pushing to the client once its connection is open.
    ///
    /// A worker waits up to 30 seconds for the connection to open.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] if the event's host is invalid.
    pub fn reply_address(&self) -> Result<ReplyAddress, InvalidEndpoint> {
        let context = self.request_context();
        Ok(ReplyAddress::from_context(context, None)?.with_connecting_since(context.connected_at))
    }
}

/// Extracts the reply address of a `$connect` event or a message.
impl<S: Send + Sync> FromEvent<S> for ReplyAddress {
    const EVENTS: EventKinds = EventKinds::MESSAGE.or(EventKinds::CONNECT);

    async fn from_event(event: &Event, _: &Arc<S>) -> crate::route::Result<Self> {
        Ok(match event {
            Event::Connect(connect) => connect.reply_address()?,
            Event::Message(message) => message.reply_address()?,
            Event::Disconnect(_) => return Err("nobody can reply to a client that has disconnected".into()),
        })
    }
}
