//! The instances of one function, and the invocations that wait for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::{Call, FunctionError};
use super::Process;
use super::instance::Instance;
use crate::clock;
use crate::event::Invocation;

/// The maximum number of waiting invocations; further ones are throttled, as on AWS.
const QUEUE: usize = 1024;
/// The delay before a process that failed to start is started again.
///
/// It doubles with each failure.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// The instances of one function, which end when the pool is dropped.
pub(in super::super) struct Pool(Arc<Shared>);

/// The state that the pool and its instances share.
pub(super) struct Shared {
    pub(super) process: Process,
    state: Mutex<State>,
    /// Signals that a job waits.
    job: Notify,
    /// The number of instances.
    instances: watch::Sender<usize>,
    is_closed: watch::Sender<bool>,
    /// Where the function pushes.
    endpoint: OnceLock<String>,
}

/// Invariants: `ready` and `running` are at most the number of instances, and a job is in `jobs` or
/// with one instance.
#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Instances that have requested an invocation, and thus have started successfully.
    ready: usize,
    /// Instances that have an invocation.
    running: usize,
    /// Failed starts since the last successful one.
    failures: u32,
    starts_at: Option<Instant>,
}

pub(super) struct Job {
    pub(super) invocation: Invocation,
    pub(super) payload: Vec<u8>,
    pub(super) timeout: Option<Duration>,
    pub(super) reply: Reply,
    pub(super) runner: Runner,
}

/// The instance that runs an invocation, once it is assigned.
type Runner = Arc<OnceLock<Arc<Instance>>>;

pub(super) type Reply = oneshot::Sender<Result<Vec<u8>, FunctionError>>;

impl Pool {
    pub(in super::super) fn new(process: Process) -> Self {
        Self(Arc::new(Shared {
            process,
            state: Mutex::default(),
            job: Notify::new(),
            instances: watch::Sender::new(0),
            is_closed: watch::Sender::new(false),
            endpoint: OnceLock::new(),
        }))
    }

    /// Sets where the function pushes, unless it is already set.
    pub(in super::super) fn set_endpoint(&self, endpoint: &str) {
        let _ = self.0.endpoint.set(endpoint.to_owned());
    }

    /// Returns a handle to wait for the end of the processes, without holding the pool.
    pub(in super::super) fn ending(&self) -> Ending {
        Ending { instances: self.0.instances.subscribe(), is_closed: self.0.is_closed.subscribe() }
    }

    pub(in super::super) async fn invoke(&self, call: Call) -> Result<Vec<u8>, FunctionError> {
        let Call { invocation, payload, timeout: limit } = call;
        let (reply, mut answer) = oneshot::channel();
        let runner = Runner::default();
        let request_id = invocation.request_id.clone();
        let waits = invocation.deadline.duration_since(clock::now()).unwrap_or_default();
        let mut dropped = OnDrop { request_id: Some(request_id.clone()), runner: Arc::clone(&runner) };
        self.0.enqueue(Job { invocation, payload, timeout: limit, reply, runner })?;
        let answer = match timeout(waits, &mut answer).await {
            Ok(answer) => answer,
            Err(_) if self.0.withdraw(&request_id) => {
                let text = "no process of the function was free in time";
                Ok(Err(FunctionError::new("TooManyRequestsException", text)))
            }
            // MSG-4: an instance has it, and it runs on.
            Err(_) => answer.await,
        };
        dropped.request_id = None;
        answer.unwrap_or_else(|_| Err(FunctionError::new("Runtime.ExitError", "the function's process ended")))
    }
}

/// A handle to wait for the end of a pool's processes.
pub(in super::super::super) struct Ending {
    instances: watch::Receiver<usize>,
    is_closed: watch::Receiver<bool>,
}

