//! Middleware around routes: tower layers, and async functions.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use tower_layer::Layer;
use tower_service::Service;

use super::handler::{BoxFuture, Handler};
use super::{Error, FailedInvocation, Response, Result, Router};
use crate::event::Event;

/// A route as a tower service, which [layers](Router::layer) wrap.
///
/// Its error wraps the route's [`Error`]. If a layer passes it on, the client still gets the code
/// and the text.
#[derive(Clone)]
pub struct RouteService(Arc<dyn Handler>);

impl Service<Event> for RouteService {
    type Response = Response;
    type Error = FailedInvocation;
    type Future = BoxFuture<Result<Response, FailedInvocation>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), FailedInvocation>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: Event) -> Self::Future {
        let answer = self.0.call(event);
        Box::pin(async move { answer.await.map_err(FailedInvocation::new) })
    }
}

impl fmt::Debug for RouteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteService").finish_non_exhaustive()
    }
}

/// A tower service as a route.
struct Layered<T>(T);

impl<T> Handler for Layered<T>
where
    T: Service<Event, Response = Response> + Clone + Send + Sync + 'static,
    T::Error: Into<Error>,
    T::Future: Send + 'static,
{
    fn call(&self, event: Event) -> BoxFuture<Result<Response>> {
        let mut service = self.0.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            service.call(event).await.map_err(Into::into)
        })
    }
}

/// The rest of the middleware chain, and the route at its end.
pub struct Next(Arc<dyn Handler>);

impl Next {
    /// Calls the next middleware, or the route.
    ///
    /// # Errors
    ///
    /// The [`Error`] of the route, or of the middleware around it.
    pub async fn run(self, event: Event) -> Result<Response> {
        self.0.call(event).await
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

struct Wrapped<F> {
    middleware: F,
    route: Arc<dyn Handler>,
}

impl<F, Fut> Handler for Wrapped<F>
where
    F: Fn(Event, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Response>> + Send + 'static,
{
    fn call(&self, event: Event) -> BoxFuture<Result<Response>> {
        Box::pin((self.middleware)(event, Next(Arc::clone(&self.route))))
    }
}

impl<S: Send + Sync + 'static> Router<S> {
    /// Wraps a tower layer around each route added so far.
    ///
    /// A later layer wraps an earlier one. Each route has its own service; the layer holds shared
    /// state, such as a limit on all routes. A layer may return a boxed error, as tower's own
    /// layers do. See [`Error`] for its handling.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use lambda_websocket::{Message, Router};
    /// use tower::timeout::TimeoutLayer;
    ///
    /// let router = Router::new()
    ///     .on("say", |_: Message| async { Ok(()) })
    ///     .layer(TimeoutLayer::new(Duration::from_secs(5)));
    /// ```
    #[must_use]
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<RouteService>,
        L::Service: Service<Event, Response = Response> + Clone + Send + Sync + 'static,
        <L::Service as Service<Event>>::Error: Into<Error>,
        <L::Service as Service<Event>>::Future: Send + 'static,
    {
        self.wrap(|route| Arc::new(Layered(layer.layer(RouteService(route)))))
    }

    /// Wraps an async function around each route added so far.
    ///
    /// It receives the event, and may call the route with [`Next::run`] or return early.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::route::{Error, Next, StatusCode};
    /// use lambda_websocket::{Event, Message, Router};
    ///
    /// let router = Router::new().on("say", |_: Message| async { Ok(()) }).middleware(
    ///     |event: Event, next: Next| async move {
    ///         if event.request_context().principal_id().is_none() {
    ///             return Err(Error::client(StatusCode::UNAUTHORIZED, "who are you?"));
    ///         }
    ///         next.run(event).await
    ///     },
    /// );
    /// ```
    #[must_use]
    pub fn middleware<F, Fut>(self, middleware: F) -> Self
    where
        F: Fn(Event, Next) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response>> + Send + 'static,
    {
        self.wrap(|route| Arc::new(Wrapped { middleware: middleware.clone(), route }))
    }

    fn wrap(mut self, around: impl Fn(Arc<dyn Handler>) -> Arc<dyn Handler>) -> Self {
        for handler in Arc::make_mut(&mut self.inner).routes.values_mut() {
            *handler = around(Arc::clone(handler));
        }
        self
    }
}
