//! The request context that every event carries.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::InvalidEvent;
use super::authorizer_context::{self, ContextMismatch};
use super::id::{ApiId, ConnectionId, InvalidId, RequestId, RouteKey, Stage};
use super::identity::IamIdentity;
use super::invocation::Invocation;
use super::trace::TraceContext;
use super::wire::{AUTHORIZATION_EXPIRES_AT, ContextWire, NameValues, PRINCIPAL_ID, RareContextWire, Text};

/// The `requestContext` of an event, and the stage variables.
///
/// Members that API Gateway always sends are fields. Members that depend on the API or on the
/// client are methods, which decode the value on first use.
///
/// See [the `$context`
/// variables](https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html).
#[derive(Clone)]
#[non_exhaustive]
pub struct RequestContext {
    /// The id of the connection.
    pub connection_id: ConnectionId,
    /// The key of the route that API Gateway selected.
    pub route_key: RouteKey,
    /// The id of the API.
    pub api_id: ApiId,
    /// The stage of the API.
    pub stage: Stage,
    /// The host that the client connected to: the custom domain, if there is one.
    pub domain_name: String,
    /// The client's IP address.
    pub source_ip: IpAddr,
    /// API Gateway's id of this request, as in its access logs. It differs from the id of the
    /// Lambda invocation.
    pub request_id: RequestId,
    /// When the connection was opened, with millisecond precision.
    pub connected_at: SystemTime,
    /// When API Gateway received this request, with millisecond precision.
    pub request_time: SystemTime,
    // Undecoded, for members that are rarely read. It is set as soon as the event is parsed.
    raw: Option<Box<RawValue>>,
    rare: OnceLock<Arc<RareContextWire>>,
    // Boxed, since most stages have none.
    stage_variables: Option<Box<NameValues>>,
    invocation: Option<Invocation>,
    trace: Option<TraceContext>,
}

impl RequestContext {
    pub(crate) fn new(wire: &ContextWire<'_>) -> Result<Self, InvalidEvent> {
        let source_ip = wire.identity.as_ref().and_then(|identity| identity.source_ip.as_ref());
        Ok(Self {
            connection_id: identifier("requestContext.connectionId", &wire.connection_id)?,
            route_key: identifier("requestContext.routeKey", &wire.route_key)?,
            api_id: identifier("requestContext.apiId", &wire.api_id)?,
            stage: identifier("requestContext.stage", &wire.stage)?,
            domain_name: required("requestContext.domainName", wire.domain_name.as_deref())?.to_owned(),
            source_ip: required("requestContext.identity.sourceIp", source_ip)?.parse().map_err(|_| {
                InvalidEvent::Member {
                    member: "requestContext.identity.sourceIp".to_owned(),
                    reason: "expected an IP address".to_owned(),
                }
            })?,
            request_id: identifier("requestContext.requestId", &wire.request_id)?,
            connected_at: time("requestContext.connectedAt", wire.connected_at)?,
            request_time: time("requestContext.requestTimeEpoch", wire.request_time_epoch)?,
            raw: None,
            rare: OnceLock::new(),
            stage_variables: None,
            invocation: None,
            trace: None,
        })
    }

    /// Returns the principal id that the authorizer set, if the API has an authorizer.
    pub fn principal_id(&self) -> Option<&str> {
        self.authorizer()?.get(PRINCIPAL_ID)?.as_str()
    }

    /// Deserializes the authorizer's context into `T`.
    ///
    /// API Gateway stringifies every value. Strings are parsed back into numbers and booleans where
    /// `T` has such a field. For an `Option`, `null` counts as an absent value. A field inside a
    /// `#[serde(flatten)]` struct stays a string, because serde does not tell the type of such a
    /// field. Without an authorizer the context is empty.
    ///
    /// # Errors
    ///
    /// [`ContextMismatch`] if the values do not fit `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use lambda_websocket::event::{Connect, ContextMismatch};
    /// #[derive(serde::Deserialize)]
    /// struct Session {
    ///     org: u64,
    ///     admin: bool,
    /// }
    ///
    /// fn is_admin_of(connect: &Connect, org: u64) -> Result<bool, ContextMismatch> {
    ///     let session: Session = connect.context()?;
    ///     Ok(session.admin && session.org == org)
    /// }
    /// ```
    pub fn context<T: DeserializeOwned>(&self) -> Result<T, ContextMismatch> {
        authorizer_context::deserialize(self.authorizer())
    }

