//! Which code answers which event.
//!
//! A [`Route`] is a type with a key and a handler. A [`Router`] holds the routes of one Lambda function and is itself a
//! [`tower`](https://docs.rs/tower) service that `lambda_runtime` runs. One function may hold every route of an API or
//! only one of them.
//!
//! | the event | the function answers | and logs |
//! |---|---|---|
//! | fits its route, which answers | what the route answers | – |
//! | fits its route, which returns an [`Error`] | 500, or what the error [answers the client](Error::client) | the error and its sources |
//! | has a body that does not fit its route | 400 and the reason: a [`Rejection`] | a warning where, without the body |
//! | fits its route, which returns a client's mistake, such as an [`InvalidId`](crate::event::InvalidId) | 400 and the reason: a [`Rejection`] | a warning that quotes nothing |
//! | selects no route and there is no `$default` | 404: a [`Rejection`] | the key |
//! | is `$connect` or `$disconnect` without a route | 200 | – |

mod dispatch;
mod error;
mod handler;
mod rejection;
mod response;
#[cfg(feature = "runtime")]
pub(crate) mod service;

#[cfg(feature = "aws_lambda_events")]
mod aws_lambda_events;

use std::fmt;
use std::sync::Arc;

pub use http::StatusCode;
use tracing::Instrument as _;

use self::dispatch::Inner;
pub use self::error::{Error, FailedInvocation};
pub use self::handler::RouteEvent;
use self::handler::{ClosureHandler, Handler, RouteHandler, assert_key_fits, key_fits};
pub use self::rejection::{InvalidValue, Rejection, RejectionKind};
pub use self::response::{Json, Reply, Response};
use crate::event::{Event, RouteKey};

/// What a route returns: its reply, or an [`Error`] that `?` makes of any error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One route of a WebSocket API: a key, and what happens when an event selects it.
///
/// `Event` decides which keys are possible: [`Connect`](crate::Connect) for `$connect`,
/// [`Disconnect`](crate::Disconnect) for `$disconnect`, [`Message<T>`](crate::Message) for `$default` and for every
/// custom key. What does not fit does not compile.
///
/// # Examples
///
/// ```
/// use lambda_websocket::{Json, Message, Result, Route, Router};
///
/// #[derive(serde::Deserialize)]
/// struct Add { left: i64, right: i64 }
///
/// struct Adder;
///
/// impl Route for Adder {
///     const KEY: &'static str = "add";
///     type Event = Message<Add>;
///     type Reply = Json<i64>;
///
///     async fn handle(&self, event: Message<Add>) -> Result<Json<i64>> {
///         Ok(Json(event.body.left.saturating_add(event.body.right)))
///     }
/// }
///
/// let router = Router::new().route(Adder);
/// assert_eq!(router.keys().collect::<Vec<_>>(), ["add"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a route",
    label = "this is not a `Route`",
    note = "implement `Route` for it, or pass a closure to `Router::on(key, |event: Message<Body>| async move {{ … }})`"
)]
pub trait Route: Send + Sync + 'static {
    /// The route key: `$connect`, `$disconnect`, `$default`, or the text that selects the route.
    const KEY: &'static str;

    /// What the route takes: [`Connect`](crate::Connect), [`Disconnect`](crate::Disconnect) or
    /// [`Message<T>`](crate::Message).
    type Event: RouteEvent;

    /// What the route answers: `()`, [`Json<T>`](Json), [`Response`], or a type of yours.
    type Reply: Reply;

    /// Answers one event.
    fn handle(&self, event: Self::Event) -> impl Future<Output = Result<Self::Reply>> + Send;
}

/// The routes of one Lambda function.
///
/// Clones are cheap and share the routes.
#[derive(Clone, Default)]
pub struct Router {
    inner: Arc<Inner>,
}

impl Router {
    /// A router without routes: it accepts every connection and rejects every message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route.
    ///
    /// A key that is not legal, or an event that does not fit the key, is a compile error.
    ///
    /// # Panics
    ///
    /// When the router already has a route with this key.
    #[must_use]
    #[track_caller]
    pub fn route<R: Route>(self, route: R) -> Self {
        const { assert_key_fits(R::KEY, R::Event::KIND) };
        self.insert(R::KEY, Arc::new(RouteHandler::new(route)))
    }

    /// Adds a closure as a route.
    ///
    /// # Panics
    ///
    /// When the key is not legal, does not fit the closure's argument, or already has a route.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::{Connect, Message, Response, Router};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Join { room: String }
    ///
    /// let router = Router::new()
    ///     .on("$connect", |event: Connect| async move { Ok(Response::ok().subprotocol("chat.v1")) })
    ///     .on("join", |event: Message<Join>| async move {
    ///         println!("{} joins {}", event.connection_id(), event.body.room);
    ///         Ok(())
    ///     });
    /// ```
    #[must_use]
    #[track_caller]
    pub fn on<E, R, F, Fut>(self, key: &str, handler: F) -> Self
    where
        F: Fn(E) -> Fut + Send + Sync + 'static,
        E: RouteEvent,
        Fut: Future<Output = Result<R>> + Send + 'static,
        R: Reply,
    {
        if let Err(problem) = key_fits(key, E::KIND) {
            panic!("route {key:?}: {problem}");
        }
        self.insert(key, Arc::new(ClosureHandler::new(handler)))
    }

    /// Calls a hook with each [`Rejection`], to count it or to tell the client.
    ///
    /// The function answers when the hook is done, since Lambda stops it then. A later hook replaces an earlier one.
    #[must_use]
    pub fn on_rejection<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Rejection) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Arc::make_mut(&mut self.inner).on_rejection = Some(Arc::new(move |rejection| Box::pin(hook(rejection))));
        self
    }

    /// Makes an error of a route fail the Lambda invocation, instead of answering 500.
    ///
    /// For those who alarm on Lambda's error metric. An error that [answers the client](Error::client) still answers.
    #[must_use]
    pub fn fail_invocation_on_error(mut self) -> Self {
        Arc::make_mut(&mut self.inner).fail_invocation_on_error = true;
        self
    }

    /// The keys that have a route, in order of their text.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.inner.routes.keys().map(RouteKey::as_str)
    }

    /// Answers one event.
    ///
    /// # Errors
    ///
    /// [`FailedInvocation`], if errors of routes [fail the invocation](Self::fail_invocation_on_error).
    pub fn handle(&self, event: Event) -> impl Future<Output = Result<Response, FailedInvocation>> + Send + 'static {
        let context = event.request_context();
        let span = tracing::info_span!(
            "websocket",
            request_id = %context.request_id,
            connection_id = %context.connection_id,
            route_key = %context.route_key,
            trace_id = context.invocation().and_then(|invocation| invocation.trace).map(|trace| trace.trace_id()),
        );
        Arc::clone(&self.inner).handle(event).instrument(span)
    }

    #[track_caller]
    fn insert(mut self, key: &str, handler: Arc<dyn Handler>) -> Self {
        let Ok(key) = RouteKey::new(key) else { panic!("route {key:?}: {}", handler::ILLEGAL_KEY) };
        let routes = &mut Arc::make_mut(&mut self.inner).routes;
        if routes.contains_key(&key) {
            panic!("route {:?}: the router already has a route with this key", key.as_str());
        }
        routes.insert(key, handler);
        self
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("routes", &self.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
