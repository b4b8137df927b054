//! Dispatches an event to its route and builds the function's response.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::SEC_WEBSOCKET_PROTOCOL;

use super::failure::ErrorMap;
use super::handler::{BoxFuture, Handler};
use super::protocol::{Addressee, ErrorBody, Request, json};
use super::response::Content;
use super::traces::Traces;
use super::{Error, ErrorCode, FailedInvocation, Failure, ReplyFormat, Response, Result};
#[cfg(feature = "push")]
use crate::clock;
use crate::event::{ConnectParts, Event, RequestContext, RouteKey};
#[cfg(feature = "push")]
use crate::event::{ConnectionId, chain};
use crate::metrics::{self, EventTimer};
#[cfg(feature = "push")]
use crate::push::{PushError, Pusher, Pushers};
use crate::quotas::MAX_MESSAGE_BYTES;

/// The routes and settings of a router.
#[derive(Clone, Default)]
pub(super) struct Inner {
    pub(super) routes: BTreeMap<RouteKey, Arc<dyn Handler>>,
    pub(super) format: ReplyFormat,
    pub(super) errors: ErrorMap,
    pub(super) on_error: Option<Hook>,
    pub(super) traces: Traces,
    pub(super) fail_invocation_on_error: bool,
    /// Pushes replies. `None` returns them in the function's response.
    #[cfg(feature = "push")]
    pub(super) pushers: Option<Pushers>,
    /// Closes the connections of clients whose authorization has expired.
    #[cfg(feature = "push")]
    pub(super) expiry: Option<Pushers>,
}

type Hook = Arc<dyn Fn(Failure) -> BoxFuture<()> + Send + Sync>;

/// The event that is being handled.
///
/// Only a message can be expired: `is_expired` implies `is_message`.
struct Exchange {
    context: Arc<RequestContext>,
    request: Request,
    is_message: bool,
    /// Whether to reject the message and close the connection.
    is_expired: bool,
    /// The error code sent to the client. `None` counts as success.
    code: Option<ErrorCode>,
    timer: EventTimer,
}

impl Exchange {
    /// Records the outcome in the metrics.
    fn end(&mut self) {
        self.timer.end(self.code.as_ref().map_or("ok", ErrorCode::as_str));
    }
}

impl Inner {
    /// Returns whether any setting differs from its default.
    pub(super) fn has_settings(&self) -> bool {
        #[cfg(feature = "push")]
        let pushes = self.pushers.is_some() || self.expiry.is_some();
        #[cfg(not(feature = "push"))]
        let pushes = false;
        let has_hooks = self.on_error.is_some() || !self.errors.is_empty() || self.traces.has_settings();
        pushes || has_hooks || self.fail_invocation_on_error || !self.format.is_default()
    }

    pub(super) async fn handle(self: Arc<Self>, mut event: Event) -> Result<Response, FailedInvocation> {
        let (is_default, handler) = self.select(&event);
        let context = event.shared_context();
        let timer = EventTimer::start(context.route_key.as_str());
        let (request, is_expired) = (Request::default(), self.is_expired(&event));
        let mut exchange = Exchange { context, request, is_message: false, is_expired, code: None, timer };
        let (mut invalid, mut offer) = (None, None);
        match &mut event {
            Event::Message(message) => {
                exchange.is_message = true;
                // For a custom route, the route key is the action, so the member need not be read.
                (exchange.request, invalid) = Request::read(&self.format, &message.body, is_default);
                if let Some(id) = &exchange.request.id {
                    message.set_correlation_id(id.clone());
                }
            }
            Event::Connect(connect) => offer = Some(connect.parts()),
            Event::Disconnect(disconnect) => {
                let age = exchange.context.request_time.duration_since(exchange.context.connected_at);
                metrics::disconnected(disconnect.status_code(), age.unwrap_or_default());
            }
        }
        let answer = match (handler, invalid) {
            _ if exchange.is_expired => {
                Err(Error::client(ErrorCode::AUTHORIZATION_EXPIRED, "the authorization has expired: connect again"))
            }
            (_, Some(invalid)) => Err(Error::invalid_id(&invalid)),
            (Some(handler), None) => {
                let answered = match caught(|| handler.call(event)) {
                    Ok(answer) => Caught(answer).await,
                    Err(panic) => Err(panic),
                };
                answered.unwrap_or_else(|panic| Err(Error::panicked(&panic)))
            }
            (None, None) if exchange.is_message => Err(Error::unknown_action(&exchange.context.route_key)),
            (None, None) => Ok(Response::ok()),
        };
        let answer = answer
            .and_then(|response| check_subprotocol(response, offer.as_deref()))
            .and_then(|response| self.framed(response, &exchange));
        match answer {
            Ok(response) if !self.pushes(&exchange) || response.text().is_none() => {
                exchange.end();
                Ok(response)
            }
            Ok(response) => self.deliver(response, exchange).await,
            Err(error) => self.fail(error, exchange).await,
        }
    }

