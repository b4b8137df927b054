//! The record of a connection.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ConnectionKey, Namespace, Principal};
use crate::event::{ApiId, ConnectionId, InvalidId, RequestContext, Stage, chain};

/// How long a connection's record is kept.
///
/// API Gateway keeps the connection open for two hours (LIM-3); five minutes more allow for clock
/// skew and late functions.
pub(super) const LIFETIME: Duration = Duration::from_secs(125 * 60);

/// The maximum size of a connection's data, in bytes of JSON.
///
/// Every group that a connection joins keeps a copy, so that a group can be read in few requests.
pub const MAX_DATA_BYTES: usize = 16_384;

/// Your own data, kept with a connection: JSON of at most [`MAX_DATA_BYTES`].
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionData(Arc<str>);

impl ConnectionData {
    /// Serializes a value as JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidData::NotJson`] if the value fails to serialize, [`InvalidData::TooLarge`] if the
    /// JSON exceeds [`MAX_DATA_BYTES`].
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, InvalidData> {
        let json = serde_json::to_string(value).map_err(|source| InvalidData::NotJson { source })?;
        match json.len() {
            0..=MAX_DATA_BYTES => Ok(Self(json.into())),
            size => Err(InvalidData::TooLarge { size }),
        }
    }

    /// Returns the JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Wraps JSON from a registry's store.
    #[cfg(feature = "dynamodb")]
    pub(super) fn from_stored(json: &str) -> Self {
        Self(json.into())
    }
}

/// Omits the data, which may be personal.
impl fmt::Debug for ConnectionData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionData").field("bytes", &self.0.len()).finish_non_exhaustive()
    }
}

/// An open connection, as registered by `$connect`.
///
/// While the connection is registered, only its [data](super::Registry::set_data) can change.
/// Default expiry: two hours after the connection was opened, which is how long
/// [API Gateway](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html)
/// keeps it open, plus five minutes.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Connect;
/// use lambda_websocket::registry::{Connection, InMemory, Registry};
///
/// # async fn route(event: Connect, registry: InMemory) -> lambda_websocket::Result<()> {
/// let connection = Connection::from_context(event.request_context())?.with_data(&event.header("User-Agent"))?;
/// let inserted = registry.insert(&connection).await?;
/// assert!(inserted.is_registered());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    key: ConnectionKey,
    api_id: ApiId,
    stage: Stage,
    domain_name: Arc<str>,
    principal: Option<Principal>,
    connected_at: SystemTime,
    expires_at: SystemTime,
    authorization_expires_at: Option<SystemTime>,
    data: Option<ConnectionData>,
}

impl Connection {
    /// Creates the connection of an event, with the authorizer's `principalId`.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if the authorizer's principal is not a valid [`Principal`]. An empty one
    /// counts as none.
    pub fn from_context(context: &RequestContext) -> Result<Self, InvalidId> {
        let principal = context.principal_id().filter(|principal| !principal.is_empty());
        let principal = principal.map(Principal::new).transpose()?;
        let (api_id, stage) = (context.api_id.clone(), context.stage.clone());
        let key = ConnectionKey::from_context(context);
        let connection = Self::new(key, api_id, stage, &context.domain_name, context.connected_at)
            .with_authorization_expiry(context.authorization_expires_at());
        Ok(match principal {
            Some(principal) => connection.with_principal(principal),
            None => connection,
        })
    }

    /// Creates a connection to this stage of this API.
    ///
    /// `domain_name` is the host that the client used. The connection has no principal, even if the
    /// key has one: see [`with_principal`](Self::with_principal).
    pub fn new(
        key: ConnectionKey,
        api_id: ApiId,
        stage: Stage,
        domain_name: impl Into<String>,
        connected_at: SystemTime,
    ) -> Self {
        let expires_at = connected_at.checked_add(LIFETIME).unwrap_or(connected_at);
        Self {
            key: ConnectionKey { principal: None, ..key },
            api_id,
            stage,
            domain_name: domain_name.into().into(),
            principal: None,
            connected_at: to_millisecond(connected_at),
            expires_at: to_second(expires_at),
            authorization_expires_at: None,
            data: None,
        }
    }

    /// Sets the principal of the connection. Default: none.
    #[must_use]
    pub fn with_principal(mut self, principal: Principal) -> Self {
        self.key.principal = Some(principal.clone());
        self.principal = Some(principal);
        self
    }

