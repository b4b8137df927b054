//! The Lambda invocation that carries an event.

use std::time::SystemTime;

use super::trace::TraceContext;

/// One invocation of a Lambda function.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invocation {
    /// The request id of the invocation, as in the function's log.
    pub request_id: String,
    /// When Lambda stops the invocation.
    pub deadline: SystemTime,
    /// The trace of the invocation, if Lambda sends one.
    pub trace: Option<TraceContext>,
}

impl Invocation {
    /// Creates an invocation with its request id and its deadline.
    pub fn new(request_id: impl Into<String>, deadline: SystemTime) -> Self {
        Self { request_id: request_id.into(), deadline, trace: None }
    }

    /// Sets the trace of the invocation.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }
}

#[cfg(feature = "runtime")]
tokio::task_local! {
    static DEADLINE: SystemTime;
}

/// Runs a future whose pushes stop retrying before the deadline.
#[cfg(feature = "runtime")]
pub(crate) fn within_deadline<F: Future>(deadline: SystemTime, future: F) -> impl Future<Output = F::Output> {
    DEADLINE.scope(deadline, future)
}

/// Returns the deadline of the invocation that this task runs for.
#[cfg(any(feature = "push", feature = "dynamodb"))]
pub(crate) fn current_deadline() -> Option<SystemTime> {
    #[cfg(feature = "runtime")]
    return DEADLINE.try_with(|deadline| *deadline).ok();
    #[cfg(not(feature = "runtime"))]
    return None;
}
