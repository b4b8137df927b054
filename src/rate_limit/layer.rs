//! A tower layer that limits routes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde_json::json;
use tower_layer::Layer;
use tower_service::Service;

use super::RateLimiter;
use crate::event::{Event, RequestContext};
use crate::route::{Error, ErrorCode, Response};

/// A layer that rejects messages over the limit with the error `too_many_requests`.
///
/// The error's `details` contain `retryAfterMs`. `$connect` and `$disconnect` are not limited. A
/// rejected message has still invoked the function: the layer saves the cost of the route, not of
/// the invocation. API Gateway's own throttling is per route and stage.
///
/// # Examples
///
/// ```
/// use lambda_websocket::rate_limit::{
///     InMemory, Quota, RateLimitLayer, RateLimiter,
/// };
/// use lambda_websocket::{Message, Router};
///
/// let limiter =
///     RateLimiter::new(Quota::per_second(5).with_burst(20), InMemory::new());
/// let router = Router::new()
///     .on("say", |_: Message| async { Ok(()) })
///     .layer(RateLimitLayer::per_connection(limiter));
/// ```
#[derive(Debug, Clone)]
pub struct RateLimitLayer {
    limiter: RateLimiter,
    name: Arc<str>,
    key: fn(&RequestContext) -> String,
}

impl RateLimitLayer {
    /// Creates a layer that limits each connection.
    pub fn per_connection(limiter: RateLimiter) -> Self {
        Self { limiter, name: Arc::default(), key: of_connection }
    }

    /// Creates a layer that limits each principal across all its connections.
    ///
    /// A connection without a principal has its own limit.
    pub fn per_principal(limiter: RateLimiter) -> Self {
        let key = |context: &RequestContext| match context.principal_id() {
            Some(principal) => format!("{}/{} principal {principal}", context.api_id, context.stage),
            None => of_connection(context),
        };
        Self { limiter, name: Arc::default(), key }
    }

    /// Sets the name of the limit.
    ///
    /// Layers with different quotas that share a store need different names.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }
}

impl<T> Layer<T> for RateLimitLayer {
    type Service = RateLimited<T>;

    fn layer(&self, inner: T) -> RateLimited<T> {
        RateLimited { layer: self.clone(), inner }
    }
}

fn of_connection(context: &RequestContext) -> String {
    format!("{}/{} connection {}", context.api_id, context.stage, context.connection_id)
}

/// A service wrapped by a [`RateLimitLayer`].
#[derive(Debug, Clone)]
pub struct RateLimited<T> {
    layer: RateLimitLayer,
    inner: T,
}

impl<T> Service<Event> for RateLimited<T>
where
    T: Service<Event, Response = Response> + Clone + Send + 'static,
    T::Error: Into<Error>,
    T::Future: Send + 'static,
{
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, event: Event) -> Self::Future {
        // Call the service that is ready, and keep its clone for the next event.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let limit = matches!(event, Event::Message(_)).then(|| {
            let key = format!("{} {}", self.layer.name, (self.layer.key)(event.request_context()));
            (self.layer.limiter.clone(), key)
        });
        Box::pin(async move {
            if let Some((limiter, key)) = limit
                && let Err(refused) = limiter.take(&key).await
            {
                let wait = u64::try_from(refused.retry_after.as_millis()).unwrap_or(u64::MAX);
                let error = Error::client(ErrorCode::TOO_MANY_REQUESTS, refused);
                return Err(error.with_details(&json!({"retryAfterMs": wait})));
            }
            inner.call(event).await.map_err(Into::into)
        })
    }
}
