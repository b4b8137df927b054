//! Reply and error settings of a router.

use std::sync::Arc;

use super::{Error, Failure, ReplyFormat, Router};
#[cfg(feature = "push")]
use crate::push::{Pusher, Pushers};

impl<S: Send + Sync + 'static> Router<S> {
    /// Pushes replies and errors to the client, instead of returning them in the function's
    /// response.
    ///
    /// The function's response then has no body, so the route needs no route response, and the
    /// client does not get a reply twice. The function needs permission for
    /// `execute-api:ManageConnections`. Responses to `$connect` and `$disconnect` do not change.
    ///
    /// Default: the reply is the function's response, which reaches the client only if the route
    /// has a route response. That saves a round trip to API Gateway and the cost of a request.
    ///
    /// A route whose replies are pushed should have no route response: with one, the client may get
    /// an empty frame in addition to its reply.
    ///
    /// If the client has disconnected, its reply is dropped. If a push fails for another reason,
    /// the error is logged and passed to the [hook](Self::on_error). The router does not push
    /// through a pusher whose [endpoint](crate::push::Endpoint::api) is known to belong to another
    /// API or stage.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::push::Recorder;
    /// use lambda_websocket::{Json, Message, Pusher, Router};
    ///
    /// # fn pusher() -> Pusher { Pusher::new(Recorder::new()) }
    /// #[derive(serde::Deserialize)]
    /// struct Text { text: String }
    ///
    /// let length = |event: Message<Text>| async move { Ok(Json(event.body.text.len())) };
    /// let router = Router::new().on("length", length).push_replies(pusher());
    /// ```
    #[cfg(feature = "push")]
    #[must_use]
    pub fn push_replies(mut self, pusher: Pusher) -> Self {
        Arc::make_mut(&mut self.inner).pushers = Some(Pushers::new(pusher));
        self
    }

    /// Rejects messages after the client's authorization has expired, and closes the connection.
    ///
    /// A connection can outlive the token that opened it. Such a client gets the error
    /// `authorization_expired` and then the close code 1000, both through this pusher. Its message
    /// does not reach a route. `$disconnect` events are handled as usual.
    ///
    /// The authorizer sets the time with
    /// [`Authorization::with_expiry`](crate::authorizer::Authorization::with_expiry). Without it,
    /// the authorization does not expire while the client is connected. The router compares
    /// the time with the function's clock, which on AWS is accurate to well below a second. A client
    /// that only listens sends no message that could be rejected: the sweeps of a
    /// [`Hub`](crate::hub::Hub) close its connection.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lambda_websocket::{Message, Pusher, Router};
    ///
    /// # fn router(pusher: Pusher) -> Router {
    /// Router::new()
    ///     .on("say", |_: Message| async { Ok(()) })
    ///     .push_replies(pusher.clone())
    ///     .close_expired(pusher)
    /// # }
    /// ```
    #[cfg(feature = "push")]
    #[must_use]
    pub fn close_expired(mut self, pusher: Pusher) -> Self {
        Arc::make_mut(&mut self.inner).expiry = Some(Pushers::new(pusher));
        self
    }

    /// Sets the names of the members of requests and replies.
    ///
    /// Default: the names of the [reply protocol](super#the-reply-protocol).
    #[must_use]
    pub fn reply_format(mut self, format: ReplyFormat) -> Self {
        Arc::make_mut(&mut self.inner).format = format;
        self
    }

    /// Calls a hook with every [`Failure`], for example to count or report it.
    ///
    /// Failures are clients' mistakes, errors, panics, and replies that were not delivered.
    ///
    /// If replies are pushed, the client gets the error before the hook runs. The function responds
    /// after the hook has completed, because Lambda stops the function after its response. A later
    /// hook replaces an earlier one.
    #[must_use]
    pub fn on_error<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Failure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Arc::make_mut(&mut self.inner).on_error = Some(Arc::new(move |failure| Box::pin(hook(failure))));
        self
    }

    /// Converts errors of your own type into an [`Error`], for all routes.
    ///
    /// The router checks the route's error and then each of its sources, starting with the
    /// outermost. For each of them it tries the mappings in the order in which they were added. The
    /// first [`Error`] that a mapping returns replaces the route's error. Errors that are already
    /// for the client are not mapped. The original error becomes the source of the new one, for the
    /// log.
    ///
    /// With the feature `anyhow`, the error inside an `anyhow::Error` is checked, too. Without it,
    /// only the errors below a `context` are.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::route::{Error, ErrorCode};
    /// use lambda_websocket::{Message, Router};
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// enum ShopError {
    ///     #[error("sold out")]
    ///     SoldOut { left: u32 },
    ///     #[error("the warehouse does not answer")]
    ///     Warehouse,
    /// }
    ///
    /// let router = Router::new()
    ///     .on("buy", |_: Message| async { Err::<(), _>(ShopError::SoldOut { left: 0 }.into()) })
    ///     .map_error(|error: &ShopError| match error {
    ///         ShopError::SoldOut { left } => {
    ///             const SOLD_OUT: ErrorCode = ErrorCode::new("sold_out");
    ///             Some(Error::client(SOLD_OUT, error).with_details(&serde_json::json!({"left": left})))
    ///         }
    ///         ShopError::Warehouse => None, // `internal`
    ///     });
    /// ```
    #[must_use]
    pub fn map_error<E: std::error::Error + 'static>(
        mut self,
        map: impl Fn(&E) -> Option<Error> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.inner).errors.add(map);
        self
    }
}
