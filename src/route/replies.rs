//! How a router replies, and what it does about errors.

use std::sync::Arc;

use super::{Error, Failure, ReplyFormat, Router};
#[cfg(feature = "push")]
use crate::push::{Pusher, Pushers};

impl<S: Send + Sync + 'static> Router<S> {
    /// Pushes replies and errors to the client that sent the message, instead of answering with them.
    ///
    /// The function's answer then has no body, so that a route needs no route response, and nobody gets a reply twice. The
    /// function needs the right to push: `execute-api:ManageConnections`. `$connect` and `$disconnect` are answered as ever.
    ///
    /// Default: the reply is the function's answer, which reaches a client only where the route has a route response. That is
    /// quicker than a push by a round trip to API Gateway, and costs no request.
    ///
    /// A route whose replies are pushed should have no route response: with one, the client may get an empty frame beside its reply.
    ///
    /// A reply whose client has disconnected is dropped. If it cannot be pushed for another reason, the log and the
    /// [hook](Self::on_error) get an error. A pusher whose [endpoint](crate::push::Endpoint::api) is known to be another API's or
    /// stage's is not used.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::push::Recorder;
    /// use lambda_websocket::{Json, Message, Pusher, Router};
    ///
    /// # fn pusher() -> Pusher { Pusher::new(Recorder::new()) }
    /// let router = Router::new()
    ///     .on("length", |event: Message<String>| async move { Ok(Json(event.body.len())) })
    ///     .push_replies(pusher());
    /// ```
    #[cfg(feature = "push")]
    #[must_use]
    pub fn push_replies(mut self, pusher: Pusher) -> Self {
        Arc::make_mut(&mut self.inner).pushers = Some(Pushers::new(pusher));
        self
    }

    /// Refuses messages of clients whose authorization has expired, tells them so, and closes their connections.
    ///
    /// A connection can outlive the token that opened it. Such a client gets the error `authorization_expired`, and then the close code
    /// 1000, both through this pusher; its message reaches no route. `$disconnect` is handled as ever.
    ///
    /// The time is that of [`Authorization::with_expiry`](crate::authorizer::Authorization::with_expiry). Without one a client is authorized as long as it is
    /// connected. The clock is the function's, whose deviation on AWS is far below a second. A client that only listens sends nothing that
    /// could be refused: the sweeps of a [`Hub`](crate::hub::Hub) close its connection.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lambda_websocket::{Message, Pusher, Router};
    ///
    /// # fn router(pusher: Pusher) -> Router {
    /// Router::new().on("say", |_: Message| async { Ok(()) }).push_replies(pusher.clone()).close_expired(pusher)
    /// # }
    /// ```
    #[cfg(feature = "push")]
    #[must_use]
    pub fn close_expired(mut self, pusher: Pusher) -> Self {
        Arc::make_mut(&mut self.inner).expiry = Some(Pushers::new(pusher));
        self
    }

    /// Names the members of requests and replies differently. Default: those of the [protocol](super#the-reply-protocol).
    #[must_use]
    pub fn reply_format(mut self, format: ReplyFormat) -> Self {
        Arc::make_mut(&mut self.inner).format = format;
        self
    }

    /// Calls a hook with every [`Failure`], to count or to report it: mistakes of clients, errors, panics, lost replies.
    ///
    /// The client has been told by then, where its replies are pushed. The function answers when the hook is done, since Lambda
    /// stops it then. A later hook replaces an earlier one.
    #[must_use]
    pub fn on_error<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(Failure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Arc::make_mut(&mut self.inner).on_error = Some(Arc::new(move |failure| Box::pin(hook(failure))));
        self
    }

    /// Says what errors of your own type are to the client, for all routes in one place.
    ///
    /// The type is looked for in the error of the route and in its sources, from the outside in; for each of them, mappings are
    /// asked in the order in which they were added, and the first [`Error`] that one returns replaces the route's. Errors that are
    /// for the client already are not mapped. The original stays the source of the new error, for the log.
    ///
    /// With the feature `anyhow` the error inside an `anyhow::Error` is found, too; without it only those below a `context`.
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
