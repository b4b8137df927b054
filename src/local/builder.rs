//! How a gateway is set up.

mod start;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::listen::{listen, reachable};
use super::pusher::InProcess;
use super::rules::{Api, Rate};
use super::server::{Keys, Linked};
use super::{Entry, Function, Observer, StartError};
use crate::Pusher;
use crate::authorizer::{Authorization, Denied, Request};
use crate::event::Stage;
use crate::push::Endpoint;
use crate::route::Router;

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
    route_responses: Vec<String>,
    authorizer: Option<(usize, Vec<String>)>,
    listeners: Vec<TcpListener>,
    hosts: Vec<String>,
    observers: Vec<Box<dyn Observer>>,
    concurrency: usize,
    is_interleaved: bool,
    linked: Arc<OnceLock<Linked>>,
    problem: Option<StartError>,
    idle_timeout: Duration,
    lifetime: Duration,
    integration_timeout: Duration,
    route_timeouts: BTreeMap<String, Duration>,
    connections: Option<Rate>,
    requests: Option<Rate>,
    keys: Option<Keys>,
    seed: Option<u64>,
    compresses: bool,
    is_verbose: bool,
}

impl Builder {
    pub(super) fn new(stage: String) -> Self {
        Self {
            stage,
            stage_variables: Vec::new(),
            more_stages: Vec::new(),
            selection: None,
            functions: Vec::new(),
            routes: BTreeMap::new(),
            route_responses: Vec::new(),
            authorizer: None,
            listeners: Vec::new(),
            hosts: Vec::new(),
            observers: Vec::new(),
            concurrency: Api::CONCURRENCY,
            is_interleaved: false,
            linked: Arc::new(OnceLock::new()),
            problem: None,
            idle_timeout: Api::IDLE_TIMEOUT,
            lifetime: Api::LIFETIME,
            integration_timeout: Api::INTEGRATION_TIMEOUT,
            route_timeouts: BTreeMap::new(),
            connections: None,
            requests: None,
            keys: None,
            seed: None,
            compresses: true,
            is_verbose: false,
        }
    }

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
    pub fn router<S: Send + Sync + 'static>(self, router: Router<S>) -> Self {
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
    pub fn route_response(mut self, key: impl Into<String>) -> Self {
        self.route_responses.push(key.into());
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

    /// Waits this long for the function of this route, whatever the other routes have.
    ///
    /// AWS takes 50 milliseconds to 29 seconds.
    #[must_use]
    pub fn route_timeout(mut self, key: impl Into<String>, timeout: Duration) -> Self {
        self.route_timeouts.insert(key.into(), timeout);
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

    /// Lets functions start in any order, as they may on AWS: the [seed](Self::seed) chooses it.
    ///
    /// Default: a function that answers without waiting has answered before its client's next message is read, so that messages
    /// of one connection are answered in their order. On AWS they may overtake each other, and `$disconnect` may run before
    /// the last message has been handled. A seed makes the same choices each time on a runtime of one thread, as that of
    /// `#[tokio::test]` is.
    #[must_use]
    pub fn interleave(mut self) -> Self {
        self.is_interleaved = true;
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

    /// Declines permessage-deflate, which clients may offer. Default: it is accepted.
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.compresses = false;
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
    /// why, answers, pushes, closes and refusals. Bodies are left out. Problems are among them, and are not logged as warnings
    /// as well.
    #[must_use]
    pub fn verbose(mut self) -> Self {
        self.is_verbose = true;
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
        self.listeners = listen(address)?;
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