impl Ending {
    /// Waits until the processes have ended.
    ///
    /// Returns at once if another owner still has the function.
    pub(in super::super::super) async fn wait(mut self) {
        if *self.is_closed.borrow() {
            let _ = self.instances.wait_for(|instances| *instances == 0).await;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.is_closed.send_replace(true);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.get().map(String::as_str)
    }

    /// Waits until the pool is dropped.
    pub(super) async fn closed(&self) {
        let _ = self.is_closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn enqueue(self: &Arc<Self>, job: Job) -> Result<(), FunctionError> {
        let mut state = self.state();
        if state.jobs.len() >= QUEUE {
            return Err(FunctionError::new(
                "TooManyRequestsException",
                "too many invocations are queued for the function",
            ));
        }
        state.jobs.push_back(job);
        self.start_if_needed(&state);
        drop(state);
        self.job.notify_one();
        Ok(())
    }

    /// Removes a job that no instance has, and returns whether there was one.
    fn withdraw(&self, request_id: &str) -> bool {
        let mut state = self.state();
        let at = state.jobs.iter().position(|job| job.invocation.request_id == request_id);
        at.is_some_and(|at| state.jobs.remove(at).is_some())
    }

    /// Starts an instance if there are more invocations than instances and another is allowed.
    fn start_if_needed(self: &Arc<Self>, state: &State) {
        let instances = *self.instances.borrow();
        let wanted = state.jobs.len().saturating_add(state.running);
        if wanted > instances && instances < self.process.instances && !*self.is_closed.borrow() {
            let counted = Counted::new(Arc::clone(self));
            tokio::spawn(keep(Arc::clone(self), state.starts_at, counted));
        }
    }

    /// Waits for the next invocation whose caller still waits.
    pub(super) async fn next_job(&self) -> Job {
        loop {
            let notified = self.job.notified();
            {
                let mut state = self.state();
                while let Some(job) = state.jobs.pop_front() {
                    if !job.reply.is_closed() {
                        state.running = state.running.saturating_add(1);
                        return job;
                    }
                }
            }
            notified.await;
        }
    }

    /// Records that an instance has started.
    pub(super) fn ready(&self) {
        let mut state = self.state();
        state.ready = state.ready.saturating_add(1);
        state.failures = 0;
        state.starts_at = None;
    }

    /// Records that an instance has finished its invocation.
    pub(super) fn finished(&self) {
        let mut state = self.state();
        state.running = state.running.saturating_sub(1);
    }

    /// Records that a started instance has ended.
    pub(super) fn ended(&self) {
        let mut state = self.state();
        state.ready = state.ready.saturating_sub(1);
    }

    /// Records that a process failed to start.
    ///
    /// If no other instance has started, all waiting invocations fail with the same error.
    fn start_failed(&self, error: &FunctionError) {
        let mut state = self.state();
        let delay = FIRST_DELAY.saturating_mul(1_u32.checked_shl(state.failures).unwrap_or(u32::MAX)).min(MAX_DELAY);
        state.failures = state.failures.saturating_add(1);
        state.starts_at = Instant::now().checked_add(delay);
        if state.ready == 0 {
            for job in state.jobs.drain(..) {
                let _ = job.reply.send(Err(error.clone()));
            }
        }
    }
}

/// Runs one process until it ends.
async fn keep(shared: Arc<Shared>, starts_at: Option<Instant>, counted: Counted) {
    if let Some(starts_at) = starts_at {
        tokio::select! {
            biased;
            () = shared.closed() => return,
            () = sleep_until(starts_at) => {}
        }
    }
    if *shared.is_closed.borrow() || shared.state().jobs.is_empty() {
        return;
    }
    let instance = Instance::new(Arc::clone(&shared));
    let ended = instance.run().await;
    if let Some(error) = ended {
        let has_started = instance.has_started();
        tracing::warn!(function = %shared.process.name, %error, has_started, "the function's process ended");
        if !has_started {
            shared.start_failed(&error);
        }
    }
    // Dropped before the next instance is counted.
    drop(counted);
    shared.start_if_needed(&shared.state());
}

/// Counts an instance until it is dropped, even if its runtime ends.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        shared.instances.send_modify(|instances| *instances = instances.saturating_add(1));
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.instances.send_modify(|instances| *instances = instances.saturating_sub(1));
    }
}

/// Kills the process of an invocation that is dropped before its response.
struct OnDrop {
    request_id: Option<String>,
    runner: Runner,
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let (Some(request_id), Some(instance)) = (&self.request_id, self.runner.get()) {
            instance.kill(request_id);
        }
    }
}
