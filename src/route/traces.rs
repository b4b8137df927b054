//! The trace of an event, and the span in which it is handled.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;
use tracing::Span;

use super::Router;
use crate::event::{Event, OnTrace, RequestContext, TraceContext};

/// The trace settings of a router.
#[derive(Clone, Default)]
pub(super) struct Traces {
    on_trace: Option<OnTrace>,
    accepts_traceparent: bool,
}

/// The message member that names the client's trace, like the HTTP header `traceparent`.
#[derive(Deserialize)]
struct Member<'a> {
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
}

impl Traces {
    pub(super) fn has_settings(&self) -> bool {
        self.on_trace.is_some() || self.accepts_traceparent
    }

    /// Sets the trace of the event to the client's, if the router accepts it.
    pub(super) fn trace(&self, event: Event) -> Event {
        let Event::Message(message) = &event else { return event };
        let body = message.body.as_bytes();
        if !self.accepts_traceparent || memmem::find(body, br#""traceparent""#).is_none() {
            return event;
        }
        let member = serde_json::from_slice::<Member<'_>>(body).ok().and_then(|member| member.traceparent);
        match member.and_then(|text| text.parse::<TraceContext>().ok()) {
            Some(trace) => event.with_trace(trace),
            None => event,
        }
    }

    pub(super) fn span(&self, context: &RequestContext) -> Span {
        // At the highest level, so that log lines of every level name their request.
        let span = tracing::error_span!(
            "websocket",
            request_id = %context.request_id,
            connection_id = %context.connection_id,
            route_key = %context.route_key,
            trace_id = context.trace().map(|trace| trace.trace_id()),
        );
        if let (Some(hook), Some(trace)) = (&self.on_trace, context.trace()) {
            hook(&span, trace);
        }
        span
    }
}

impl<S> Router<S> {
    /// Calls a function with the span and the trace of each event.
    ///
    /// Use it for tracers that need the parent span, such as OpenTelemetry. The function is not
    /// called for an event without a known trace. It is called before the span is entered, and must
    /// not panic.
    ///
    /// # Examples
    ///
    /// With [`tracing_opentelemetry`](https://docs.rs/tracing-opentelemetry):
    ///
    /// ```
    /// use std::collections::HashMap;
    ///
    /// use lambda_websocket::Router;
    /// use lambda_websocket::event::TraceContext;
    /// use opentelemetry::propagation::TextMapPropagator as _;
    /// use opentelemetry_sdk::propagation::TraceContextPropagator;
    /// use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    ///
    /// fn join(span: &tracing::Span, trace: TraceContext) {
    ///     let carrier = HashMap::from([(
    ///         "traceparent".to_owned(),
    ///         trace.traceparent().unwrap_or_default(),
    ///     )]);
    ///     let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    /// }
    ///
    /// let router = Router::new().on_trace(join);
    /// ```
    #[must_use]
    pub fn on_trace(mut self, hook: impl Fn(&Span, TraceContext) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.inner).traces.on_trace = Some(Arc::new(hook));
        self
    }

    /// Continues the trace that a client names in the message member `traceparent`.
    ///
    /// Browsers cannot send a header with a message. The member has the format of the
    /// [header](https://www.w3.org/TR/trace-context/#traceparent-header), as in
    /// `{"action":"say","traceparent":"00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"}`.
    /// A value in another format is ignored.
    ///
    /// A client can then join any trace, and have it recorded at your expense. Only accept traces
    /// from clients that you trust.
    #[must_use]
    pub fn accept_traceparent(mut self) -> Self {
        Arc::make_mut(&mut self.inner).traces.accepts_traceparent = true;
        self
    }
}
