//! The configuration of a gateway.

mod start;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::listen::{listen, reachable};
use super::pusher::InProcess;
use super::rules::Rate;
use super::server::{Keys, Linked};
use super::{Entry, Function, Observer, StartError};
use crate::Pusher;
use crate::authorizer::{Authorization, Denied, Request};
use crate::event::Stage;
use crate::push::Endpoint;
use crate::quotas;
use crate::route::Router;

/// A builder for a [`Gateway`](super::Gateway).
///
/// [`start`](Self::start) reports errors in the configuration.
pub struct GatewayBuilder {
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

impl GatewayBuilder {
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
            concurrency: quotas::CONCURRENT_EXECUTIONS,
            is_interleaved: false,
            linked: Arc::new(OnceLock::new()),
            problem: None,
            idle_timeout: quotas::IDLE_TIMEOUT,
            lifetime: quotas::CONNECTION_LIFETIME,
            integration_timeout: quotas::INTEGRATION_TIMEOUT,
            route_timeouts: BTreeMap::new(),
            connections: None,
            requests: None,
            keys: None,
            seed: None,
            compresses: true,
            is_verbose: false,
        }
    }

    /// Adds another stage with the same routes.
    #[must_use]
    pub fn stage(mut self, name: impl Into<String>) -> Self {
        self.more_stages.push((name.into(), Vec::new()));
        self
    }

    /// Adds a variable to the stage that was named last.
    #[must_use]
    pub fn stage_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let variables = self.more_stages.last_mut().map_or(&mut self.stage_variables, |(_, variables)| variables);
        variables.push((name.into(), value.into()));
        self
    }

    /// Sets the route selection expression. Default: `$request.body.action`.
    #[must_use]
    pub fn route_selection(mut self, expression: impl Into<String>) -> Self {
        self.selection = Some(expression.into());
        self
    }

    /// Sets a router as the function of all its routes.
    ///
    /// Several routers can have different routes, like several Lambda functions.
    #[must_use]
    pub fn router<S: Send + Sync + 'static>(self, router: Router<S>) -> Self {
        let keys: Vec<String> = router.keys().map(str::to_owned).collect();
        self.function(keys, Function::router(router))
    }

    /// Sets the function of these routes.
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

    /// Enables the route response of a route.
    ///
    /// The client then receives the body of the function's response.
    #[must_use]
    pub fn route_response(mut self, key: impl Into<String>) -> Self {
        self.route_responses.push(key.into());
        self
    }

    /// Sets the authorizer, which the gateway calls before `$connect`.
    ///
    /// The gateway calls it only if the request carries all identity sources. A source is
    /// `route.request.header.<name>`, `route.request.querystring.<name>`, `stageVariables.<name>`,
    /// or `context.<name>`.
    #[must_use]
    pub fn authorizer<F, Fut>(self, authorize: F, sources: impl IntoIterator<Item = impl Into<String>>) -> Self
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Authorization, Denied>> + Send + 'static,
    {
        self.authorizer_function(Function::authorizer(authorize), sources)
    }

    /// Sets a function as the [authorizer](Self::authorizer).
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

    /// Sets the idle time after which connections are closed. Default: 10 minutes.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets the age at which connections are closed. Default: 2 hours.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets how long the gateway waits for the function of a route. Default: 29 seconds.
    #[must_use]
    pub fn integration_timeout(mut self, timeout: Duration) -> Self {
        self.integration_timeout = timeout;
        self
    }

    /// Sets how long the gateway waits for the function of this route.
    ///
    /// It overrides [`integration_timeout`](Self::integration_timeout). AWS accepts 50 milliseconds
    /// to 29 seconds.
    #[must_use]
    pub fn route_timeout(mut self, key: impl Into<String>, timeout: Duration) -> Self {
        self.route_timeouts.insert(key.into(), timeout);
        self
    }

    /// Limits the number of new connections per second. Default: no limit.
    ///
    /// The gateway refuses further connections with 429. AWS allows an account 500.
    #[must_use]
    pub fn throttle_connections(mut self, per_second: u32) -> Self {
        self.connections = Some(Rate { per_second, burst: per_second });
        self
    }

    /// Limits the rate of messages and calls of `@connections`. Default: no limit.
    ///
    /// Both share the limit, and the gateway refuses those beyond it. AWS allows an account 10,000
    /// per second with a burst of 5,000.
    #[must_use]
    pub fn throttle_requests(mut self, per_second: u32, burst: u32) -> Self {
        self.requests = Some(Rate { per_second, burst });
        self
    }

    /// Requires calls of `@connections` to be signed with these keys, as on AWS.
    ///
    /// Signatures are not verified by default. The gateway's own [`pusher`](Self::pusher) works
    /// without signing.
    #[must_use]
    pub fn check_signatures(mut self, access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        self.keys = Some(Keys::new(access_key_id.into(), secret_access_key.into()));
        self
    }

    /// Starts functions in any order, as on AWS; the [seed](Self::seed) chooses it.
    ///
    /// By default, a function that responds without waiting has responded before the client's next
    /// message is read, so messages of one connection are handled in order. On AWS, messages may
    /// overtake each other, and `$disconnect` may run before the last message has been handled. On
    /// a single-threaded runtime, such as that of `#[tokio::test]`, a seed makes the same choices
    /// each time.
    #[must_use]
    pub fn interleave(mut self) -> Self {
        self.is_interleaved = true;
        self
    }

    /// Makes the ids of connections, messages, and requests reproducible.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Limits the number of concurrent invocations. Default: 1,000, as for an AWS account.
    ///
    /// Further invocations are throttled: a client that sends a message receives
    /// `Internal server error`, and a client that connects is refused.
    #[must_use]
    pub fn concurrency(mut self, invocations: usize) -> Self {
        self.concurrency = invocations;
        self
    }

    /// Declines permessage-deflate. Default: accepted if a client offers it.
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.compresses = false;
        self
    }

    /// Accepts requests for this host, too. Default: `localhost`, its subdomains, and any IP
    /// address.
    ///
    /// The gateway refuses other hosts with 403, so that no page in your browser can reach it under
    /// the name of the page's own site. A page of a host that is not allowed cannot call
    /// `@connections` either.
    #[must_use]
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Adds an observer of everything that happens, which may be a closure.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::local::{Entry, Gateway};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::builder("dev")
    ///     .observer(|entry: &Entry| eprintln!("{entry}"))
    ///     .start()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Writes a line to standard error for everything that happens.
    ///
    /// The lines cover handshakes, messages with the selected route and why, responses, pushes,
    /// closed connections, and refusals, but no message bodies. They include problems, which are
    /// then not logged as warnings.
    #[must_use]
    pub fn verbose(mut self) -> Self {
        self.is_verbose = true;
        self.observer(|entry: &Entry| eprintln!("{entry}"))
    }

    /// Binds the address to listen on. Default: a free port of 127.0.0.1.
    ///
    /// Clients that connect wait until the gateway starts. If a name such as `localhost` has
    /// several addresses, the gateway listens on each that this machine has.
    ///
    /// # Errors
    ///
    /// [`StartError::Listen`] if the address cannot be resolved or bound, for example because the
    /// port is in use.
    pub fn bind(mut self, address: impl ToSocketAddrs) -> Result<Self, StartError> {
        self.listeners = listen(address)?;
        Ok(self)
    }

    /// Returns the endpoint for pushes, once the address is [bound](Self::bind).
    pub fn endpoint(&self) -> Option<Endpoint> {
        let address = self.listeners.first()?.local_addr().ok()?;
        Some(Endpoint::local(reachable(address), &Stage::new(&self.stage).ok()?))
    }

    /// Returns a pusher that reaches the connections of every stage, without a socket.
    ///
    /// Use it in routes that push, which are created before the gateway. It works once the gateway
    /// has started, and does not keep the gateway alive.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(InProcess::new(Arc::clone(&self.linked)))
    }

    fn add(&mut self, function: Function) -> usize {
        self.functions.push(function);
        self.functions.len().saturating_sub(1)
    }
}

impl fmt::Debug for GatewayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayBuilder")
            .field("stage", &self.stage)
            .field("routes", &self.routes.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
