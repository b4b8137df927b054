//! A local API Gateway emulator for tests and development.
//!
//! A [`Gateway`] serves real WebSocket connections and calls your functions with the same JSON as
//! on AWS: the REQUEST authorizer, `$connect` with the HTTP status of the handshake, route
//! selection, `$default`, and `$disconnect`. It serves the `@connections` API on the same port, so
//! every AWS SDK can push through it.
//!
//! A [`Function`] runs in this process, as a [`Process`] of its own, or behind a Lambda Invoke
//! endpoint.
//!
//! # Examples
//!
//! ```
//! use lambda_websocket::authorizer::{Authorization, Denied, Request};
//! use lambda_websocket::local::Gateway;
//! use lambda_websocket::{Message, Pusher, Router};
//! use serde_json::json;
//!
//! async fn authorize(request: Request) -> Result<Authorization, Denied> {
//!     match request.query("Auth") {
//!         Some("token") => Ok(Authorization::allow("ali")),
//!         _ => Err(Denied::Forbidden),
//!     }
//! }
//!
//! #[derive(serde::Deserialize)]
//! struct Say { message: String }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gateway = Gateway::builder("dev");
//! let pusher = gateway.pusher();
//! let router = Router::new().on("say", move |event: Message<Say>| {
//!     let pusher = pusher.clone();
//!     async move {
//!         let echo = json!({"echoed": event.body.message});
//!         Ok(pusher.send(event.connection_id(), &echo).await?)
//!     }
//! });
//! let gateway = gateway
//!     .authorizer(authorize, ["route.request.querystring.Auth"])
//!     .router(router)
//!     .start()
//!     .await?;
//!
//! let mut client = gateway.connect("?Auth=token").await?;
//! client.send_json(&json!({"action": "say", "message": "hello"})).await?;
//! assert_eq!(client.next_json().await?, json!({"echoed": "hello"}));
//! assert_eq!(gateway.connect("").await.unwrap_err().status(), Some(401));
//! assert_eq!(gateway.connect("?Auth=guess").await.unwrap_err().status(), Some(403));
//! # Ok(())
//! # }
//! ```

mod builder;
mod client;
mod function;
mod identity;
mod listen;
mod payload;
mod proxy_response;
mod pusher;
mod rules;
mod selection;
mod server;
mod start_error;
mod timeline;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use self::builder::GatewayBuilder;
pub use self::client::{CallError, Client, ClientError};
pub use self::function::{Function, FunctionError, InvalidInvokeEndpoint, Process};
pub use self::identity::InvalidIdentitySource;
use self::listen::reachable;
use self::pusher::InProcess;
pub use self::rules::{Fault, When};
pub use self::selection::{InvalidRouteSelection, RouteSelection};
use self::server::Server;
pub use self::start_error::StartError;
pub use self::timeline::{Body, Entries, Entry, EntryKind, Observer, Origin, Timeline};
use crate::Pusher;
use crate::event::{ConnectionId, Stage};
use crate::push::Endpoint;

/// A WebSocket API that runs in this process.
///
/// Dropping it stops it at once; [`shutdown`](Self::shutdown) stops it gracefully.
pub struct Gateway {
    server: Server,
    stage: Stage,
}

impl Gateway {
    /// Creates a builder for an API with this stage and no routes.
    ///
    /// Without routes, the API accepts every connection.
    pub fn builder(stage: impl Into<String>) -> GatewayBuilder {
        GatewayBuilder::new(stage.into())
    }

    /// Returns the address that the gateway listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns the URL for clients on this machine: `ws://<address>/<stage>`.
    pub fn url(&self) -> String {
        format!("ws://{}/{}", reachable(self.address()), self.stage)
    }

