//! The API Gateway that runs in a test and on a laptop.
//!
//! A [`Gateway`] holds real WebSockets and calls your functions with the JSON that they get on AWS: the REQUEST authorizer,
//! `$connect` with the handshake's HTTP status, route selection, `$default`, `$disconnect`, and the `@connections` API on
//! the same port, so that every AWS SDK pushes through it.
//!
//! A [`Function`] is in this process, a [`Process`] of its own, or behind a Lambda Invoke endpoint.
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
//!     async move { Ok(pusher.send(event.connection_id(), &json!({"echoed": event.body.message})).await?) }
//! });
//! let gateway = gateway.authorizer(authorize, ["route.request.querystring.Auth"]).router(router).start().await?;
//!
//! let mut client = gateway.connect("?Auth=token").await?;
//! client.send_json(&json!({"action": "say", "message": "hello"})).await?;
//! assert_eq!(client.next_json().await?, json!({"echoed": "hello"}));
//! assert_eq!(gateway.connect("").await.unwrap_err().status(), Some(401));
//! assert_eq!(gateway.connect("?Auth=guess").await.unwrap_err().status(), Some(403));
//! # Ok(())
//! # }
//! ```

mod answer;
mod builder;
mod client;
mod event;
mod function;
mod identity;
mod listen;
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

pub use self::builder::Builder;
pub use self::client::{CallError, Client, ClientError};
pub use self::function::{Function, FunctionError, InvalidInvokeEndpoint, Process};
pub use self::identity::InvalidIdentitySource;
use self::listen::reachable;
use self::pusher::InProcess;
pub use self::rules::{Fault, When};
pub use self::selection::{InvalidRouteSelection, RouteSelection};
use self::server::Server;
pub use self::start_error::StartError;
pub use self::timeline::{Body, Entries, Entry, Observer, Origin, Timeline, What};
use crate::Pusher;
use crate::event::{ConnectionId, Stage};
use crate::push::Endpoint;

/// A WebSocket API that runs in this process.
///
/// It ends when it is dropped; [`shutdown`](Self::shutdown) ends it gently.
pub struct Gateway {
    server: Server,
    stage: Stage,
}

impl Gateway {
    /// Sets up an API with this stage and no routes: it accepts every connection.
    pub fn builder(stage: impl Into<String>) -> Builder {
        Builder::new(stage.into())
    }

    /// The address that the gateway listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where clients of this machine connect: `ws://<address>/<stage>`.
    pub fn url(&self) -> String {
        format!("ws://{}/{}", reachable(self.address()), self.stage)
    }

    /// Where functions and tools of this machine push: `http://<address>/<stage>`, below which `@connections` is served.
    ///
    /// It is the endpoint of the first stage; each stage has its own.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::local(reachable(self.address()), &self.stage)
    }

    /// A pusher that reaches the connections of every stage without a socket in between.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(InProcess::new(Arc::new(OnceLock::from(self.server.link(self.endpoint())))))
    }

    /// The connections that are open, in the order of their ids.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.server.open_connections()
    }

    /// What has happened in the gateway, and why.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::local::{Gateway, What};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::builder("dev").start().await?;
    /// let mut client = gateway.connect("").await?;
    /// client.send_text("hello").await?;
    /// client.next_text().await?; // Forbidden
    /// let why = gateway.timeline().entries().into_iter().find_map(|entry| match entry.what {
    ///     What::Received { route_key: None, reason, .. } => Some(reason),
    ///     _ => None,
    /// });
    /// assert_eq!(why.as_deref(), Some("the selection expression gave nothing: the body is not JSON"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeline(&self) -> &Timeline {
        self.server.timeline()
    }

    /// Calls another function on a route from now on, while connections stay open.
    ///
    /// It takes the place of the function in every route that this has. Invocations that run end as they would have.
    ///
    /// # Errors
    ///
    /// Returns the function when there is no such route.
    pub fn replace(&self, route_key: &str, function: Function) -> Result<(), Function> {
        function.set_endpoint(self.endpoint().as_str());
        self.server.replace(route_key, function)
    }

    /// Asks another function as the authorizer from now on, while connections stay open.
    ///
    /// They keep what the authorizer answered when they were opened.
    ///
    /// # Errors
    ///
    /// Returns the function when the API has no authorizer.
    pub fn replace_authorizer(&self, function: Function) -> Result<(), Function> {
        function.set_endpoint(self.endpoint().as_str());
        self.server.replace_authorizer(function)
    }

    /// Connects a client, with this after the URL: empty, or a query such as `?Auth=token`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the handshake's status, when the API refuses the client.
    pub async fn connect(&self, query: &str) -> Result<Client, ClientError> {
        self.connect_with(query, &[]).await
    }

    /// Connects a client that sends these headers too.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the handshake's status, when the API refuses the client.
    pub async fn connect_with(&self, query: &str, headers: &[(&str, &str)]) -> Result<Client, ClientError> {
        let url = format!("{}{query}", self.url());
        Client::connect(reachable(self.address()), &url, headers, self.timeline().clone()).await
    }

    /// Connects a client to another stage than the first.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the handshake's status, when the API refuses the client; 403 without such a stage.
    pub async fn connect_to(&self, stage: &str, query: &str) -> Result<Client, ClientError> {
        let address = reachable(self.address());
        Client::connect(address, &format!("ws://{address}/{stage}{query}"), &[], self.timeline().clone()).await
    }

    /// Lets something go wrong from now on.
    ///
    /// Faults add up; where several could strike at once, the one that was injected first does.
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

    /// Lets nothing go wrong any more. A `$disconnect` or a text that was late stays late.
    pub fn clear_faults(&self) {
        self.server.clear_faults();
    }

    /// Ends the gateway: nothing of it stays behind.
    ///
    /// It refuses clients whose handshake is not over with 503, closes every connection with 1001, and waits until the
    /// functions that run have ended, or five seconds. Functions that run longer are ended, and processes with them.
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
