//! Replying later: from a queue back to exactly the client that asked.
//!
//! A route takes the [`ReplyAddress`] of its event and [seals](Job::seal) it together with a job. The function that
//! finishes the job [opens](Job::open) it and pushes the result to the address; a `Worker` (feature `worker`) does that behind a
//! queue.
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
use std::time::{Duration, SystemTime};

pub use self::idempotency::IdempotencyKey;
pub use self::job::{Accepted, Job};
pub use self::sealed::{InvalidAddress, SealedAddress};
#[cfg(all(feature = "worker", feature = "dynamodb"))]
pub use self::worker::DynamoDb;
#[cfg(feature = "worker")]
pub use self::worker::{
    Claim, IdempotencyStore, InMemory, JobFailure, LeaseOwner, MessageRejection, NotDone, Task, Undelivered, Worker,
};
use crate::event::{Connect, ConnectionId, CorrelationId, Event, Message, RequestContext, RequestId, TraceContext};
pub use crate::keys::{InvalidKey, Keys};
use crate::push::{Endpoint, InvalidEndpoint};
use crate::route::{EventKinds, FromEvent};

/// No connection lives longer (LIM-3).
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// Where to reply to one request later: a connection, how it is reached, and which request it was.
///
/// It expires when its connection must end: two hours after that was opened. Of times it keeps whole seconds.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplyAddress {
    connection_id: ConnectionId,
    endpoint: Endpoint,
    correlation_id: CorrelationId,
    /// The gateway's id of the request, for the log. An address that was made by hand has none.
    request_id: Option<RequestId>,
    expires_at: SystemTime,
    /// Since when the connection is being opened, if it may not be open yet.
    connecting_since: Option<SystemTime>,
    /// The trace that the request is a part of.
    trace: Option<TraceContext>,
    /// Tells jobs of one request apart. An address gets it when it is sealed.
    job_id: Option<String>,
}

impl ReplyAddress {
    /// Creates the address of a connection behind this endpoint, which expires at this time.
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
        let expires_at = context.connected_at.checked_add(LIFETIME).unwrap_or(context.connected_at);
        let address = Self::new(context.connection_id.clone(), Endpoint::from_context(context)?, id, expires_at);
        Ok(Self { request_id: Some(context.request_id.clone()), trace: context.trace(), ..address })
    }

    /// Returns the connection.
    pub fn connection_id(&self) -> &ConnectionId {
        &self.connection_id
    }

    /// Returns the endpoint at which the connection's API serves `@connections`.
    ///
    /// That of an event knows its [API and stage](Endpoint::api).
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the id that replies carry.
    ///
    /// Default: the id that the client gave its request, or else the gateway's id of the request.
    pub fn correlation_id(&self) -> &CorrelationId {
        &self.correlation_id
    }

    /// Returns the gateway's id of the request, as in the logs of the route. An address that was made by hand has none.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// Returns when the address expires.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Returns since when the connection is being opened, if it may not be open yet.
    ///
    /// The address of a [`Connect`] event knows that time. A connection that has sent a [`Message`] is open.
    pub fn connecting_since(&self) -> Option<SystemTime> {
        self.connecting_since
    }

    /// Returns the trace that the request is a part of. The work on a job, and its reply, go on with it.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    /// Makes what follows the request a part of this trace.
    ///
    /// Default: the trace of the event, with the parent that Lambda names. A tracer that has a span of its own for the route sets it
    /// here, so that the job becomes a child of that span.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Replies with this correlation id, such as one that the client has chosen.
    #[must_use]
    pub fn with_correlation_id(mut self, correlation_id: CorrelationId) -> Self {
        self.correlation_id = correlation_id;
        self
    }

    /// Reaches the connection through this endpoint, such as that of a custom domain.
    ///
    /// An endpoint that does not know its API and stage is [given](Endpoint::for_api) those of the former one.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = match (endpoint.api(), self.endpoint.api()) {
            (None, Some((api_id, stage))) => endpoint.for_api(api_id.clone(), stage.clone()),
            _ => endpoint,
        };
        self
    }

    /// Expires at this time.
    #[must_use]
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = expires_at;
        self
    }

    /// Treats the connection as one that may not be open yet, since it began to connect at this time.
    ///
    /// API Gateway answers 410 until `$connect` has been answered, which takes 29 seconds at most. A worker repeats
    /// a push that met a 410 until 30 seconds after this time.
    #[must_use]
    pub fn with_connecting_since(mut self, connecting_since: SystemTime) -> Self {
        self.connecting_since = Some(connecting_since);
        self
    }
}

/// Shows the request id alone: who has the rest may push, and the correlation id may be a part of the client's message.
impl fmt::Debug for ReplyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyAddress").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl<B> Message<B> {
    /// Returns where to reply to this message later.
    ///
    /// The endpoint is made of the event's host and stage. Behind a custom domain with another mapping key, set it by
    /// [`with_endpoint`](ReplyAddress::with_endpoint).
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] when the event's host is not one.
    pub fn reply_address(&self) -> Result<ReplyAddress, InvalidEndpoint> {
        ReplyAddress::from_context(self.request_context(), self.correlation_id())
    }
}

impl Connect {
    /// Returns where to write to the client once its connection is open.
    ///
    /// A worker waits up to 30 seconds for the connection to open.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] when the event's host is not one.
    pub fn reply_address(&self) -> Result<ReplyAddress, InvalidEndpoint> {
        let context = self.request_context();
        Ok(ReplyAddress::from_context(context, None)?.with_connecting_since(context.connected_at))
    }
}

/// A handler takes it as an argument: where to reply to its message later, or to write once the connection is open.
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