    /// Selects the handler, and returns whether the action must be read from the message.
    fn select(&self, event: &Event) -> (bool, Option<Arc<dyn Handler>>) {
        let key = &event.request_context().route_key;
        match (self.routes.get(key), event) {
            (Some(found), _) => (key.as_str() == RouteKey::DEFAULT, Some(Arc::clone(found))),
            (None, Event::Message(_)) => (true, self.routes.get(RouteKey::DEFAULT).cloned()),
            (None, Event::Connect(_) | Event::Disconnect(_)) => (false, None),
        }
    }

    /// Formats the response to a message as the reply protocol requires.
    fn framed(&self, response: Response, exchange: &Exchange) -> Result<Response> {
        if !exchange.is_message {
            return Ok(response);
        }
        let (response, content) = response.take_content();
        let status = response.status();
        let text = match (content, &exchange.request.id) {
            (Content::Accepted(id), _) => Some(self.format.accepted(&id)),
            (Content::Empty, None) => None,
            (Content::Text(text) | Content::Json(text), None) => Some(text),
            (content, Some(id)) if status.is_success() => Some(match content {
                Content::Json(value) => self.format.result(id, &value),
                Content::Text(text) => self.format.result(id, &json(&text)),
                Content::Empty | Content::Accepted(_) => self.format.result(id, "null"),
            }),
            (content, Some(id)) => {
                let reason = status.canonical_reason().unwrap_or_default();
                let (message, details) = match content {
                    Content::Text(text) => (text, None),
                    Content::Json(value) => (reason.to_owned(), serde_json::from_str(&value).ok()),
                    Content::Empty | Content::Accepted(_) => (reason.to_owned(), None),
                };
                let code = &ErrorCode::from(status);
                let error = ErrorBody { code, message: &message, details: details.as_ref() };
                Some(self.format.error(Addressee::Id(id), error))
            }
        };
        match text {
            Some(text) if text.len() > MAX_MESSAGE_BYTES => Err(Error::reply_too_large(text.len(), MAX_MESSAGE_BYTES)),
            Some(text) => Ok(response.body(text)),
            None => Ok(response),
        }
    }

    /// Reports an error to the client, the log, and the hook.
    ///
    /// Boxed, so that this rare case does not enlarge the future of every event.
    fn fail(self: Arc<Self>, error: Error, mut exchange: Exchange) -> BoxFuture<Result<Response, FailedInvocation>> {
        let error = caught(|| self.errors.apply(error)).unwrap_or_else(|panic| Error::panicked(&panic));
        let failure = Failure::new(&error, Arc::clone(&exchange.context), exchange.request.id.clone());
        failure.log();
        let to = failure.addressee(exchange.request.action.as_deref());
        let mut frame = self.format.error(to, failure.body());
        if frame.len() > MAX_MESSAGE_BYTES {
            let error = Error::reply_too_large(frame.len(), MAX_MESSAGE_BYTES);
            let message = error.to_string();
            frame = self.format.error(to, ErrorBody { code: failure.code(), message: &message, details: None });
        }
        exchange.code = Some(failure.code().clone());
        let response = Response::new(failure.status()).body(frame);
        Box::pin(async move {
            let fails = self.fail_invocation_on_error && !error.is_for_client();
            let response = match self.pushes(&exchange) {
                true => Arc::clone(&self).deliver(response, exchange).await,
                false => {
                    exchange.end();
                    Ok(response)
                }
            };
            self.call_hook(failure).await;
            if fails { Err(FailedInvocation::new(error)) } else { response }
        })
    }

    async fn call_hook(&self, failure: Failure) {
        let Some(hook) = self.on_error.clone() else { return };
        if let Err(panic) = Caught(Box::pin(async move { hook(failure).await })).await {
            tracing::error!(error = %panic, "the hook of the router panicked");
        }
    }

