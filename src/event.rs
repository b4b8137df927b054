//! The events that API Gateway sends to a function: connect, message, and disconnect.
//!
//! [`Event`] is any of them. A route takes the event type that its key can receive: [`Connect`],
//! [`Message`], or [`Disconnect`]. Headers, the query string, and the authorizer's values are
//! decoded on first use.
//!
//! See [the events of a WebSocket
//! API](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-overview.html).

mod authorizer_context;
#[cfg(feature = "aws_lambda_events")]
mod aws_lambda_events;
mod body;
mod chain;
mod context;
mod correlation;
mod headers;
mod id;
mod identity;
mod invalid_event;
mod invocation;
mod trace;
pub(crate) mod wire;

use std::fmt;
use std::sync::Arc;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer};

pub use self::authorizer_context::ContextMismatch;
pub use self::body::{Body, InvalidBody};
pub(crate) use self::chain::{chain, texts};
pub use self::context::RequestContext;
use self::context::identifier;
pub use self::correlation::CorrelationId;
pub use self::headers::{Headers, Query};
pub use self::id::{ApiId, ConnectionId, InvalidId, MessageId, Region, RequestId, RouteKey, Stage};
#[cfg(feature = "registry")]
pub(crate) use self::id::{identifier, within};
pub use self::identity::IamIdentity;
pub use self::invalid_event::InvalidEvent;
pub use self::invocation::Invocation;
#[cfg(any(feature = "push", feature = "dynamodb"))]
pub(crate) use self::invocation::current_deadline;
#[cfg(feature = "runtime")]
pub(crate) use self::invocation::within_deadline;
pub(crate) use self::trace::OnTrace;
pub use self::trace::{InvalidTrace, TraceContext};
use self::wire::{ContextWire, Envelope, NameValues};

/// An event of a WebSocket API, as a Lambda function receives it.
///
/// API Gateway sends exactly these three types of event, so the enum is exhaustive.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Event;
///
/// let json = br#"{
///     "requestContext": {
///         "eventType": "MESSAGE", "routeKey": "join", "messageId": "AAAAmes-",
///         "connectionId": "L0SM9cOFvHcCIhw=", "requestId": "JKJaXmPLvHcESHA=",
///         "apiId": "a1b2c3d4e5", "stage": "dev",
///         "domainName": "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com",
///         "connectedAt": 1700000000000, "requestTimeEpoch": 1700000001000,
///         "identity": {"sourceIp": "203.0.113.7"}
///     },
///     "body": "{\"action\":\"join\"}", "isBase64Encoded": false
/// }"#;
/// let Event::Message(message) = Event::from_slice(json)? else {
///     panic!("a message was expected")
/// };
/// assert_eq!(message.connection_id().as_str(), "L0SM9cOFvHcCIhw=");
/// # Ok::<(), lambda_websocket::event::InvalidEvent>(())
/// ```
#[derive(Debug, Clone)]
pub enum Event {
    /// A client opens a connection.
    Connect(Connect),
    /// A client sent a message.
    Message(Message),
    /// A connection was closed.
    Disconnect(Disconnect),
}

impl Event {
    /// Reads an event from its JSON.
    ///
    /// Unknown members are ignored. `null` counts as an absent member.
    ///
    /// # Errors
    ///
    /// - [`InvalidEvent::NotJson`] if the input is not JSON.
    /// - [`InvalidEvent::Shape`] if it is not an object, or a member has the wrong type.
    /// - [`InvalidEvent::Unexpected`] if it is an event of another kind.
    /// - [`InvalidEvent::Missing`] if a required member is absent or `null`.
    /// - [`InvalidEvent::Member`] if the value of a member is not valid.
    pub fn from_slice(json: &[u8]) -> Result<Self, InvalidEvent> {
        Self::from_envelope(Envelope::from_slice(json)?)
    }

    /// Returns the request context: the connection, the route, the API, and the request.
    pub fn request_context(&self) -> &RequestContext {
        match self {
            Self::Connect(event) => &event.context,
            Self::Message(event) => &event.context,
            Self::Disconnect(event) => &event.context,
        }
    }

