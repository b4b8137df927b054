//! The response of a route.

use std::fmt;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeStruct, Serializer};

use super::{Error, Result};
use crate::event::CorrelationId;

/// A type that a route can return as its reply.
#[diagnostic::on_unimplemented(
    message = "a route cannot reply with `{Self}`",
    label = "not a reply",
    note = "reply with `()`, with `Json(value)` for any `value: Serialize`, or with a `Response`"
)]
pub trait Reply: Send + 'static {
    /// Converts the reply into a response for API Gateway.
    ///
    /// # Errors
    ///
    /// An [`Error`] if the response cannot be created. It is treated like an error of the route.
    fn into_response(self) -> Result<Response>;
}

/// Responds with status 200 and no body.
impl Reply for () {
    fn into_response(self) -> Result<Response> {
        Ok(Response::ok())
    }
}

impl Reply for Response {
    fn into_response(self) -> Result<Response> {
        match self.problem {
            None => Ok(self),
            Some(problem) => Err(Error::message(problem)),
        }
    }
}

/// A reply that is serialized as JSON.
///
/// The client gets it if the route has a route response; otherwise API Gateway drops it. See
/// [two-way
/// communication](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-route-response.html).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + Send + 'static> Reply for Json<T> {
    fn into_response(self) -> Result<Response> {
        Response::ok().json(&self.0).into_response()
    }
}

/// A response with a status, headers, and a body.
///
/// On `$connect` the status decides: 2xx accepts the connection, any other status becomes that of
/// the handshake. The only header that reaches the client is `Sec-WebSocket-Protocol`, see
/// [`subprotocol`](Self::subprotocol). On other routes the client gets the body, regardless of the
/// status, if the route has a route response.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Response;
/// use lambda_websocket::route::StatusCode;
///
/// let full =
///     Response::new(StatusCode::SERVICE_UNAVAILABLE).body("the room is full");
/// assert_eq!(
///     serde_json::to_string(&full)?,
///     r#"{"statusCode":503,"body":"the room is full"}"#
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    problem: Option<String>,
}

/// The body of a response, before the reply protocol is applied.
#[derive(Clone)]
pub(super) enum Content {
    Empty,
    Text(String),
    Json(String),
    /// The request with this id is in a queue.
    #[cfg_attr(not(feature = "reply"), allow(dead_code, reason = "created from a reply address"))]
    Accepted(CorrelationId),
}

impl Response {
    /// Creates a response with a status.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), content: Content::Empty, problem: None }
    }

    /// Creates a response with status 200.
    pub fn ok() -> Self {
        Self::new(StatusCode::OK)
    }

    /// Sets a header.
    ///
    /// A name or a value that HTTP does not allow turns the response into an [`Error`].
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        match (HeaderName::try_from(name), HeaderValue::try_from(value.as_ref())) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            (Err(_), _) => self.problem = Some(format!("{name:?} is not a valid header name")),
            (_, Err(_)) => self.problem = Some(format!("the value of the header {name:?} is not a valid header value")),
        }
        self
    }

    /// Selects the subprotocol of the connection, in the response to `$connect`.
    ///
    /// It must be one that the client [offered](crate::Connect::subprotocols). For any other one
    /// the router returns an [`Error`], since the client would close the connection. If a browser
    /// offers subprotocols and none is selected, its connection fails.
    #[must_use]
    pub fn subprotocol(self, name: impl AsRef<str>) -> Self {
        self.header(SEC_WEBSOCKET_PROTOCOL, name)
    }

    /// Sets the body to a string. A client can receive at most 128 KB.
    #[must_use]
    pub fn body(mut self, text: impl Into<String>) -> Self {
        self.content = Content::Text(text.into());
        self
    }

    /// Sets the body to a value, serialized as JSON.
    ///
    /// A value that fails to serialize as JSON turns the response into an [`Error`].
    #[must_use]
    pub fn json<T: Serialize>(mut self, value: &T) -> Self {
        match serde_json::to_string(value) {
            Ok(text) => self.content = Content::Json(text),
            Err(error) => self.problem = Some(format!("failed to serialize the response as JSON: {error}")),
        }
        self
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the body, if there is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) | Content::Json(text) => Some(text),
            Content::Empty | Content::Accepted(_) => None,
        }
    }

    /// Creates a response for a request that is in a queue and has no result yet.
    #[cfg(feature = "reply")]
    pub(crate) fn accepted(id: CorrelationId) -> Self {
        Self { content: Content::Accepted(id), ..Self::ok() }
    }

    /// Splits the response into itself without a body, and the body.
    pub(super) fn take_content(mut self) -> (Self, Content) {
        let content = std::mem::replace(&mut self.content, Content::Empty);
        (self, content)
    }
}

/// Omits the body and the values of the headers.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body", &self.text().map(|body| format_args!("{} bytes", body.len()).to_string()))
            .finish_non_exhaustive()
    }
}

/// Serializes the response of a Lambda proxy integration, without absent members.
impl Serialize for Response {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let has_headers = !self.headers.is_empty();
        let members = [true, has_headers, self.text().is_some()].into_iter().filter(|there| *there).count();
        let mut response = serializer.serialize_struct("Response", members)?;
        response.serialize_field("statusCode", &self.status.as_u16())?;
        if has_headers {
            response.serialize_field("headers", &HeadersJson(&self.headers))?;
        }
        if let Some(body) = self.text() {
            response.serialize_field("body", body)?;
        }
        response.end()
    }
}

struct HeadersJson<'a>(&'a HeaderMap);

impl Serialize for HeadersJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
        }
        map.end()
    }
}
