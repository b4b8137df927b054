//! Routes and the router, which passes each event to its route.
//!
//! A [`Route`] is a type with a route key and a handler. A [`Router`] holds the routes of one
//! Lambda function and is a [`tower`](https://docs.rs/tower) service that `lambda_runtime` runs. A
//! function may hold all routes of an API or only some of them.
//!
//! | event | reply to the client of a message | status | log |
//! |---|---|---|---|
//! | the route returns a reply | the reply | that of the reply | – |
//! | the route returns an [`Error`] | `internal`, or the code and text of an [`Error::client`] | that of the code | the error and its sources; a warning for a client's mistake |
//! | the body does not fit the route, or a value is not valid, such as an [`InvalidId`](crate::event::InvalidId) | `invalid_message` and the reason | 400 | a warning that quotes nothing |
//! | a message selects no route, and there is no `$default` | `unknown_action` | 404 | the key |
//! | the route panics | `internal` | 500 | the panic |
//! | `$connect` or `$disconnect` without a route | – | 200 | – |
#![doc = include_str!("../docs/reply-protocol.md")]

mod code;
pub(crate) mod dispatch;
mod error;
mod extract;
pub(crate) mod failure;
mod handler;
mod layer;
pub(crate) mod protocol;
mod replies;
mod response;
#[cfg(feature = "runtime")]
pub(crate) mod service;
mod traces;

#[cfg(feature = "aws_lambda_events")]
mod aws_lambda_events;

use std::fmt;
use std::sync::Arc;

pub use http::StatusCode;
use tracing::Instrument as _;

pub use self::code::ErrorCode;
use self::dispatch::Inner;
pub use self::error::{Error, FailedInvocation};
#[cfg(feature = "push")]
pub use self::extract::Sender;
#[cfg(feature = "garde")]
pub use self::extract::Valid;
pub use self::extract::{Arguments, AuthorizerContext, EventKinds, FromEvent, Function, State};
pub use self::failure::{Failure, FailureKind};
pub use self::handler::RouteEvent;
use self::handler::{EventKind, FunctionHandler, Handler, RouteHandler, assert_key_fits};
pub use self::layer::{Next, RouteService};
pub use self::protocol::{Member, ReplyFormat};
pub use self::response::{Json, Reply, Response};
use crate::event::{Event, RouteKey};

/// The result of a route: its reply, or an [`Error`].
///
/// The `?` operator converts any error into an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A route of a WebSocket API: a route key and the handler of its events.
///
/// `Event` must fit the key: [`Connect`](crate::Connect) for `$connect`,
/// [`Disconnect`](crate::Disconnect) for `$disconnect`, and [`Message<T>`](crate::Message) for
/// `$default` and custom keys. A mismatch is a compile error.
///
/// # Examples
///
/// ```
/// use lambda_websocket::{Json, Message, Result, Route, Router};
///
/// #[derive(serde::Deserialize)]
/// struct Add {
///     left: i64,
///     right: i64,
/// }
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
    /// The route key: `$connect`, `$disconnect`, `$default`, or a custom key.
    const KEY: &'static str;

    /// The event that the route handles: [`Connect`](crate::Connect),
    /// [`Disconnect`](crate::Disconnect) or [`Message<T>`](crate::Message).
    type Event: RouteEvent;

    /// The reply: `()`, [`Json<T>`](Json), [`Response`], or your own type.
    type Reply: Reply;

    /// Handles one event and returns the reply.
    fn handle(&self, event: Self::Event) -> impl Future<Output = Result<Self::Reply>> + Send;
}

/// The routes of one Lambda function, and the state shared by their handlers.
///
/// Clones are cheap. They share the routes and the state.
pub struct Router<S = ()> {
    inner: Arc<Inner>,
    state: Arc<S>,
}

impl Router {
    /// Creates a router without routes.
    ///
    /// It accepts every connection and rejects every message.
    pub fn new() -> Self {
        Self::with_state(())
    }
}

