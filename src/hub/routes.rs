//! The routes that keep the registry.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Hub;
use crate::event::{Connect, Disconnect, RequestContext};
use crate::registry::{Connection, ConnectionKey, Namespace, Registry};
use crate::route::{Response, Result, Route};

/// The route `$connect` that registers every connection.
///
/// The principal is the authorizer's; the connection's data are what the authorizer handed on, all of it text, unless
/// [told otherwise](Self::with_data). Nobody is let in who cannot be registered: the handshake fails with 500 then.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Router;
/// use lambda_websocket::hub::{Hub, OnConnect, OnDisconnect};
///
/// # fn show(hub: Hub) -> Router {
/// Router::new().route(OnConnect::new(hub.registry().clone())).route(OnDisconnect::new(hub))
/// # }
/// ```
#[derive(Clone)]
pub struct OnConnect {
    registry: Arc<dyn Registry>,
    namespace: Option<Namespace>,
    subprotocol: Option<String>,
    data: Arc<Data>,
}

type Data = dyn Fn(&Connect, Connection) -> Result<Connection> + Send + Sync;

impl OnConnect {
    /// Registers connections here.
    pub fn new(registry: impl Registry + 'static) -> Self {
        let data = |event: &Connect, connection: Connection| {
            let context: Map<String, Value> = event.context()?;
            Ok(if context.is_empty() { connection } else { connection.with_data(&context)? })
        };
        Self { registry: Arc::new(registry), namespace: None, subprotocol: None, data: Arc::new(data) }
    }

    /// Registers connections in this namespace, instead of that of their API and stage.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Selects this subprotocol, for clients that offer it.
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// Keeps these data with the connection. An error refuses it.
    #[must_use]
    pub fn with_data<T: serde::Serialize>(
        mut self,
        data: impl Fn(&Connect) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        self.data = Arc::new(move |event, connection| Ok(connection.with_data(&data(event)?)?));
        self
    }
}

impl Route for OnConnect {
    const KEY: &'static str = "$connect";
    type Event = Connect;
    type Reply = Response;

    async fn handle(&self, event: Connect) -> Result<Response> {
        let connection = (self.data)(&event, Connection::of(event.request_context())?)?;
        let connection = match &self.namespace {
            Some(namespace) => connection.in_namespace(namespace.clone()),
            None => connection,
        };
        self.registry.insert(&connection).await?;
        let offered = self.subprotocol.as_deref().filter(|name| event.subprotocols().any(|offered| offered == *name));
        Ok(match offered {
            Some(name) => Response::ok().subprotocol(name),
            None => Response::ok(),
        })
    }
}

impl fmt::Debug for OnConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnConnect").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// The route `$disconnect` that removes every connection, and tells its groups.
#[derive(Debug, Clone)]
pub struct OnDisconnect {
    hub: Hub,
    namespace: Option<Namespace>,
}

impl OnDisconnect {
    /// Removes connections from this hub.
    pub fn new(hub: Hub) -> Self {
        Self { hub, namespace: None }
    }

    /// Removes connections from this namespace, instead of that of their API and stage.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    fn key(&self, context: &RequestContext) -> ConnectionKey {
        match &self.namespace {
            Some(namespace) => ConnectionKey::new(namespace.clone(), context.connection_id.clone()),
            None => ConnectionKey::of(context),
        }
    }
}

impl Route for OnDisconnect {
    const KEY: &'static str = "$disconnect";
    type Event = Disconnect;
    type Reply = ();

    async fn handle(&self, event: Disconnect) -> Result<()> {
        self.hub.disconnect(&self.key(event.request_context())).await?;
        Ok(())
    }
}
