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
mod identity;
mod pusher;
mod rules;
mod selection;
mod server;
mod timeline;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use self::client::{Client, ClientError};
pub use self::function::{Function, FunctionError, InvalidInvokeEndpoint, Process};
use self::identity::IdentitySource;
pub use self::identity::InvalidIdentitySource;
use self::pusher::InProcess;
use self::rules::{Api, Authorizer, Integration, Rate};
pub use self::rules::{Fault, When};
pub use self::selection::{InvalidRouteSelection, RouteSelection};
use self::server::{Config, Hosts, Keys, Linked, Server};
pub use self::timeline::{Body, Entries, Entry, Observer, Origin, Timeline, What};
use crate::Pusher;
use crate::authorizer::{Authorization, Denied, Request};
use crate::event::{ApiId, ConnectionId, InvalidId, Region, RouteKey, Stage};
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
    listeners: Vec<TcpListener>,
    hosts: Vec<String>,
    observers: Vec<Box<dyn Observer>>,
    concurrency: usize,
    linked: Arc<OnceLock<Linked>>,
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

/// The address by which this machine reaches a listener: one on every interface has none of its own.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
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
            listeners: Vec::new(),
            hosts: Vec::new(),
            observers: Vec::new(),
            concurrency: Api::CONCURRENCY,
            linked: Arc::new(OnceLock::new()),
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

    /// Lets at most this many functions run at a time. Default: 1,000, as an account on AWS.
    ///
    /// Invocations beyond it are throttled: a message is answered with `Internal server error`, and a client that connects
    /// is refused.
    #[must_use]
    pub fn concurrency(mut self, invocations: usize) -> Self {
        self.concurrency = invocations;
        self
    }

    /// Takes requests for this host, too. Default: `localhost`, names below it, and any IP address.
    ///
    /// Others are refused with 403, so that no page in your browser reaches the gateway under the name of its own site.
    /// A page of a host that is not allowed cannot call `@connections` either.
    #[must_use]
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Shows everything that happens to an observer, which may be a closure.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::local::{Entry, Gateway};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::builder("dev").observer(|entry: &Entry| eprintln!("{entry}")).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Writes a line to standard error for everything that happens: handshakes, messages with the route that they selected and
    /// why, answers, pushes, closes and refusals. Bodies are left out.
    #[must_use]
    pub fn verbose(self) -> Self {
        self.observer(|entry: &Entry| eprintln!("{entry}"))
    }

    /// Listens on this address. Clients wait until the gateway starts.
    ///
    /// Where a name has several addresses, such as `localhost`, the gateway listens on each that this machine has. Default: a
    /// free port of 127.0.0.1.
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
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut missing = None;
        for address in &addresses {
            // The first address may choose the port, and the others have the same.
            let port = listeners.first().and_then(|first| first.local_addr().ok()).map(|first| first.port());
            let port = port.filter(|_| address.port() == 0).unwrap_or(address.port());
            match TcpListener::bind(SocketAddr::new(address.ip(), port)) {
                Ok(listener) => listeners.push(listener),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => missing = Some(error),
                Err(error) => return Err(listen(error)),
            }
        }
        if listeners.is_empty() {
            return Err(listen(missing.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))));
        }
        for listener in &listeners {
            listener.set_nonblocking(true).map_err(listen)?;
        }
        self.listeners = listeners;
        Ok(self)
    }

    /// Where functions and tools push, once the address is [bound](Self::bind).
    pub fn endpoint(&self) -> Option<Endpoint> {
        let address = self.listeners.first()?.local_addr().ok()?;
        Some(Endpoint::local(reachable(address), &Stage::new(&self.stage).ok()?))
    }

    /// A pusher that reaches the connections of every stage without a socket in between, as soon as the gateway has started.
    ///
    /// For routes that push, which are made before there is a gateway. It does not keep the gateway alive.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(InProcess::new(Arc::clone(&self.linked)))
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
        if self.listeners.is_empty() {
            self = self.bind("127.0.0.1:0")?;
        }
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let stage = Stage::new(&self.stage)?;
        let api = self.api(&stage)?;
        if api.selection.is_static() {
            tracing::warn!(
                expression = %api.selection,
                "the route selection expression has no variable, such as $request.body.action: every message selects the same"
            );
        }
        let config = Config {
            api,
            functions: self.functions,
            keys: self.keys,
            hosts: Hosts::new(self.hosts),
            seed: self.seed.unwrap_or_else(rand::random),
            timeline: Timeline::new(self.observers),
        };
        let server = Server::start(self.listeners, config)
            .map_err(|source| StartError::Listen { address: self.stage.clone(), source })?;
        let gateway = Gateway { server, stage };
        let endpoint = gateway.endpoint();
        gateway.server.set_endpoint(endpoint.as_str());
        // The pushers made so far now have somewhere to push to.
        let _ = self.linked.set(gateway.server.link(endpoint));
        Ok(gateway)
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
            concurrency: self.concurrency,
            function_concurrency: self
                .functions
                .iter()
                .enumerate()
                .filter_map(|(id, function)| Some((id, function.concurrency()?)))
                .collect(),
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