impl<S: Send + Sync + 'static> Router<S> {
    /// Creates a router with state that its handlers can take as an argument.
    ///
    /// See [`State`].
    pub fn with_state(state: S) -> Self {
        Self { inner: Arc::default(), state: Arc::new(state) }
    }

    /// Adds a route.
    ///
    /// An invalid key, or an event type that does not fit the key, is a compile error.
    ///
    /// # Panics
    ///
    /// If the router already has a route with this key.
    #[must_use]
    #[track_caller]
    pub fn route<R: Route>(self, route: R) -> Self {
        const { assert_key_fits(R::KEY, R::Event::KIND) };
        self.insert(R::KEY, Arc::new(RouteHandler::new(route)))
    }

    /// Adds an async function or closure as a route.
    ///
    /// It takes up to eight arguments, which are extracted from the event and the state. See
    /// [`FromEvent`].
    ///
    /// # Panics
    ///
    /// If the key is not valid, if it already has a route, or if its events do not provide one of
    /// the arguments.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::event::ConnectionId;
    /// use lambda_websocket::route::State;
    /// use lambda_websocket::{Connect, Json, Response, Result, Router};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Join {
    ///     room: String,
    /// }
    ///
    /// struct App {
    ///     name: &'static str,
    /// }
    ///
    /// async fn join(
    ///     Json(join): Json<Join>,
    ///     me: ConnectionId,
    ///     app: State<App>,
    /// ) -> Result<()> {
    ///     println!("{}: {me} joins {}", app.name, join.room);
    ///     Ok(())
    /// }
    ///
    /// let router = Router::with_state(App { name: "chat" })
    ///     .on("$connect", |event: Connect| async move {
    ///         Ok(Response::ok().subprotocol("chat.v1"))
    ///     })
    ///     .on("join", join);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn on<F, A, R>(self, key: &str, handler: F) -> Self
    where
        F: Function<A>,
        A: Arguments<S>,
        F::Future: Future<Output = Result<R>> + Send + 'static,
        R: Reply,
    {
        if RouteKey::new(key).is_err() {
            panic!("route {key:?}: {}", handler::ILLEGAL_KEY);
        }
        if let Some(argument) = A::misfit(EventKind::of_key(key)) {
            panic!("route {key:?}: its events have no `{argument}`, which is an argument of its handler");
        }
        let handler = FunctionHandler::new(handler, Arc::clone(&self.state));
        self.insert(key, Arc::new(handler))
    }

    /// Adds the routes of another router, with their state and their layers.
    ///
    /// Use it to apply a layer to some of the routes.
    ///
    /// # Panics
    ///
    /// If both routers have a route with the same key, or if the other router has settings, such as
    /// hooks. The settings of this router apply to all routes.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use lambda_websocket::{Message, Router};
    /// use tower::timeout::TimeoutLayer;
    ///
    /// let slow = Router::new().on("report", |_: Message| async { Ok(()) });
    /// let router = Router::new()
    ///     .on("say", |_: Message| async { Ok(()) })
    ///     .merge(slow.layer(TimeoutLayer::new(Duration::from_secs(10))));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn merge<T>(self, other: Router<T>) -> Self {
        self.nest("", other)
    }

    /// Adds the routes of another router, with a prefix on their keys.
    ///
    /// For example, `nest("room.", …)` turns `join` into `room.join`.
    ///
    /// # Panics
    ///
    /// If the other router has settings or one of the keys `$connect`, `$disconnect` and
    /// `$default`, or if a prefixed key is too long or already has a route.
    #[must_use]
    #[track_caller]
    pub fn nest<T>(mut self, prefix: &str, other: Router<T>) -> Self {
        if other.inner.has_settings() {
            panic!("a nested or merged router must not have settings: set them on the outer router");
        }
        for (key, handler) in &other.inner.routes {
            if !prefix.is_empty() && key.as_str().starts_with('$') {
                panic!("route {:?}: a predefined route cannot have a prefix", key.as_str());
            }
            self = self.insert(&format!("{prefix}{}", key.as_str()), Arc::clone(handler));
        }
        self
    }

    /// Fails the Lambda invocation on an internal error. Default: respond with status 500.
    ///
    /// Use it to alarm on Lambda's error metric. An error [for the client](Error::client) does not
    /// fail the invocation. A panic does, and so does a reply that could not be pushed.
    #[must_use]
    pub fn fail_invocation_on_error(mut self) -> Self {
        Arc::make_mut(&mut self.inner).fail_invocation_on_error = true;
        self
    }

    /// Returns the keys that have a route, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.inner.routes.keys().map(RouteKey::as_str)
    }

    /// Handles one event and returns the function's response.
    ///
    /// # Errors
    ///
    /// [`FailedInvocation`] if a route fails and
    /// [`fail_invocation_on_error`](Self::fail_invocation_on_error) is set.
    pub fn handle(&self, event: Event) -> impl Future<Output = Result<Response, FailedInvocation>> + Send + 'static {
        let event = self.inner.traces.trace(event);
        let span = self.inner.traces.span(event.request_context());
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

impl<S> Clone for Router<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), state: Arc::clone(&self.state) }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("routes", &self.inner.routes.keys().map(RouteKey::as_str).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
