//! The routes that keep the registry up to date.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Hub;
use crate::event::{Connect, Disconnect};
use crate::registry::{Connection, Group};
use crate::route::{Error, Response, Result, Route, StatusCode};

/// A `$connect` route that registers every connection.
///
/// The principal is the authorizer's `principalId`. If registration fails, the handshake is
/// rejected with status 500.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Router;
/// use lambda_websocket::hub::{Hub, OnConnect, OnDisconnect};
///
/// # fn show(hub: Hub) -> Router {
/// Router::new().route(OnConnect::new(hub.clone())).route(OnDisconnect::new(hub))
/// # }
/// ```
#[derive(Clone)]
pub struct OnConnect {
    hub: Hub,
    subprotocol: Option<String>,
    data: Option<Arc<Data>>,
    groups: Option<Arc<Groups>>,
}

type Data = dyn Fn(&Connect, Connection) -> Result<Connection> + Send + Sync;
type Groups = dyn Fn(&Connect) -> Result<Vec<Group>> + Send + Sync;

impl OnConnect {
    /// Creates the route for the registry of this hub.
    pub fn new(hub: Hub) -> Self {
        Self { hub, subprotocol: None, data: None, groups: None }
    }

    /// Selects this subprotocol for clients that offer it. Default: none.
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// Stores your own value with each connection. Default: none.
    ///
    /// An error rejects the connection.
    #[must_use]
    pub fn with_data<T: serde::Serialize>(
        mut self,
        data: impl Fn(&Connect) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        self.data = Some(Arc::new(move |event, connection| Ok(connection.with_data(&data(event)?)?)));
        self
    }

    /// Stores the authorizer's whole context with each connection, with all values as strings.
    ///
    /// Every group that the connection joins has a copy. Prefer [`with_data`](Self::with_data) with
    /// only the values that you need.
    #[must_use]
    pub fn with_authorizer_context(self) -> Self {
        self.with_data(|event| Ok(event.context::<Map<String, Value>>()?))
    }

    /// Adds each connection to these groups, atomically with its registration. Default: none.
    ///
    /// An error rejects the connection.
    ///
    /// The application chooses the groups: the [policy](super::HubBuilder::allowing_joins) is not
    /// called. Do not take a group from the query string without checking that the principal may
    /// join it.
    #[must_use]
    pub fn joining(mut self, groups: impl Fn(&Connect) -> Result<Vec<Group>> + Send + Sync + 'static) -> Self {
        self.groups = Some(Arc::new(groups));
        self
    }
}

impl Route for OnConnect {
    const KEY: &'static str = "$connect";
    type Event = Connect;
    type Reply = Response;

    async fn handle(&self, event: Connect) -> Result<Response> {
        let mut connection = self.hub.connection(event.request_context())?;
        if let Some(data) = &self.data {
            connection = data(&event, connection)?;
        }
        let groups = self.groups.as_ref().map(|groups| groups(&event)).transpose()?.unwrap_or_default();
        if !self.hub.connect(&connection, &groups).await?.is_registered() {
            return Err(Error::client(StatusCode::GONE, "the connection is closed"));
        }
        let offered = self.subprotocol.as_deref().filter(|name| event.subprotocols().any(|offered| offered == *name));
        Ok(match offered {
            Some(name) => Response::ok().subprotocol(name),
            None => Response::ok(),
        })
    }
}

impl fmt::Debug for OnConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnConnect").field("hub", &self.hub).finish_non_exhaustive()
    }
}

/// A `$disconnect` route that removes every connection, and announces that to its groups.
#[derive(Debug, Clone)]
pub struct OnDisconnect {
    hub: Hub,
}

impl OnDisconnect {
    /// Creates the route for the registry of this hub.
    pub fn new(hub: Hub) -> Self {
        Self { hub }
    }
}

impl Route for OnDisconnect {
    const KEY: &'static str = "$disconnect";
    type Event = Disconnect;
    type Reply = ();

    async fn handle(&self, event: Disconnect) -> Result<()> {
        self.hub.disconnect(&self.hub.key(event.request_context())).await?;
        Ok(())
    }
}
