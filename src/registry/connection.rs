//! What is known about a connection.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ConnectionKey, Namespace, Principal};
use crate::event::{ApiId, ConnectionId, InvalidId, RequestContext, Stage, chain};

/// How long a connection's record is kept: the two hours that API Gateway keeps it open (LIM-3), and five minutes for clocks that
/// differ and functions that are late.
pub(super) const LIFETIME: Duration = Duration::from_secs(125 * 60);

/// The maximum size of a connection's data, in bytes of JSON.
///
/// Every group that a connection joins keeps a copy, so that a group is read in few requests.
pub const MAX_DATA_BYTES: usize = 16_384;

/// Data of your own that a registry keeps with a connection: JSON of at most [`MAX_DATA_BYTES`].
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionData(Arc<str>);

impl ConnectionData {
    /// Serializes a value as JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidData::NotJson`] if it fails to serialize, [`InvalidData::TooLarge`] if the JSON is too large.
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

    /// Takes JSON that a registry has kept.
    #[cfg(feature = "dynamodb")]
    pub(super) fn from_stored(json: &str) -> Self {
        Self(json.into())
    }
}

/// Leaves out the data, which may be personal.
impl fmt::Debug for ConnectionData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionData").field("bytes", &self.0.len()).finish_non_exhaustive()
    }
}

/// An open connection, as `$connect` registers it.
///
/// While it is registered, only its [data](super::Registry::set_data) change. Default: it expires two hours after the connection was
/// opened, which is how long
/// [API Gateway](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html)
/// keeps it open, plus five minutes.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Connect;
/// use lambda_websocket::registry::{Connection, Memory, Registry};
///
/// # async fn route(event: Connect, registry: Memory) -> lambda_websocket::Result<()> {
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
    /// The connection that an event concerns, of the principal that the authorizer named.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if the authorizer's principal is not a legal [`Principal`]. An empty one counts as none.
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

    /// A connection to this stage of this API, through this host, opened at this time.
    ///
    /// It has no principal, whatever the key says: see [`with_principal`](Self::with_principal).
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

    /// States whose connection it is.
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

    /// Lets the connection expire at this time, cut off to the second.
    #[must_use]
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = to_second(expires_at);
        self
    }

    /// Says until when its client is authorized, cut off to the second.
    ///
    /// A [`Hub`](crate::hub::Hub) sends it nothing afterwards, and its sweeps close the connection. The time of an event is what the [authorizer](crate::authorizer::Authorization::with_expiry) said.
    #[must_use]
    pub fn with_authorization_expiry(mut self, expires_at: Option<SystemTime>) -> Self {
        self.authorization_expires_at = expires_at.map(to_second);
        self
    }

    /// Keeps a value of your own with the connection, serialized as JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidData::NotJson`] if it fails to serialize, [`InvalidData::TooLarge`] for more than [`MAX_DATA_BYTES`] bytes.
    pub fn with_data<T: Serialize + ?Sized>(mut self, data: &T) -> Result<Self, InvalidData> {
        self.data = Some(ConnectionData::new(data)?);
        Ok(self)
    }

    /// The same connection with other data.
    pub(super) fn replacing_data(mut self, data: Option<ConnectionData>) -> Self {
        self.data = data;
        self
    }

    /// Returns the key in the registry.
    pub fn key(&self) -> &ConnectionKey {
        &self.key
    }

    /// Returns the connection's id.
    pub fn id(&self) -> &ConnectionId {
        &self.key.id
    }

    /// Returns the API.
    pub fn api_id(&self) -> &ApiId {
        &self.api_id
    }

    /// Returns the stage of the API.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Returns the host that the client used: the custom domain where there is one.
    pub fn domain_name(&self) -> &str {
        &self.domain_name
    }

    /// Returns whose connection it is, where an authorizer said so.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Returns when it was opened, to the millisecond.
    pub fn connected_at(&self) -> SystemTime {
        self.connected_at
    }

    /// Returns when it expires, to the second.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Returns until when its client is authorized, where the authorizer said so.
    pub fn authorization_expires_at(&self) -> Option<SystemTime> {
        self.authorization_expires_at
    }

    /// Whether its client is still authorized at this time.
    #[cfg(feature = "hub")]
    pub(crate) fn is_authorized(&self, now: SystemTime) -> bool {
        self.authorization_expires_at.is_none_or(|end| end > now)
    }

    /// Returns the data as a type of your own, if there are some.
    ///
    /// # Errors
    ///
    /// [`InvalidData::Shape`] if they do not fit `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<Option<T>, InvalidData> {
        let Some(data) = &self.data else { return Ok(None) };
        // What serde says may quote the data.
        serde_json::from_str(&data.0).map(Some).map_err(|error| InvalidData::Shape { column: error.column() })
    }

    /// Returns the data as JSON.
    pub fn data_json(&self) -> Option<&str> {
        self.data.as_ref().map(ConnectionData::as_json)
    }
}

/// Leaves out the data, and the host, which with the id is all that is needed to push.
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

/// The data of a connection cannot be kept, or do not fit a type.
///
/// No text of it quotes the data.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InvalidData {
    /// They failed to serialize as JSON.
    #[error("the connection's data failed to serialize as JSON")]
    NotJson {
        /// Why not.
        source: serde_json::Error,
    },
    /// They have too many bytes.
    #[error("the connection's data have {size} bytes of JSON, more than the maximum of {MAX_DATA_BYTES}")]
    TooLarge {
        /// How many.
        size: usize,
    },
    /// They do not fit the type that was asked for.
    #[error("the connection's data do not fit the type that was asked for: column {column} of their JSON")]
    Shape {
        /// The column in bytes, counted from 1.
        column: usize,
    },
}

/// The texts of the error and its source: it is what a `main` prints that returns the error.
impl fmt::Debug for InvalidData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn to_second(time: SystemTime) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds(time))).unwrap_or(UNIX_EPOCH)
}

/// Milliseconds since 1970.
pub(super) fn milliseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn to_millisecond(time: SystemTime) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds(time))).unwrap_or(UNIX_EPOCH)
}