    /// Returns the context by shared ownership, so that it outlives the event.
    pub(crate) fn shared_context(&self) -> Arc<RequestContext> {
        match self {
            Self::Connect(event) => Arc::clone(&event.context),
            Self::Message(event) => Arc::clone(&event.context),
            Self::Disconnect(event) => Arc::clone(&event.context),
        }
    }

    /// Attaches the Lambda invocation, so that routes see its deadline and its id.
    #[must_use]
    pub fn with_invocation(mut self, invocation: Invocation) -> Self {
        self.context_mut().set_invocation(invocation);
        self
    }

    /// Sets the trace of the event, in place of the trace of its invocation.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceContext) -> Self {
        self.context_mut().set_trace(trace);
        self
    }

    fn context_mut(&mut self) -> &mut RequestContext {
        Arc::make_mut(match self {
            Self::Connect(event) => &mut event.context,
            Self::Message(event) => &mut event.context,
            Self::Disconnect(event) => &mut event.context,
        })
    }

    fn from_envelope(mut envelope: Envelope) -> Result<Self, InvalidEvent> {
        let raw = envelope.request_context.take();
        let wire = raw.as_deref().map(ContextWire::parse).transpose();
        let unexpected = |wire: Option<&ContextWire<'_>>| InvalidEvent::Unexpected {
            expected: "the event of a WebSocket route",
            found: envelope.describe(wire),
        };
        // An event of another kind is reported by its name, not by the first member that it lacks.
        if envelope.method_arn.is_some() {
            return Err(unexpected(None));
        }
        let wire = match wire? {
            Some(wire) if wire.event_type.is_some() => wire,
            other => return Err(unexpected(other.as_ref())),
        };
        let kind = match wire.event_type.as_deref() {
            Some("CONNECT") => Kind::Connect,
            Some("MESSAGE") => Kind::Message(identifier("requestContext.messageId", &wire.message_id)?),
            Some("DISCONNECT") => Kind::Disconnect(
                wire.disconnect_status_code,
                wire.disconnect_reason.as_deref().unwrap_or_default().to_owned(),
            ),
            _ => return Err(unexpected(Some(&wire))),
        };
        let mut context = RequestContext::new(&wire)?;
        context.keep(raw, envelope.stage_variables.take());
        let context = Arc::new(context);
        Ok(match kind {
            Kind::Connect => {
                let headers = Headers(NameValues::new(envelope.headers, envelope.multi_value_headers));
                let query = Query(NameValues::new(
                    envelope.query_string_parameters,
                    envelope.multi_value_query_string_parameters,
                ));
                Self::Connect(Connect { context, parts: Arc::new(ConnectParts { headers, query }) })
            }
            Kind::Message(message_id) => {
                let is_base64_encoded = envelope.is_base64_encoded == Some(true);
                let body = Body::new(envelope.body.unwrap_or_default(), is_base64_encoded)?;
                Self::Message(Message { context, message_id, correlation_id: None, body })
            }
            Kind::Disconnect(status_code, reason) => Self::Disconnect(Disconnect { context, status_code, reason }),
        })
    }
}

/// The type of an event, with the context members that only this type has.
enum Kind {
    Connect,
    Message(MessageId),
    Disconnect(Option<u16>, String),
}

/// Deserializes an event, for example for `lambda_runtime`.
impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_envelope(Envelope::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

macro_rules! context_methods {
    () => {
        /// Returns the request context: the connection, the route, the API, and the request.
        pub fn request_context(&self) -> &RequestContext {
            &self.context
        }

        /// Returns the id of the connection.
        pub fn connection_id(&self) -> &ConnectionId {
            &self.context.connection_id
        }

        /// Returns the principal id that the authorizer set, if the API has an authorizer.
        pub fn principal_id(&self) -> Option<&str> {
            self.context.principal_id()
        }

        /// Deserializes the authorizer's context into `T`. See [`RequestContext::context`].
        ///
        /// # Errors
        ///
        /// [`ContextMismatch`] if the values do not fit `T`.
        pub fn context<T: DeserializeOwned>(&self) -> Result<T, ContextMismatch> {
            self.context.context()
        }
    };
}

/// A client opens a connection. The response accepts or rejects it.
#[derive(Debug, Clone)]
pub struct Connect {
    context: Arc<RequestContext>,
    // Shared, so that the router can still read the offered subprotocols after the route has
    // returned.
    parts: Arc<ConnectParts>,
}

#[derive(Debug)]
pub(crate) struct ConnectParts {
    headers: Headers,
    query: Query,
}

impl ConnectParts {
    /// Returns the subprotocols offered by the client, in order of preference.
    pub(crate) fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.headers.subprotocols()
    }
}