    /// Returns the endpoint for pushes from this machine: `http://<address>/<stage>`.
    ///
    /// The gateway serves `@connections` below it. It is the endpoint of the first stage; each
    /// stage has its own.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::local(reachable(self.address()), &self.stage)
    }

    /// Returns a pusher that reaches the connections of every stage, without a socket.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(InProcess::new(Arc::new(OnceLock::from(self.server.link(self.endpoint())))))
    }

    /// Returns the ids of the open connections, sorted.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.server.open_connections()
    }

    /// Returns the timeline: what happened in the gateway, and why.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::local::{EntryKind, Gateway};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::builder("dev").start().await?;
    /// let mut client = gateway.connect("").await?;
    /// client.send_text("hello").await?;
    /// client.next_text().await?; // Forbidden
    /// let entries = gateway.timeline().entries();
    /// let why = entries.into_iter().find_map(|entry| match entry.kind {
    ///     EntryKind::Received { route_key: None, reason, .. } => Some(reason),
    ///     _ => None,
    /// });
    /// assert_eq!(
    ///     why.as_deref(),
    ///     Some("the route selection expression gives no key: the body is not JSON")
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeline(&self) -> &Timeline {
        self.server.timeline()
    }

    /// Replaces the function of a route while connections stay open.
    ///
    /// If the old function serves several routes, all of them call the new one. Running invocations
    /// finish with the old function.
    ///
    /// # Errors
    ///
    /// Returns the given function if the route does not exist.
    pub fn replace(&self, route_key: &str, function: Function) -> Result<(), Function> {
        function.set_endpoint(self.endpoint().as_str());
        self.server.replace(route_key, function)
    }

    /// Replaces the authorizer while connections stay open.
    ///
    /// Open connections keep the context from the old authorizer.
    ///
    /// # Errors
    ///
    /// Returns the given function if the API has no authorizer.
    pub fn replace_authorizer(&self, function: Function) -> Result<(), Function> {
        function.set_endpoint(self.endpoint().as_str());
        self.server.replace_authorizer(function)
    }

    /// Connects a client to the first stage.
    ///
    /// `query` is appended to the URL: empty, or a query string such as `?Auth=token`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the status of the handshake if the API refuses the client,
    /// [`ClientError::TimedOut`] if the handshake takes longer than a minute, and
    /// [`ClientError::Socket`] if it fails otherwise.
    pub async fn connect(&self, query: &str) -> Result<Client, ClientError> {
        self.connect_with(query, &[]).await
    }

    /// Connects a client to the first stage with additional headers.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the status of the handshake if the API refuses the client,
    /// [`ClientError::TimedOut`] if the handshake takes longer than a minute, and
    /// [`ClientError::Socket`] if a header is invalid or the handshake fails otherwise.
    pub async fn connect_with(&self, query: &str, headers: &[(&str, &str)]) -> Result<Client, ClientError> {
        let url = format!("{}{query}", self.url());
        Client::connect(reachable(self.address()), &url, headers, self.timeline().clone()).await
    }

    /// Connects a client to any stage.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the status of the handshake if the API refuses the client,
    /// which is 403 if the stage does not exist, [`ClientError::TimedOut`] if the handshake takes
    /// longer than a minute, and [`ClientError::Socket`] if it fails otherwise.
    pub async fn connect_to(&self, stage: &str, query: &str) -> Result<Client, ClientError> {
        let address = reachable(self.address());
        Client::connect(address, &format!("ws://{address}/{stage}{query}"), &[], self.timeline().clone()).await
    }

    /// Injects a fault.
    ///
    /// Faults accumulate. If several apply to the same operation, the one injected first takes
    /// effect.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::local::{Fault, Gateway, When};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::builder("dev").seed(7).start().await?;
    /// gateway.inject(Fault::PostThrottled, When::Next(3));
    /// gateway.inject(Fault::DisconnectLost, When::Sometimes(0.1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn inject(&self, fault: Fault, when: When) {
        self.server.inject(fault, when);
    }

    /// Removes all faults.
    ///
    /// A `$disconnect` event or a message that a fault has already delayed stays delayed.
    pub fn clear_faults(&self) {
        self.server.clear_faults();
    }

    /// Shuts the gateway down and releases everything it holds.
    ///
    /// The gateway refuses clients with a pending handshake with 503, closes every open connection
    /// with 1001, and waits up to five seconds for running functions to finish. Functions that run
    /// longer are stopped, together with their processes.
    pub async fn shutdown(self) {
        self.server.shutdown(Duration::from_secs(5)).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.stop();
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("url", &self.url()).finish_non_exhaustive()
    }
}
