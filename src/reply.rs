//! Answering later: from a queue back to exactly the client that asked.
//!
//! A route takes the [`ReplyAddress`] of its event, [seals](ReplyAddress::seal) it, and puts it into a queue beside the job.
//! Whoever finishes the job [opens](SealedAddress::open) it and pushes the result there; a `Worker` (feature `worker`) does
//! that for a Lambda function behind a queue.
//!
//! # Examples
//!
//! ```
//! use std::time::SystemTime;
//!
//! use lambda_websocket::Message;
//! use lambda_websocket::reply::{Keys, SealedAddress};
//!
//! # fn route(event: Message, keys: &Keys) -> Result<(), Box<dyn std::error::Error>> {
//! // In the route: a text that fits a message's attribute, a database's column, a workflow's input.
//! let sealed: SealedAddress = event.reply_address()?.seal(keys);
//! let text = serde_json::to_string(&sealed)?;
//!
//! // Elsewhere, later: nobody has forged it, and it has not expired.
//! let address = serde_json::from_str::<SealedAddress>(&text)?.open(keys, SystemTime::now())?;
//! assert_eq!(address.connection_id(), event.connection_id());
//! # Ok(())
//! # }
//! ```

mod job;
mod keys;
mod sealed;
#[cfg(feature = "worker")]
mod worker;

use std::fmt;
use std::time::{Duration, SystemTime};

pub use self::job::{Acknowledged, Job};
pub use self::keys::{Keys, WeakSecret};
pub use self::sealed::{InvalidAddress, SealedAddress};
#[cfg(all(feature = "worker", feature = "dynamodb"))]
pub use self::worker::DynamoDb;
#[cfg(feature = "worker")]
pub use self::worker::{Claim, InMemory, NotDone, Once, Task, Unanswered, Undecodable, Worker};
use crate::event::{Connect, ConnectionId, CorrelationId, Message, RequestContext};
use crate::push::{Endpoint, InvalidEndpoint};

/// No connection lives longer (LIM-3).
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// Where to answer one question later: a connection, how it is reached, and which question it was.
///
/// It expires when its connection does: two hours after that was opened, unless told otherwise.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplyAddress {
    connection_id: ConnectionId,
    endpoint: Endpoint,
    correlation_id: CorrelationId,
    expires_at: SystemTime,
}

impl ReplyAddress {
    /// The address of a connection behind this endpoint, until then.
    pub fn new(
        connection_id: ConnectionId,
        endpoint: Endpoint,
        correlation_id: CorrelationId,
        expires_at: SystemTime,
    ) -> Self {
        Self { connection_id, endpoint, correlation_id, expires_at }
    }

    fn of(context: &RequestContext) -> Result<Self, InvalidEndpoint> {
        // A request's id is a legal correlation id: both are any visible ASCII.
        let correlation_id = CorrelationId::new(context.request_id.as_str());
        Ok(Self {
            connection_id: context.connection_id.clone(),
            endpoint: Endpoint::of_request(context)?,
            correlation_id: correlation_id.map_err(|_| InvalidEndpoint::Url {
                url: context.domain_name.clone(),
                expected: "an event with a request id",
            })?,
            expires_at: context.connected_at.checked_add(LIFETIME).unwrap_or(context.connected_at),
        })
    }

    /// The connection.
    pub fn connection_id(&self) -> &ConnectionId {
        &self.connection_id
    }

    /// Where the connection's API serves `@connections`.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Which question is answered: the id of the request that asked, unless another was set.
    pub fn correlation_id(&self) -> &CorrelationId {
        &self.correlation_id
    }

    /// When it is of no use any more, to the second.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Answers this question, such as one that the client has numbered.
    #[must_use]
    pub fn with_correlation_id(mut self, correlation_id: CorrelationId) -> Self {
        self.correlation_id = correlation_id;
        self
    }

    /// Reaches the connection through this endpoint, such as that of a custom domain.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Expires at this time.
    #[must_use]
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = expires_at;
        self
    }
}

/// Shows the correlation id alone: who has the rest may push.
impl fmt::Debug for ReplyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyAddress").field("correlation_id", &self.correlation_id.as_str()).finish_non_exhaustive()
    }
}

impl<B> Message<B> {
    /// Where to answer this message later.
    ///
    /// The endpoint is made of the event's host and stage; behind a custom domain see
    /// [`with_endpoint`](ReplyAddress::with_endpoint).
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint`] when the event's host is not one.
    pub fn reply_address(&self) -> Result<ReplyAddress, InvalidEndpoint> {
        ReplyAddress::of(self.request_context())
    }
}

impl Connect {
    /// Where to write later to who connects, once the connection is open.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint`] when the event's host is not one.
    pub fn reply_address(&self) -> Result<ReplyAddress, InvalidEndpoint> {
        ReplyAddress::of(self.request_context())
    }
}
