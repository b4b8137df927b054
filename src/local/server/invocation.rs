//! Function calls: where and when they run.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::super::function::{Function, FunctionError};
use super::super::rules::{CallId, Input};
use super::{Alive, Phase, Shared, until};

/// A function call to run.
pub(super) struct Call {
    pub(super) call: CallId,
    pub(super) request_id: String,
    /// `None` when the gateway has stopped.
    pub(super) function: Option<Function>,
    pub(super) payload: Vec<u8>,
    pub(super) limit: Duration,
    pub(super) killed_after: Option<Duration>,
    pub(super) starts_after: Option<Duration>,
    pub(super) yields: Option<u8>,
    pub(super) alive: Option<Alive>,
}

type Outcome = Result<Vec<u8>, FunctionError>;

impl Shared {
    /// Calls functions, on a task of the gateway.
    ///
    /// A function that responds without waiting does so here, before anything else happens. Any
    /// other function continues in its own task. Calls that follow from a response go through a
    /// queue instead of recursion.
    pub(super) fn begin(self: &Arc<Self>, calls: Vec<Call>) {
        let mut calls = VecDeque::from(calls);
        while let Some(next) = calls.pop_front() {
            let (call, alive, is_interleaved) = (next.call, next.alive.clone(), next.yields.is_some());
            let running = run(next);
            let mut running = Box::pin(AssertUnwindSafe(running).catch_unwind());
            let panicked = |_| Err(FunctionError::new("Panic", "the function panicked"));
            let answered = if is_interleaved { None } else { (&mut running).now_or_never() };
            match answered {
                Some(outcome) => calls.extend(self.answered(call, outcome.unwrap_or_else(panicked))),
                None => {
                    let shared = Arc::clone(self);
                    let running = async move {
                        let outcome = running.await.unwrap_or_else(panicked);
                        let calls = shared.answered(call, outcome);
                        shared.begin(calls);
                        drop(alive);
                    };
                    // A function that never responds ends with the gateway.
                    self.runtime.spawn(until(Phase::Stopped, self.phase.subscribe(), running));
                }
            }
        }
    }

    fn answered(&self, call: CallId, answer: Outcome) -> Vec<Call> {
        self.apply(Input::Answered { call, answer }).1
    }
}

async fn run(call: Call) -> Outcome {
    let Call { function, request_id, payload, limit, killed_after, starts_after, yields, .. } = call;
    let Some(function) = function else {
        return Err(FunctionError::new("Runtime.ExitError", "the gateway has stopped"));
    };
    if let Some(yields) = yields {
        for _ in 0..yields {
            yield_now().await;
        }
    }
    if let Some(delay) = starts_after {
        sleep(delay).await;
    }
    let running = function.invoke(request_id, payload, limit);
    match killed_after {
        None => running.await,
        Some(after) => {
            // Dropping an invocation ends it, and kills its process.
            let _ = timeout(after, running).await;
            Err(FunctionError::new("Runtime.ExitError", "the function was killed"))
        }
    }
}
