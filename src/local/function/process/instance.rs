//! One process of a function, from start to end.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::{FunctionError, timed_out};
use super::group::Group;
use super::output::{LastLines, read_lines};
use super::pool::{Job, Reply, Shared};
use super::runtime_api;

/// How long to wait for the last output of a process that has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(200);
/// How late a timeout may be noticed.
const TOLERANCE: Duration = Duration::from_millis(10);

/// One process and its current invocation.
pub(super) struct Instance {
    pub(super) shared: Arc<Shared>,
    current: Mutex<Current>,
    killed: Notify,
}

#[derive(Default)]
struct Current {
    invocation: Option<Running>,
    has_started: bool,
    /// Whether a request for the next invocation is open.
    is_asking: bool,
    /// Why the process must end.
    ending: Option<FunctionError>,
}

struct Running {
    request_id: String,
    reply: Reply,
    due: Option<Instant>,
    limit: Duration,
}

/// Whether a process may receive its next invocation.
pub(super) enum Asking {
    Yes,
    /// It has an invocation, or already waits for one.
    No,
    /// It is about to be killed.
    Never,
}

impl Instance {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, current: Mutex::default(), killed: Notify::new() })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_started(&self) -> bool {
        self.current().has_started
    }

    /// Runs the process until it ends, and fails its current invocation.
    ///
    /// Returns why it ended, or `None` if the pool was dropped.
    pub(super) async fn run(self: &Arc<Self>) -> Option<FunctionError> {
        let life = Life(self);
        let error = self.run_process().await;
        life.fail(error.as_ref());
        error
    }

    async fn run_process(self: &Arc<Self>) -> Option<FunctionError> {
        let exit = |text: String| Some(FunctionError::new("Runtime.ExitError", text));
        let process = &self.shared.process;
        let listening = async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>((listener, address))
        };
        let (listener, address) = match listening.await {
            Ok(listening) => listening,
            Err(error) => return exit(format!("failed to serve the Runtime API: {error}")),
        };
        let mut group = match Group::spawn(process.command(&address.to_string(), self.shared.endpoint())) {
            Ok(group) => group,
            Err(error) => return exit(format!("failed to start {}: {error}", process.program.display())),
        };
        let (stdout, stderr) = group.outputs();
        let last = Mutex::new(LastLines::default());
        let log = |line: &str, is_error: bool| {
            let request_id = self.current().invocation.as_ref().map(|running| running.request_id.clone());
            let (function, request_id) = (&process.name, request_id.unwrap_or_default());
            tracing::info!(target: "lambda_websocket::function", function, request_id, "{line}");
            if is_error {
                last.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        };
        let read = async {
            tokio::join!(
                async {
                    if let Some(stdout) = stdout {
                        read_lines(stdout, |line| log(line, false)).await;
                    }
                },
                async {
                    if let Some(stderr) = stderr {
                        read_lines(stderr, |line| log(line, true)).await;
                    }
                },
            )
        };
        let mut read = pin!(read.fuse());
        let mut connections = JoinSet::new();
        let ended = {
            let serve = async {
                loop {
                    tokio::select! {
                        accepted = listener.accept() => match accepted {
                            Ok((stream, _)) => drop(connections.spawn(runtime_api::serve(stream, Arc::clone(self)))),
                            Err(_) => sleep(LAST_OUTPUT).await,
                        },
                        Some(_) = connections.join_next() => {}
                    }
                }
            };
            let waited = async {
                tokio::select! {
                    status = group.wait() => status,
                    _ = &mut read => group.wait().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shared.closed() => None,
                status = waited => match status {
                    Ok(status) => exit(format!("the process ended with {status}")),
                    Err(error) => exit(format!("failed to wait for the process: {error}")),
                },
                () = self.killed.notified() => self.current().ending.clone().or_else(|| exit("killed".to_owned())),
                error = self.timed_out() => Some(error),
                () = serve => exit("the Runtime API stopped".to_owned()),
            }
        };
        match &ended {
            // The function may finish its work, as at the end of an execution environment.
            None => group.end().await,
            Some(_) => drop(group),
        }
        // A connection of a dead process must not receive an invocation.
        connections.shutdown().await;
        // The last output. A child that has left the group may keep the output open for longer.
        if !read.is_terminated() {
            let _ = timeout(LAST_OUTPUT, &mut read).await;
        }
        let suffix = last.lock().unwrap_or_else(PoisonError::into_inner).suffix();
        ended.map(|error| FunctionError { message: format!("{}{suffix}", error.message), ..error })
    }

    /// Waits until the start or an invocation times out.
    ///
    /// It polls instead of being notified of each invocation, which would cost a wake-up for each.
    async fn timed_out(&self) -> FunctionError {
        let process = &self.shared.process;
        let init = process.init_timeout;
        let init_due = Instant::now().checked_add(init);
        loop {
            let now = Instant::now();
            let (due, text, wait) = {
                let current = self.current();
                match &current.invocation {
                    Some(Running { due, limit, .. }) => (*due, timed_out(*limit).message, *limit),
                    None if !current.has_started => {
                        let text = format!(
                            "the process did not request an invocation within {:.2} seconds: check that it polls the \
                             Lambda Runtime API",
                            init.as_secs_f64()
                        );
                        (init_due, text, init)
                    }
                    None => (None, String::new(), process.timeout),
                }
            };
            match due {
                Some(due) if due <= now => return FunctionError::new("Sandbox.Timedout", text),
                // An invocation that began meanwhile is due later than this.
                Some(due) => sleep_until(due.min(far(now, process.timeout))).await,
                None => sleep_until(far(now, wait)).await,
            }
        }
    }

    /// Ends the process if it still runs this invocation.
    pub(super) fn kill(&self, request_id: &str) {
        let mut current = self.current();
        if current.invocation.as_ref().is_some_and(|running| running.request_id == request_id) {
            current.ending = Some(FunctionError::new("Runtime.ExitError", "the process was killed"));
            self.killed.notify_one();
        }
    }

    /// Handles the report that the process cannot start.
    pub(super) fn init_error(&self, error: FunctionError) {
        let mut current = self.current();
        if !current.has_started {
            current.ending = Some(error);
            self.killed.notify_one();
        }
    }

    /// Handles the process's request for an invocation.
    pub(super) fn ask(&self) -> Asking {
        let mut current = self.current();
        if current.ending.is_some() {
            return Asking::Never;
        }
        if current.invocation.is_some() || current.is_asking {
            return Asking::No;
        }
        current.is_asking = true;
        if !std::mem::replace(&mut current.has_started, true) {
            self.shared.ready();
        }
        Asking::Yes
    }

    pub(super) fn stop_asking(&self) {
        self.current().is_asking = false;
    }

    /// Assigns an invocation to the process.
    ///
    /// Returns its time limit and the payload of the job.
    pub(super) fn begin(self: &Arc<Self>, job: Job) -> (Duration, Vec<u8>) {
        let Job { invocation, payload, timeout, reply, runner } = job;
        let limit = timeout.unwrap_or(self.shared.process.timeout);
        let running =
            Running { request_id: invocation.request_id, reply, due: Instant::now().checked_add(limit), limit };
        let mut current = self.current();
        let _ = runner.set(Arc::clone(self));
        let is_awaited = !running.reply.is_closed();
        current.invocation = Some(running);
        if !is_awaited {
            // The caller gave up between the queue and here, when the instance was not known yet.
            current.ending = Some(FunctionError::new("Runtime.ExitError", "the process was killed"));
            self.killed.notify_one();
        }
        (limit, payload)
    }

    /// Sends the outcome to the caller, and returns whether the process had this invocation.
    pub(super) fn finish(&self, id: &str, outcome: Result<Vec<u8>, FunctionError>) -> bool {
        let finished = self.current().invocation.take_if(|running| running.request_id == id);
        let is_known = finished.is_some();
        if let Some(Running { reply, .. }) = finished {
            self.shared.finished();
            let _ = reply.send(outcome);
        }
        is_known
    }
}

/// Returns a moment that is this much later, with a minimum that avoids busy polling.
fn far(now: Instant, wait: Duration) -> Instant {
    let day = Duration::from_secs(24 * 60 * 60);
    now.checked_add(wait.clamp(TOLERANCE, day)).unwrap_or(now)
}

/// Removes an instance from the pool's counts at its end, even if its runtime ends.
struct Life<'a>(&'a Arc<Instance>);

impl Life<'_> {
    fn fail(&self, error: Option<&FunctionError>) {
        if let Some(Running { reply, .. }) = self.0.current().invocation.take() {
            self.0.shared.finished();
            let gone = || FunctionError::new("Runtime.ExitError", "the function's process ended");
            let _ = reply.send(Err(error.cloned().unwrap_or_else(gone)));
        }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.fail(None);
        if self.0.has_started() {
            self.0.shared.ended();
        }
    }
}
