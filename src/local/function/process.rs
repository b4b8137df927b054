//! A function as a process: its own binary, which the gateway starts and serves the Lambda Runtime API.
//!
//! See [the Runtime API](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).

mod instance;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use self::instance::{Instance, keep_running};
use super::FunctionError;
use crate::event::Invocation;

/// How many invocations wait for an instance, before the next one fails as it does on AWS when it throttles.
const QUEUE: usize = 1024;

/// A function as a process: a `provided` bootstrap in any language, or any program that speaks the Lambda Runtime API.
///
/// The process is started when it is first needed, restarted when it dies, and ends with the gateway. It inherits the
/// environment of this process. What it prints is logged with the function's name.
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::local::{Function, Gateway, Process};
///
/// # async fn start() -> Result<Gateway, Box<dyn std::error::Error>> {
/// let on_connect = Process::new("on-connect", "target/debug/examples/on_connect").env("RUST_LOG", "info");
/// Ok(Gateway::builder("dev").function(["$connect"], Function::process(on_connect)).start().await?)
/// # }
/// ```
#[derive(Clone)]
pub struct Process {
    name: String,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    instances: usize,
}

impl Process {
    /// The function of this name, which is this program.
    pub fn new(name: impl Into<String>, program: impl Into<OsString>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            instances: 1,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable of the environment, beside those that Lambda sets.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts up to this many processes when invocations wait; it is 1 unless set, and at least 1.
    ///
    /// Each handles one invocation at a time, as an execution environment of Lambda does.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances.max(1);
        self
    }

    fn spawn(&self, runtime_api: &str) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
            .env("AWS_LAMBDA_FUNCTION_NAME", &self.name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("_HANDLER", "bootstrap")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Leaves out arguments and environment, which may hold keys.
impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("instances", &self.instances)
            .finish_non_exhaustive()
    }
}

/// The instances of one function, and the invocations that wait for them.
pub(super) struct Pool {
    process: Arc<Process>,
    jobs: mpsc::Sender<Job>,
    waiting: Waiting,
    count: Mutex<Count>,
    /// Dropped with the pool, which ends the instances.
    alive: watch::Sender<()>,
}

type Waiting = Arc<tokio::sync::Mutex<mpsc::Receiver<Job>>>;

#[derive(Default)]
struct Count {
    instances: usize,
    /// Invocations that wait or run.
    invocations: usize,
}

struct Job {
    invocation: Invocation,
    payload: Vec<u8>,
    reply: Reply,
    runner: Runner,
}

/// The instance that runs an invocation, once one does.
type Runner = Arc<OnceLock<Instance>>;

type Reply = oneshot::Sender<Result<Vec<u8>, FunctionError>>;

impl Pool {
    pub(super) fn new(process: Process) -> Self {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        Self {
            process: Arc::new(process),
            jobs,
            waiting: Arc::new(tokio::sync::Mutex::new(waiting)),
            count: Mutex::default(),
            alive: watch::Sender::new(()),
        }
    }

    pub(super) async fn invoke(&self, invocation: Invocation, payload: Vec<u8>) -> Result<Vec<u8>, FunctionError> {
        let (reply, answer) = oneshot::channel();
        let runner = Runner::default();
        let mut dropped = OnDrop { request_id: Some(invocation.request_id.clone()), runner: Arc::clone(&runner) };
        if self.jobs.try_send(Job { invocation, payload, reply, runner }).is_err() {
            return Err(FunctionError::new("TooManyRequestsException", "too many invocations wait for the function"));
        }
        let _counted = Counted::new(self);
        let answer = answer.await;
        dropped.request_id = None;
        answer.unwrap_or_else(|_| Err(FunctionError::new("Runtime.ExitError", "the function's process ended")))
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An invocation that waits or runs. One more than there are instances starts another instance.
struct Counted<'a>(&'a Pool);

impl<'a> Counted<'a> {
    fn new(pool: &'a Pool) -> Self {
        let mut count = pool.count();
        count.invocations = count.invocations.saturating_add(1);
        if count.invocations > count.instances && count.instances < pool.process.instances {
            count.instances = count.instances.saturating_add(1);
            let instance = Instance::new(Arc::clone(&pool.waiting));
            tokio::spawn(keep_running(Arc::clone(&pool.process), instance, pool.alive.subscribe()));
        }
        Self(pool)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut count = self.0.count();
        count.invocations = count.invocations.saturating_sub(1);
    }
}

/// An invocation that is dropped before its answer came takes the process with it that runs it.
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