    /// Returns whether the event is a message of a client whose authorization has expired.
    #[cfg(feature = "push")]
    fn is_expired(&self, event: &Event) -> bool {
        let expires_at = || event.request_context().authorization_expires_at();
        let is_watched = self.expiry.is_some() && matches!(event, Event::Message(_));
        is_watched && expires_at().is_some_and(|end| end <= clock::now())
    }

    #[cfg(not(feature = "push"))]
    fn is_expired(&self, _: &Event) -> bool {
        false
    }

    /// Returns whether the reply is pushed, instead of returned in the function's response.
    #[cfg(feature = "push")]
    fn pushes(&self, exchange: &Exchange) -> bool {
        exchange.is_message && (exchange.is_expired || self.pushers.is_some())
    }

    #[cfg(not(feature = "push"))]
    fn pushes(&self, _: &Exchange) -> bool {
        false
    }

    /// Pushes the body of a response to the client, and returns the response without it.
    #[cfg(feature = "push")]
    fn deliver(
        self: Arc<Self>,
        response: Response,
        mut exchange: Exchange,
    ) -> BoxFuture<Result<Response, FailedInvocation>> {
        Box::pin(async move {
            let (response, content) = response.take_content();
            let pushers = if exchange.is_expired { &self.expiry } else { &self.pushers };
            let (Some(pushers), Content::Text(text)) = (pushers, content) else { return Ok(response) };
            let context = Arc::clone(&exchange.context);
            let pushed = match pushers.find(&context.connection_id, &context.api_id, &context.stage) {
                Ok(pusher) => {
                    let pushed = pusher.send_text(&context.connection_id, text).await;
                    if exchange.is_expired {
                        close(pusher, &context.connection_id).await;
                    }
                    pushed
                }
                Err(error) => Err(error),
            };
            let error = match pushed {
                Ok(()) => {
                    exchange.end();
                    return Ok(response);
                }
                // The client has disconnected, so there is nothing to report.
                Err(PushError::Gone { .. }) => {
                    tracing::debug!("the client disconnected before its reply was pushed");
                    exchange.end();
                    return Ok(response);
                }
                Err(error) => Error::from(error),
            };
            let failure = Failure::not_pushed(&error, context, exchange.request.id.clone());
            failure.log();
            exchange.code = Some(failure.code().clone());
            exchange.end();
            let status = failure.status();
            self.call_hook(failure).await;
            match self.fail_invocation_on_error {
                true => Err(FailedInvocation::new(error)),
                false => Ok(Response::new(status)),
            }
        })
    }

    #[cfg(not(feature = "push"))]
    fn deliver(self: Arc<Self>, response: Response, _: Exchange) -> BoxFuture<Result<Response, FailedInvocation>> {
        Box::pin(std::future::ready(Ok(response)))
    }
}

/// Closes the connection of a client whose authorization has expired.
#[cfg(feature = "push")]
async fn close(pusher: &Pusher, connection_id: &ConnectionId) {
    match pusher.close(connection_id).await {
        Ok(()) => tracing::info!("the connection was closed, since the authorization has expired"),
        Err(PushError::Gone { .. }) => {}
        Err(error) => tracing::error!(error = %chain(&error), "the connection was not closed"),
    }
}

/// A future that returns a panic as its output.
struct Caught<T>(BoxFuture<T>);

impl<T> Future for Caught<T> {
    type Output = std::result::Result<T, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match caught(|| self.0.as_mut().poll(context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// Calls a function and returns its result, or the text of its panic.
///
/// State that a panic may have left inconsistent is not used again.
fn caught<T>(function: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "no text".to_owned(), |text| (*text).to_owned()),
    })
}

/// Checks that the response selects a subprotocol that the client offered.
///
/// API Gateway passes the header to the client, which closes the connection on any other
/// subprotocol.
fn check_subprotocol(response: Response, offer: Option<&ConnectParts>) -> Result<Response> {
    let Some(selected) = response.headers().get(SEC_WEBSOCKET_PROTOCOL) else { return Ok(response) };
    let Some(offer) = offer else {
        return Err(Error::message("only the answer to `$connect` can select a subprotocol"));
    };
    if offer.subprotocols().any(|offered| offered.as_bytes() == selected.as_bytes()) {
        return Ok(response);
    }
    // An offered subprotocol may be a token, and this text goes to the log.
    let count = offer.subprotocols().count();
    let selected = String::from_utf8_lossy(selected.as_bytes());
    let selected = if selected.starts_with("bearer.") { "bearer.…" } else { &*selected };
    Err(Error::message(format_args!(
        "the answer selects the subprotocol {selected:?}, which is none of the {count} that the client offered"
    )))
}
