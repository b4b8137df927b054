//! The event that API Gateway sends to an authorizer.

use serde::{Deserialize, Deserializer, de};

use super::arn::RouteArn;
use crate::event::wire::{ContextWire, Envelope, NameValues};
use crate::event::{ConnectionId, Headers, InvalidEvent, Invocation, Query, RequestContext};

/// The event of a REQUEST authorizer, sent when a client connects.
///
/// Headers, query string, and stage variables are decoded on first access.
#[derive(Debug, Clone)]
pub struct Request {
    method_arn: RouteArn,
    context: RequestContext,
    headers: Headers,
    query: Query,
}

impl Request {
    /// Parses the event from JSON.
    ///
    /// # Errors
    ///
    /// - [`InvalidEvent::NotJson`] if the bytes are not JSON.
    /// - [`InvalidEvent::Shape`] if the JSON does not have the shape that API Gateway sends.
    /// - [`InvalidEvent::Unexpected`] for the event of something other than a WebSocket API's
    ///   REQUEST authorizer.
    /// - [`InvalidEvent::Missing`] if a required member is absent or `null`.
    /// - [`InvalidEvent::Member`] if a member is not valid.
    pub fn from_slice(json: &[u8]) -> Result<Self, InvalidEvent> {
        Self::from_envelope(Envelope::from_slice(json)?)
    }

    fn from_envelope(mut envelope: Envelope) -> Result<Self, InvalidEvent> {
        let raw = envelope.request_context.take();
        let wire = raw.as_deref().map(ContextWire::parse).transpose();
        let unexpected = |wire: Option<&ContextWire<'_>>| InvalidEvent::Unexpected {
            expected: "the event of a WebSocket API's REQUEST authorizer",
            found: envelope.describe(wire),
        };
        let Some(method_arn) = envelope.method_arn.as_deref() else {
            return Err(unexpected(wire.ok().flatten().as_ref()));
        };
        // The event of a REST API's authorizer has a method ARN too, but no connection id.
        let wire = match wire? {
            Some(wire) if envelope.kind.as_deref() == Some("REQUEST") && wire.connection_id.is_some() => wire,
            other => return Err(unexpected(other.as_ref())),
        };
        let method_arn = method_arn.parse().map_err(|error: super::InvalidArn| InvalidEvent::Member {
            member: "methodArn".to_owned(),
            reason: error.to_string(),
        })?;
        let mut context = RequestContext::new(&wire)?;
        context.keep(raw, envelope.stage_variables);
        Ok(Self {
            method_arn,
            context,
            headers: Headers(NameValues::new(envelope.headers, envelope.multi_value_headers)),
            query: Query(NameValues::new(
                envelope.query_string_parameters,
                envelope.multi_value_query_string_parameters,
            )),
        })
    }

    /// Attaches the Lambda invocation to the request.
    #[must_use]
    pub fn with_invocation(mut self, invocation: Invocation) -> Self {
        self.context.set_invocation(invocation);
        self
    }

    /// Returns the ARN of the requested route: `$connect` of the stage.
    pub fn method_arn(&self) -> &RouteArn {
        &self.method_arn
    }

    /// Returns the request context, with the connection, the API, and the client's address.
    pub fn request_context(&self) -> &RequestContext {
        &self.context
    }

    /// Returns the id that the connection will have if the client may connect.
    pub fn connection_id(&self) -> &ConnectionId {
        &self.context.connection_id
    }

    /// Returns the headers of the client's request.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the first value of a request header. The name is case-insensitive.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// Returns the query string of the client's request.
    pub fn query_string(&self) -> &Query {
        &self.query
    }

    /// Returns the last value of a query parameter, which may be empty.
    ///
    /// Use [`query_string`](Self::query_string) to read every value.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name)
    }

    /// Returns the value of a stage variable.
    pub fn stage_variable(&self, name: &str) -> Option<&str> {
        self.context.stage_variable(name)
    }
}

/// Lets `lambda_runtime` and other crates that expect a `Deserialize` type parse the event.
impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_envelope(Envelope::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
