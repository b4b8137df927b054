//! What becomes of an event: which route takes it, and what its function answers when the route does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use http::header::SEC_WEBSOCKET_PROTOCOL;

use super::handler::{BoxFuture, Handler};
use super::{Error, FailedInvocation, Rejection, RejectionKind, Response, Result};
use crate::event::{ConnectParts, Event, RequestContext, RouteKey, chain};

/// The routes of a router, and its settings.
#[derive(Clone, Default)]
pub(super) struct Inner {
    pub(super) routes: BTreeMap<RouteKey, Arc<dyn Handler>>,
    pub(super) on_rejection: Option<Hook>,
    pub(super) fail_invocation_on_error: bool,
}

type Hook = Arc<dyn Fn(Rejection) -> BoxFuture<()> + Send + Sync>;

impl Inner {
    pub(super) async fn handle(self: Arc<Self>, event: Event) -> Result<Response, FailedInvocation> {
        let Some(handler) = self.select(&event) else {
            return match event {
                Event::Message(_) => {
                    let rejection = Rejection::new(RejectionKind::NoRoute, event.shared_context());
                    Ok(self.reject(rejection).await)
                }
                Event::Connect(_) | Event::Disconnect(_) => Ok(Response::ok()),
            };
        };
        let context = event.shared_context();
        let offer = match &event {
            Event::Connect(connect) => Some(connect.parts()),
            Event::Message(_) | Event::Disconnect(_) => None,
        };
        let answer = match handler.call(event).await {
            Ok(response) => check_subprotocol(response, offer.as_deref()),
            Err(error) => Err(error),
        };
        match answer {
            Ok(response) => Ok(response),
            Err(error) => self.fail(error, context).await,
        }
    }

    /// Decides whose mistake an error is, and who is told. Boxed as is [`reject`](Self::reject).
    fn fail(&self, error: Error, context: Arc<RequestContext>) -> BoxFuture<Result<Response, FailedInvocation>> {
        let error = match error.rejection() {
            Ok(kind) => {
                let rejected = self.reject(Rejection::new(kind, context));
                return Box::pin(async move { Ok(rejected.await) });
            }
            Err(error) => error,
        };
        let refusal = |status, text: &str| Response::refusal(status, text, &context.connection_id, &context.request_id);
        let response = match error.answer() {
            Some((status, text)) if status.is_client_error() => {
                // The text is the client's, and may quote it.
                let reason = error.source().map(|source| chain(source)).unwrap_or_default();
                tracing::warn!(status = status.as_u16(), %reason, "the route refused the event");
                Ok(refusal(status, text))
            }
            answer => {
                tracing::error!(error = %error.chain(), "the route failed");
                match answer {
                    None if self.fail_invocation_on_error => Err(FailedInvocation::new(error)),
                    None => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")),
                    Some((status, text)) => Ok(refusal(status, text)),
                }
            }
        };
        Box::pin(std::future::ready(response))
    }

    fn select(&self, event: &Event) -> Option<Arc<dyn Handler>> {
        let found = self.routes.get(&event.request_context().route_key);
        let found = match event {
            Event::Message(_) => found.or_else(|| self.routes.get(RouteKey::DEFAULT)),
            Event::Connect(_) | Event::Disconnect(_) => found,
        };
        found.cloned()
    }

    /// Boxed, so that the rare case does not make the future of every event larger.
    fn reject(&self, rejection: Rejection) -> BoxFuture<Response> {
        tracing::warn!(%rejection, "the message was rejected");
        let response = rejection.response();
        let hook = self.on_rejection.as_ref().map(|hook| hook(rejection));
        Box::pin(async move {
            if let Some(hook) = hook {
                hook.await;
            }
            response
        })
    }
}

/// API Gateway passes the header on to the client, which fails when it names something that was not on offer.
fn check_subprotocol(response: Response, offer: Option<&ConnectParts>) -> Result<Response> {
    let Some(selected) = response.headers().get(SEC_WEBSOCKET_PROTOCOL) else { return Ok(response) };
    let Some(offer) = offer else {
        return Err(Error::message("only the answer to `$connect` can select a subprotocol"));
    };
    if offer.subprotocols().any(|offered| offered.as_bytes() == selected.as_bytes()) {
        return Ok(response);
    }
    let offered: Vec<&str> = offer.subprotocols().collect();
    Err(Error::message(format_args!(
        "the answer selects the subprotocol {selected:?}, but the client offered {}",
        if offered.is_empty() { "none".to_owned() } else { format!("{offered:?}") }
    )))
}