impl Connect {
    context_methods!();

    /// Returns the headers of the handshake request.
    pub fn headers(&self) -> &Headers {
        &self.parts.headers
    }

    /// Returns the first value of a request header. Names are case-insensitive.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)
    }

    /// Returns the query string of the handshake request.
    pub fn query_string(&self) -> &Query {
        &self.parts.query
    }

    /// Returns the last value of a query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.parts.query.get(name)
    }

    /// Returns the subprotocols offered by the client, in order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.parts.subprotocols()
    }

    pub(crate) fn parts(&self) -> Arc<ConnectParts> {
        Arc::clone(&self.parts)
    }
}

/// A client sent a message.
///
/// A route that takes `Message<T>` gets the body decoded from JSON. A route that takes `Message`
/// gets the body undecoded.
#[derive(Clone)]
pub struct Message<B = Body> {
    context: Arc<RequestContext>,
    message_id: MessageId,
    // Boxed, since few messages have one, and messages are moved often.
    correlation_id: Option<Box<CorrelationId>>,
    /// The body of the message.
    pub body: B,
}

impl<B> Message<B> {
    context_methods!();

    /// Returns the id that API Gateway gave this message.
    pub fn message_id(&self) -> &MessageId {
        &self.message_id
    }

    /// Returns the correlation id, which the client chose to match replies to requests.
    ///
    /// A [`Router`](crate::Router) reads it from the message. Outside a router it is `None`.
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        self.correlation_id.as_deref()
    }

    pub(crate) fn set_correlation_id(&mut self, correlation_id: CorrelationId) {
        self.correlation_id = Some(Box::new(correlation_id));
    }
}

impl Message {
    /// Decodes the body like [`decode`](Self::decode), without consuming the message.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<Message<T>, InvalidBody> {
        Ok(Message {
            context: Arc::clone(&self.context),
            message_id: self.message_id.clone(),
            correlation_id: self.correlation_id.clone(),
            body: self.body.json()?,
        })
    }

    /// Decodes the body from JSON.
    ///
    /// # Errors
    ///
    /// Returns the unchanged message and an [`InvalidBody`] if the body is not JSON or does not fit
    /// `T`.
    pub fn decode<T: DeserializeOwned>(self) -> Result<Message<T>, (Self, InvalidBody)> {
        match self.body.json() {
            Ok(body) => {
                let Self { context, message_id, correlation_id, .. } = self;
                Ok(Message { context, message_id, correlation_id, body })
            }
            Err(error) => Err((self, error)),
        }
    }
}

/// Omits the body.
impl<B> fmt::Debug for Message<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("context", &self.context)
            .field("message_id", &self.message_id)
            .finish_non_exhaustive()
    }
}

/// A connection was closed. Nothing can be sent to it anymore.
///
/// This is a [best-effort
/// event](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-route-keys-connect-disconnect.html):
/// API Gateway does not guarantee its delivery. If you store connections, also set a TTL.
#[derive(Debug, Clone)]
pub struct Disconnect {
    context: Arc<RequestContext>,
    status_code: Option<u16>,
    reason: String,
}

impl Disconnect {
    context_methods!();

    /// Returns the WebSocket close code.
    ///
    /// It is 1005 for a close without a code, and 1001 after ten idle minutes. API Gateway always
    /// sends it; events recorded before 2021 lack it.
    pub fn status_code(&self) -> Option<u16> {
        self.status_code
    }

    /// Returns the close reason, or an empty string if there was none.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
