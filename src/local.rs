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
mod client;
mod event;
mod function;
mod gateway;
mod identity;
mod pusher;
mod selection;
mod server;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use self::client::{Client, ClientError};
pub use self::function::{Function, FunctionError, InvalidInvokeEndpoint, Process};
use self::gateway::{Api, Authorizer, Integration, Rate};
pub use self::gateway::{Fault, When};
use self::identity::IdentitySource;
pub use self::identity::InvalidIdentitySource;
use self::pusher::InProcess;
pub use self::selection::{InvalidRouteSelection, RouteSelection};
use self::server::{Keys, Server};
use crate::Pusher;
use crate::authorizer::{Authorization, Denied, Request};
use crate::event::{ApiId, InvalidId, Region, RouteKey, Stage};
use crate::push::Endpoint;
use crate::route::Router;

/// A WebSocket API that runs in this process.
///
/// It ends when it is dropped; [`shutdown`](Self::shutdown) ends it gently.
pub struct Gateway {
    server: Server,
    stage: Stage,
}

/// How an API is set up, before it [starts](Self::start).
///
/// What cannot be right is reported by `start`.
pub struct Builder {
    stage: String,
    stage_variables: Vec<(String, String)>,
    more_stages: Vec<(String, Vec<(String, String)>)>,
    selection: Option<String>,
    functions: Vec<Function>,
    routes: BTreeMap<String, usize>,
    two_way: Vec<String>,
    authorizer: Option<(usize, Vec<String>)>,
    listener: Option<TcpListener>,
    server: Arc<OnceLock<Server>>,
    problem: Option<StartError>,
    idle_timeout: Duration,
    lifetime: Duration,
    integration_timeout: Duration,
    connections: Option<Rate>,
    requests: Option<Rate>,
    keys: Option<Keys>,
    seed: Option<u64>,
}

/// The gateway could not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {}", reason(.source))]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A stage, a route key or another name is not legal.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// API Gateway keeps the path of this stage, `ping` or `sping`, for itself.
    #[error("the stage cannot be named {stage:?}: API Gateway reserves the paths /ping and /sping")]
    ReservedStage {
        /// The stage.
        stage: String,
    },
    /// A route has two functions.
    #[error("the route {key:?} has two functions")]
    TwoFunctions {
        /// The route.
        key: String,
    },
    /// A route that shall answer its clients does not exist.
    #[error("the two-way route {key:?} has no function")]
    NoFunction {
        /// The route.
        key: String,
    },
    /// An identity source of the authorizer is not one.
    #[error(transparent)]
    IdentitySource(#[from] InvalidIdentitySource),
    /// The route selection expression is not one.
    #[error(transparent)]
    RouteSelection(#[from] InvalidRouteSelection),
}

/// The same text as `Display`: it is what a `main` prints that returns the error.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program already does; choose another port, or 0 for any free one".to_owned()
        }
        _ => error.to_string(),
    }
}

impl Gateway {
    /// An API with this stage and no routes: it accepts every connection.
    pub fn builder(stage: impl Into<String>) -> Builder {
        Builder {
            stage: stage.into(),
            stage_variables: Vec::new(),
            more_stages: Vec::new(),
            selection: None,
            functions: Vec::new(),
            routes: BTreeMap::new(),
            two_way: Vec::new(),
            authorizer: None,
            listener: None,
            server: Arc::new(OnceLock::new()),
            problem: None,
            idle_timeout: Api::IDLE_TIMEOUT,
            lifetime: Api::LIFETIME,
            integration_timeout: Api::INTEGRATION_TIMEOUT,
            connections: None,
            requests: None,
            keys: None,
            seed: None,
        }
    }

    /// The address that the gateway listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where clients connect: `ws://<address>/<stage>`.
    pub fn url(&self) -> String {
        format!("ws://{}/{}", self.address(), self.stage)
    }

