//! What is known about a connection.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Audience, Group, Namespace, Principal};
use crate::event::{ApiId, ConnectionId, InvalidId, RequestContext, Stage};

/// No connection lives longer (LIM-3).
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
/// How much longer its record is kept, for clocks that differ and functions that are late.
const SLACK: Duration = Duration::from_secs(5 * 60);

/// The largest data of a connection, in bytes of JSON.
///
/// Every group that a connection joins keeps a copy, so that a group is read in few requests.
pub const LARGEST_DATA: usize = 16_384;

/// Names a connection in a registry: its namespace and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    namespace: Namespace,
    id: ConnectionId,
}

impl ConnectionKey {
    /// The connection with this id in this namespace.
    pub fn new(namespace: Namespace, id: ConnectionId) -> Self {
        Self { namespace, id }
    }

    /// The connection that an event concerns, in the namespace of its API and stage.
    pub fn of(context: &RequestContext) -> Self {
        Self::new(Namespace::of(context), context.connection_id.clone())
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The id.
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// All connections of its namespace.
    pub fn everyone(&self) -> Audience {
        self.namespace.everyone()
    }

    /// The connections of a group of its namespace.
    pub fn group(&self, group: &Group) -> Audience {
        self.namespace.group(group)
    }
}

/// An open connection, as `$connect` registers it.
///
/// It does not change while it is registered. It expires two hours after the connection was opened, which is how long
/// [API Gateway](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html)
/// lets it live, plus five minutes, unless told otherwise.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Connect;
/// use lambda_websocket::registry::{Connection, Memory, Registry};
///
/// # async fn route(event: Connect, registry: Memory) -> lambda_websocket::Result<()> {
/// let connection = Connection::of(event.request_context())?.with_data(&event.header("User-Agent"))?;
/// registry.insert(&connection).await?;
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
    data: Option<Arc<str>>,
}

impl Connection {
    /// The connection that an event concerns, of the principal that the authorizer named.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] when the authorizer's principal is not a legal [`Principal`]. An empty one is none.
    pub fn of(context: &RequestContext) -> Result<Self, InvalidId> {
        let principal = context.principal_id().filter(|principal| !principal.is_empty());
        let principal = principal.map(Principal::new).transpose()?;
        let (api_id, stage) = (context.api_id.clone(), context.stage.clone());
        let connection =
            Self::new(ConnectionKey::of(context), api_id, stage, &context.domain_name, context.connected_at);
        Ok(Self { principal, ..connection })
    }

    /// A connection to this stage of this API, through this host, opened at this time.
    pub fn new(
        key: ConnectionKey,
        api_id: ApiId,
        stage: Stage,
        domain_name: impl Into<String>,
        connected_at: SystemTime,
    ) -> Self {
        let expires_at = connected_at.checked_add(LIFETIME.saturating_add(SLACK)).unwrap_or(connected_at);
        Self {
            key,
            api_id,
            stage,
            domain_name: domain_name.into().into(),
            principal: None,
            connected_at: to_millisecond(connected_at),
            expires_at: to_second(expires_at),
            data: None,
        }
    }

    /// The same connection, of this principal.
    #[must_use]
    pub fn with_principal(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    /// The same connection, in this namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.key.namespace = namespace;
        self
    }

    /// The same connection, forgotten after this time. Parts of a second are cut off.
    #[must_use]
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = to_second(expires_at);
        self
    }

    /// The same connection, with data of yours.
    ///
    /// # Errors
    ///
    /// [`InvalidData`] when it cannot be made JSON, or has more than [`LARGEST_DATA`] bytes.
    pub fn with_data<T: Serialize + ?Sized>(mut self, data: &T) -> Result<Self, InvalidData> {
        let json = serde_json::to_string(data).map_err(|source| InvalidData::NotJson { source })?;
        if json.len() > LARGEST_DATA {
            return Err(InvalidData::TooLarge { size: json.len() });
        }
        self.data = Some(json.into());
        Ok(self)
    }

    /// The name in the registry.
    pub fn key(&self) -> &ConnectionKey {
        &self.key
    }

    /// The connection's id.
    pub fn id(&self) -> &ConnectionId {
        &self.key.id
    }

    /// The API.
    pub fn api_id(&self) -> &ApiId {
        &self.api_id
    }

    /// The stage of the API.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The host that the client used: the custom domain where there is one.
    pub fn domain_name(&self) -> &str {
        &self.domain_name
    }

    /// Whose it is, where an authorizer said so.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// When it was opened, to the millisecond.
    pub fn connected_at(&self) -> SystemTime {
        self.connected_at
    }

    /// When it is forgotten, to the second.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// The data of yours, if there are some.
    ///
    /// # Errors
    ///
    /// [`InvalidData::Shape`] when they do not fit `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<Option<T>, InvalidData> {
        let Some(json) = &self.data else { return Ok(None) };
        // What serde says may quote the data.
        serde_json::from_str(json).map(Some).map_err(|error| InvalidData::Shape { column: error.column() })
    }

    /// The data as JSON.
    pub fn data_json(&self) -> Option<&str> {
        self.data.as_deref()
    }

    #[cfg(feature = "dynamodb")]
    pub(super) fn with_json(mut self, json: Option<String>) -> Self {
        self.data = json.map(Into::into);
        self
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
            .finish_non_exhaustive()
    }
}

/// The data of a connection are not what they should be.
///
/// No text of it quotes the data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidData {
    /// They cannot be made JSON.
    #[error("the connection's data cannot be made JSON")]
    NotJson {
        /// Why not.
        source: serde_json::Error,
    },
    /// They have too many bytes.
    #[error("the connection's data have {size} bytes of JSON, of which a registry keeps at most {LARGEST_DATA}")]
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