    /// Returns when the client's authorization expires, if the
    /// [authorizer](crate::authorizer::Authorization::with_expiry) set a time.
    ///
    /// API Gateway keeps the connection open after that time, until the connection is two hours
    /// old. [`Router::close_expired`](crate::Router::close_expired) and the sweeps of a
    /// [`Hub`](crate::hub::Hub) close it. A value that is not a valid time counts as the Unix
    /// epoch, and so as expired.
    pub fn authorization_expires_at(&self) -> Option<SystemTime> {
        let seconds = match self.authorizer()?.get(AUTHORIZATION_EXPIRES_AT)? {
            Value::Number(number) => number.as_u64(),
            // API Gateway stringifies every value.
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        Some(seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))).unwrap_or(UNIX_EPOCH))
    }

    /// Returns the `User-Agent` that the client sent when it connected.
    pub fn user_agent(&self) -> Option<&str> {
        self.rare().identity.as_ref()?.get("userAgent")?.as_str()
    }

    /// Returns the AWS identity that opened the connection, if `$connect` uses IAM authorization.
    ///
    /// # Examples
    ///
    /// ```
    /// # use lambda_websocket::Connect;
    /// fn caller(connect: &Connect) -> Option<&str> {
    ///     connect.request_context().iam_identity()?.user_arn()
    /// }
    /// ```
    pub fn iam_identity(&self) -> Option<IamIdentity<'_>> {
        IamIdentity::new(self.rare().identity.as_ref()?)
    }

    /// Returns the value of a stage variable.
    ///
    /// See [stage
    /// variables](https://docs.aws.amazon.com/apigateway/latest/developerguide/stage-variables.html).
    pub fn stage_variable(&self, name: &str) -> Option<&str> {
        self.stage_variables().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Returns the names and values of all stage variables.
    pub fn stage_variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.stage_variables.as_deref().map(NameValues::decoded).unwrap_or_default();
        variables.iter().filter_map(|(name, values)| Some((name.as_str(), values.first()?.as_str())))
    }

    /// Returns the `requestContext` as JSON, for members that this type does not have.
    ///
    /// It contains the authorizer's values, so do not log it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use lambda_websocket::Message;
    /// #[derive(serde::Deserialize)]
    /// #[serde(rename_all = "camelCase")]
    /// struct More {
    ///     extended_request_id: String,
    /// }
    ///
    /// fn extended_request_id(message: &Message) -> Result<String, serde_json::Error> {
    ///     let more: More = serde_json::from_str(message.request_context().raw_json())?;
    ///     Ok(more.extended_request_id)
    /// }
    /// ```
    pub fn raw_json(&self) -> &str {
        self.raw.as_deref().map_or("{}", RawValue::get)
    }

    /// Returns the Lambda invocation that carries this event, if there is one.
    pub fn invocation(&self) -> Option<&Invocation> {
        self.invocation.as_ref()
    }

    /// Returns the trace of the event: that of its Lambda invocation, or the client's.
    ///
    /// A client's trace is used only if the router [accepts it](crate::Router::accept_traceparent).
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    pub(crate) fn set_trace(&mut self, trace: TraceContext) {
        self.trace = Some(trace);
    }

    /// Returns the deadline of the Lambda invocation that carries this event, if there is one.
    pub fn deadline(&self) -> Option<SystemTime> {
        self.invocation.as_ref().map(|invocation| invocation.deadline)
    }

    pub(crate) fn set_invocation(&mut self, invocation: Invocation) {
        self.trace = invocation.trace.or(self.trace);
        self.invocation = Some(invocation);
    }

    pub(crate) fn keep(&mut self, raw: Option<Box<RawValue>>, stage_variables: Option<Box<RawValue>>) {
        self.raw = raw;
        self.stage_variables = stage_variables.map(|raw| Box::new(NameValues::new(Some(raw), None)));
    }

    #[cfg(feature = "aws_lambda_events")]
    pub(super) fn raw_stage_variables(&self) -> Option<&RawValue> {
        self.stage_variables.as_deref()?.forms().0
    }

    #[cfg(feature = "aws_lambda_events")]
    pub(super) fn raw(&self) -> Option<&RawValue> {
        self.raw.as_deref()
    }

    fn authorizer(&self) -> Option<&Value> {
        self.rare().authorizer.as_ref()
    }

    fn rare(&self) -> &RareContextWire {
        self.rare.get_or_init(|| Arc::new(serde_json::from_str(self.raw_json()).unwrap_or_default()))
    }
}

/// Omits the authorizer's values, the stage variables, and identities.
impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("connection_id", &self.connection_id)
            .field("route_key", &self.route_key)
            .field("api_id", &self.api_id)
            .field("stage", &self.stage)
            .field("domain_name", &self.domain_name)
            .field("source_ip", &self.source_ip)
            .field("request_id", &self.request_id)
            .field("connected_at", &self.connected_at)
            .field("request_time", &self.request_time)
            .field("invocation", &self.invocation)
            .finish_non_exhaustive()
    }
}

fn required<T>(member: &'static str, value: Option<T>) -> Result<T, InvalidEvent> {
    value.ok_or(InvalidEvent::Missing { member })
}

pub(super) fn identifier<T: FromStr<Err = InvalidId>>(
    member: &'static str,
    text: &Option<Text<'_>>,
) -> Result<T, InvalidEvent> {
    required(member, text.as_deref())?
        .parse()
        .map_err(|error: InvalidId| InvalidEvent::Member { member: member.to_owned(), reason: error.to_string() })
}

fn time(member: &'static str, milliseconds: Option<u64>) -> Result<SystemTime, InvalidEvent> {
    UNIX_EPOCH.checked_add(Duration::from_millis(required(member, milliseconds)?)).ok_or(InvalidEvent::Member {
        member: member.to_owned(),
        reason: "expected milliseconds since 1970 within the range of `SystemTime`".to_owned(),
    })
}
