//! What API Gateway asks an authorizer.

use serde::{Deserialize, Deserializer, de};

use super::arn::RouteArn;
use crate::event::wire::{ContextWire, Envelope, NameValues};
use crate::event::{ConnectionId, Headers, InvalidEvent, Invocation, Query, RequestContext};

/// The event of a REQUEST authorizer: a client wants to connect.
///
/// Headers, query string and stage variables stay undecoded until somebody asks for them.
#[derive(Debug, Clone)]
pub struct Request {
    method_arn: RouteArn,
    context: RequestContext,
    headers: Headers,
    query: Query,
}

impl Request {
    /// Reads the event from its JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`] says what was expected and what came instead.
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
        // A REST API's authorizer has a method ARN too, but no connection.
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

    /// The request, carried by this invocation.
    #[must_use]
    pub fn with_invocation(mut self, invocation: Invocation) -> Self {
        self.context.set_invocation(invocation);
        self
    }

    /// The route that the client asks for: `$connect` of the stage.
    pub fn method_arn(&self) -> &RouteArn {
        &self.method_arn
    }

    /// The connection, the API and the client's address.
    pub fn request_context(&self) -> &RequestContext {
        &self.context
    }

    /// The id that the connection will have if it comes about.
    pub fn connection_id(&self) -> &ConnectionId {
        &self.context.connection_id
    }

    /// The headers of the client's request.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The first value of a request header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The query string of the client's request.
    pub fn query_string(&self) -> &Query {
        &self.query
    }

    /// The last value of a query parameter, which may be empty.
    ///
    /// [`query_string`](Self::query_string) has every value.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name)
    }

    /// A variable of the stage.
    pub fn stage_variable(&self, name: &str) -> Option<&str> {
        self.context.stage_variable(name)
    }
}

/// Reads the request where `lambda_runtime` or another crate asks for a type that serde can read.
impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_envelope(Envelope::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