    /// Where functions and tools push: `http://<address>/<stage>`, below which `@connections` is served.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::local(self.address(), &self.stage)
    }

    /// A pusher that reaches the connections without a socket in between.
    pub fn pusher(&self) -> Pusher {
        let server = OnceLock::from(self.server.clone());
        Pusher::new(InProcess::new(Arc::new(server), self.stage.to_string()))
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
        Client::connect(self.address(), &format!("{}{query}", self.url()), headers).await
    }

    /// Connects a client to another stage than the first.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the handshake's status, when the API refuses the client; 403 without such a stage.
    pub async fn connect_to(&self, stage: &str, query: &str) -> Result<Client, ClientError> {
        Client::connect(self.address(), &format!("ws://{}/{stage}{query}", self.address()), &[]).await
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

    /// Closes every connection with 1001 and waits until the functions that run have ended, or five seconds.
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

impl Builder {
    /// Adds another stage, which has the same routes.
    #[must_use]
    pub fn stage(mut self, name: impl Into<String>) -> Self {
        self.more_stages.push((name.into(), Vec::new()));
        self
    }

    /// Adds a variable of the stage that was named last.
    #[must_use]
    pub fn stage_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let variables = self.more_stages.last_mut().map_or(&mut self.stage_variables, |(_, variables)| variables);
        variables.push((name.into(), value.into()));
        self
    }

    /// Sets the route selection expression; it is `$request.body.action` unless set.
    #[must_use]
    pub fn route_selection(mut self, expression: impl Into<String>) -> Self {
        self.selection = Some(expression.into());
        self
    }

    /// Lets a router answer every route that it has.
    ///
    /// Several routers can have different routes, as several Lambda functions do.
    #[must_use]
    pub fn router(self, router: Router) -> Self {
        let keys: Vec<String> = router.keys().map(str::to_owned).collect();
        self.function(keys, Function::router(router))
    }

    /// Lets a function answer these routes.
    #[must_use]
    pub fn function(mut self, keys: impl IntoIterator<Item = impl Into<String>>, function: Function) -> Self {
        let id = self.add(function);
        for key in keys {
            let key = key.into();
            if self.routes.insert(key.clone(), id).is_some() {
                self.problem.get_or_insert(StartError::TwoFunctions { key });
            }
        }
        self
    }

    /// Gives a route a route response: the client gets the body that its function answers.
    #[must_use]
    pub fn two_way(mut self, key: impl Into<String>) -> Self {
        self.two_way.push(key.into());
        self
    }

    /// Asks this authorizer before `$connect`, where the request carries all of the identity sources.
    ///
    /// A source is `route.request.header.<name>`, `route.request.querystring.<name>`, `stageVariables.<name>` or
    /// `context.<name>`.
    #[must_use]
    pub fn authorizer<F, Fut>(self, authorize: F, sources: impl IntoIterator<Item = impl Into<String>>) -> Self
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Authorization, Denied>> + Send + 'static,
    {
        self.authorizer_function(Function::authorizer(authorize), sources)
    }

    /// Asks this function as the authorizer.
    #[must_use]
    pub fn authorizer_function(
        mut self,
        function: Function,
        sources: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let id = self.add(function);
        self.authorizer = Some((id, sources.into_iter().map(Into::into).collect()));
        self
    }

    /// Closes connections that are idle for this time, instead of 10 minutes.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Closes connections at this age, instead of 2 hours.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Waits this long for the function of a route, instead of 29 seconds.
    #[must_use]
    pub fn integration_timeout(mut self, timeout: Duration) -> Self {
        self.integration_timeout = timeout;
        self
    }

    /// Refuses new connections with 429 when there are more than this in a second.
    ///
    /// AWS allows an account 500. The local gateway does not count unless it is told to.
    #[must_use]
    pub fn throttle_connections(mut self, per_second: u32) -> Self {
        self.connections = Some(Rate { per_second, burst: per_second });
        self
    }

    /// Refuses messages and calls of `@connections`, which share this, when there are more in a second, after a burst.
    ///
    /// AWS allows an account 10,000 with a burst of 5,000. The local gateway does not count unless it is told to.
    #[must_use]
    pub fn throttle_requests(mut self, per_second: u32, burst: u32) -> Self {
        self.requests = Some(Rate { per_second, burst });
        self
    }

    /// Takes calls of `@connections` only when they are signed with these keys, as AWS would.
    ///
    /// The local gateway takes any signature, and none, unless it is told to. A [`pusher`](Self::pusher) of its own does not
    /// sign.
    #[must_use]
    pub fn check_signatures(mut self, access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        self.keys = Some(Keys::new(access_key_id.into(), secret_access_key.into()));
        self
    }

    /// Makes the ids of connections, messages and requests the same every time.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Listens on this address. Clients wait until the gateway starts.
    ///
    /// Without it the gateway listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// [`StartError::Listen`], for instance when the port is busy.
    pub fn bind(mut self, address: impl ToSocketAddrs) -> Result<Self, StartError> {
        let unresolved = |source| StartError::Listen { address: "the address".to_owned(), source };
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(unresolved)?.collect();
        let listen = |source| {
            let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            StartError::Listen { address: addresses.join(" and "), source }
        };
        let listener = TcpListener::bind(addresses.as_slice()).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        self.listener = Some(listener);
        Ok(self)
    }

    /// Where functions and tools push, once the address is [bound](Self::bind).
    pub fn endpoint(&self) -> Option<Endpoint> {
        let address = self.listener.as_ref()?.local_addr().ok()?;
        Some(Endpoint::local(address, &Stage::new(&self.stage).ok()?))
    }

    /// A pusher that reaches the connections without a socket in between, as soon as the gateway has started.
    ///
    /// For routes that push, which are made before there is a gateway.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(InProcess::new(Arc::clone(&self.server), self.stage.clone()))
    }

    /// Starts the gateway.
    ///
    /// # Errors
    ///
    /// [`StartError`] says what is not right about the set-up.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn start(mut self) -> Result<Gateway, StartError> {
        if self.listener.is_none() {
            self = self.bind("127.0.0.1:0")?;
        }
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let stage = Stage::new(&self.stage)?;
        let api = self.api(&stage)?;
        let no_listener = || StartError::Listen {
            address: "127.0.0.1:0".to_owned(),
            source: io::Error::from(io::ErrorKind::NotConnected),
        };
        let listener = self.listener.take().ok_or_else(no_listener)?;
        let seed = self.seed.unwrap_or_else(rand::random);
        let server = Server::start(listener, api, self.functions, self.keys, seed)
            .map_err(|source| StartError::Listen { address: self.stage.clone(), source })?;
        // The pushers made so far now have somewhere to push to.
        let _ = self.server.set(server.clone());
        Ok(Gateway { server, stage })
    }

    fn api(&self, stage: &Stage) -> Result<Api, StartError> {
        if let Some(key) = self.two_way.iter().find(|key| !self.routes.contains_key(*key)) {
            return Err(StartError::NoFunction { key: key.clone() });
        }
        let mut routes = BTreeMap::new();
        for (key, function) in &self.routes {
            let integration = Integration {
                function: *function,
                two_way: self.two_way.contains(key),
                timeout: self.integration_timeout,
            };
            routes.insert(RouteKey::new(key)?, integration);
        }
        let authorizer = match &self.authorizer {
            None => None,
            Some((function, sources)) => {
                let identity_sources: Result<Vec<IdentitySource>, _> =
                    sources.iter().map(|source| source.parse()).collect();
                Some(Authorizer { function: *function, identity_sources: identity_sources? })
            }
        };
        let mut stages = BTreeMap::from([(stage.clone(), self.stage_variables.clone())]);
        for (name, variables) in &self.more_stages {
            stages.insert(Stage::new(name)?, variables.clone());
        }
        // LIM-6
        if let Some(stage) = stages.keys().find(|stage| matches!(stage.as_str(), "ping" | "sping")) {
            return Err(StartError::ReservedStage { stage: stage.to_string() });
        }
        Ok(Api {
            api_id: ApiId::new("local")?,
            region: Region::new("us-east-1")?,
            stages,
            selection: self.selection.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
            routes,
            authorizer,
            idle_timeout: self.idle_timeout,
            lifetime: self.lifetime,
            connections: self.connections,
            requests: self.requests,
        })
    }

    fn add(&mut self, function: Function) -> usize {
        self.functions.push(function);
        self.functions.len().saturating_sub(1)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("stage", &self.stage)
            .field("routes", &self.routes.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
