//! The router's state and the authorizer's context as arguments of a handler.

use std::ops::Deref;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::FromEvent;
use crate::event::Event;
use crate::route::Result;

/// The state of the [router](super::super::Router::with_state), shared by its handlers.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use lambda_websocket::route::State;
/// use lambda_websocket::{Json, Result, Router};
///
/// #[derive(Default)]
/// struct App {
///     counted: AtomicU64,
/// }
///
/// async fn count(app: State<App>) -> Result<Json<u64>> {
///     Ok(Json(app.counted.fetch_add(1, Ordering::Relaxed)))
/// }
///
/// let router = Router::with_state(App::default()).on("count", count);
/// ```
#[derive(Debug)]
pub struct State<S>(pub Arc<S>);

impl<S> Deref for State<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

impl<S> Clone for State<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Send + Sync + 'static> FromEvent<S> for State<S> {
    async fn from_event(_: &Event, state: &Arc<S>) -> Result<Self> {
        Ok(Self(Arc::clone(state)))
    }
}

/// The authorizer's context, deserialized into your own type.
///
/// See [`RequestContext::context`](crate::event::RequestContext::context).
///
/// # Examples
///
/// ```
/// use lambda_websocket::route::AuthorizerContext;
/// use lambda_websocket::{Json, Result, Router};
///
/// #[derive(serde::Deserialize)]
/// struct Session {
///     org: u64,
/// }
///
/// async fn org(session: AuthorizerContext<Session>) -> Result<Json<u64>> {
///     Ok(Json(session.org))
/// }
///
/// let router = Router::new().on("org", org);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct AuthorizerContext<T>(pub T);

impl<T> Deref for AuthorizerContext<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromEvent<S> for AuthorizerContext<T> {
    async fn from_event(event: &Event, _: &Arc<S>) -> Result<Self> {
        Ok(Self(event.request_context().context()?))
    }
}