    /// Moves the connection to this namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.key.namespace = namespace;
        self
    }

    /// Sets when the connection expires, truncated to the second.
    ///
    /// Default: two hours and five minutes after the connection was opened.
    #[must_use]
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = to_second(expires_at);
        self
    }

    /// Sets until when the client is authorized, truncated to the second. Default: no limit.
    ///
    /// After that time, a [`Hub`](crate::hub::Hub) sends the client nothing, and its sweeps close
    /// the connection. An event has the time that the
    /// [authorizer](crate::authorizer::Authorization::with_expiry) set.
    #[must_use]
    pub fn with_authorization_expiry(mut self, expires_at: Option<SystemTime>) -> Self {
        self.authorization_expires_at = expires_at.map(to_second);
        self
    }

    /// Stores your own value with the connection, serialized as JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidData::NotJson`] if the value fails to serialize, [`InvalidData::TooLarge`] for more
    /// than [`MAX_DATA_BYTES`] bytes.
    pub fn with_data<T: Serialize + ?Sized>(mut self, data: &T) -> Result<Self, InvalidData> {
        self.data = Some(ConnectionData::new(data)?);
        Ok(self)
    }

    /// Replaces the data of the connection.
    pub(super) fn replacing_data(mut self, data: Option<ConnectionData>) -> Self {
        self.data = data;
        self
    }

    /// Returns the connection's key in the registry.
    pub fn key(&self) -> &ConnectionKey {
        &self.key
    }

    /// Returns the connection's id.
    pub fn id(&self) -> &ConnectionId {
        &self.key.id
    }

    /// Returns the id of the API.
    pub fn api_id(&self) -> &ApiId {
        &self.api_id
    }

    /// Returns the stage of the API.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Returns the host that the client used, such as a custom domain.
    pub fn domain_name(&self) -> &str {
        &self.domain_name
    }

    /// Returns the principal of the connection, if the authorizer named one.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Returns when the connection was opened, to the millisecond.
    pub fn connected_at(&self) -> SystemTime {
        self.connected_at
    }

    /// Returns when the connection expires, to the second.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Returns until when the client is authorized, if the authorizer set a limit.
    pub fn authorization_expires_at(&self) -> Option<SystemTime> {
        self.authorization_expires_at
    }

    /// Returns whether the client is still authorized at this time.
    #[cfg(feature = "hub")]
    pub(crate) fn is_authorized(&self, now: SystemTime) -> bool {
        self.authorization_expires_at.is_none_or(|end| end > now)
    }

    /// Deserializes the data, if there is any.
    ///
    /// # Errors
    ///
    /// [`InvalidData::Shape`] if the data does not deserialize as `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<Option<T>, InvalidData> {
        let Some(data) = &self.data else { return Ok(None) };
        // serde's message may quote the data.
        serde_json::from_str(&data.0).map(Some).map_err(|error| InvalidData::Shape { column: error.column() })
    }

    /// Returns the data as JSON, if there is any.
    pub fn data_json(&self) -> Option<&str> {
        self.data.as_ref().map(ConnectionData::as_json)
    }
}

/// Omits the data and the host.
///
/// Pushing needs only the host and the id.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("key", &self.key)
            .field("api_id", &self.api_id)
            .field("stage", &self.stage)
            .field("principal", &self.principal)
            .field("connected_at", &self.connected_at)
            .field("expires_at", &self.expires_at)
            .field("authorization_expires_at", &self.authorization_expires_at)
            .finish_non_exhaustive()
    }
}

/// The data of a connection cannot be stored or does not fit a type.
///
/// The messages never quote the data.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InvalidData {
    /// The data failed to serialize as JSON.
    #[error("the connection's data failed to serialize as JSON")]
    NotJson {
        /// The error of the serializer.
        source: serde_json::Error,
    },
    /// The JSON of the data exceeds [`MAX_DATA_BYTES`].
    #[error("the connection's data have {size} bytes of JSON, more than the maximum of {MAX_DATA_BYTES}")]
    TooLarge {
        /// The size of the JSON in bytes.
        size: usize,
    },
    /// The data does not deserialize as the requested type.
    #[error("the connection's data do not fit the type that was asked for: column {column} of their JSON")]
    Shape {
        /// The column in the JSON, in bytes, counted from 1.
        column: usize,
    },
}

/// Shows the messages of the error and its source.
///
/// A `main` that returns the error prints this.
impl fmt::Debug for InvalidData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// Returns the seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn to_second(time: SystemTime) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds(time))).unwrap_or(UNIX_EPOCH)
}

/// Returns the milliseconds since 1970.
pub(super) fn milliseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn to_millisecond(time: SystemTime) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds(time))).unwrap_or(UNIX_EPOCH)
}
