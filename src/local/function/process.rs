//! A function as a process: the gateway starts a binary and serves it the Lambda Runtime API.
//!
//! See [the Runtime API](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).

mod group;
mod instance;
mod output;
mod pool;
mod runtime_api;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use tokio::process::Command;

pub(in super::super) use self::pool::Ending;
pub(super) use self::pool::Pool;
use crate::clock;

/// A function that runs as a process with the Lambda Runtime API.
///
/// The program is a `provided` bootstrap in any language, or any other program that uses the
/// Runtime API.
///
/// The process starts when an invocation needs it. If it has died, hung, or failed to start, the
/// next invocation starts a new one. It ends with the gateway: on Unix, its process group receives
/// SIGTERM, and SIGKILL half a second later. Its output is logged at the level `INFO` with the
/// target `lambda_websocket::function`.
///
/// The process inherits the environment of this process, including credentials, unless you
/// [clear](Self::env_clear) it. The gateway sets the variables that Lambda sets, a region if none
/// is inherited (`us-east-1`), and `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`, so that an AWS SDK
/// pushes through the gateway.
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::local::{Function, Gateway, Process};
///
/// # async fn start() -> Result<Gateway, Box<dyn std::error::Error>> {
/// let on_connect = Process::new("on-connect", "target/debug/examples/on_connect")
///     .env("RUST_LOG", "info");
/// Ok(Gateway::builder("dev")
///     .function(["$connect"], Function::process(on_connect))
///     .start()
///     .await?)
/// # }
/// ```
#[derive(Clone)]
pub struct Process {
    name: String,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    inherits_environment: bool,
    folder: Option<PathBuf>,
    memory: u32,
    instances: usize,
    timeout: Duration,
    init_timeout: Duration,
}

impl Process {
    /// Lambda's default function timeout: 3 seconds.
    pub const TIMEOUT: Duration = Duration::from_secs(3);
    /// Lambda's maximum duration of the start of a function: 10 seconds.
    pub const INIT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Lambda's default memory size, in megabytes.
    const MEMORY: u32 = 128;

    /// Creates a function with this name that runs this program.
    pub fn new(name: impl Into<String>, program: impl Into<OsString>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            inherits_environment: true,
            folder: None,
            memory: Self::MEMORY,
            instances: 1,
            timeout: Self::TIMEOUT,
            init_timeout: Self::INIT_TIMEOUT,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable, which overrides one that the gateway sets.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Clears the environment inherited from this process, except `PATH`.
    ///
    /// Default: the function inherits everything, including your AWS credentials and `AWS_PROFILE`.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.inherits_environment = false;
        self
    }

    /// Sets the working directory, which is also `LAMBDA_TASK_ROOT`. Default: that of this process.
    #[must_use]
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets the memory size in megabytes that the function is told. Default: 128.
    ///
    /// The gateway does not enforce it.
    #[must_use]
    pub fn memory(mut self, megabytes: u32) -> Self {
        self.memory = megabytes;
        self
    }

    /// Sets the maximum number of processes. Default and minimum: 1.
    ///
    /// Processes start when invocations wait. Each handles one invocation at a time, like an
    /// execution environment of Lambda.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances.max(1);
        self
    }

    /// Sets the time after which a running invocation is killed. Default:
    /// [3 seconds](Self::TIMEOUT).
    ///
    /// The invocation fails as on AWS, and the next one gets a new process. The time starts when
    /// the process receives the invocation, and determines the deadline that the function receives.
    /// A function that hangs is therefore busy for this time, even if the gateway has already given
    /// up on it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long a start may take. Default: [10 seconds](Self::INIT_TIMEOUT).
    ///
    /// A process that has not requested its first invocation by then is killed.
    #[must_use]
    pub fn init_timeout(mut self, timeout: Duration) -> Self {
        self.init_timeout = timeout;
        self
    }

    /// Returns the ARN that its invocations carry.
    fn arn(&self) -> String {
        format!("arn:aws:lambda:us-east-1:123456789012:function:{}", self.name)
    }

    /// Returns the command that starts the process; `endpoint` is where it pushes.
    fn command(&self, runtime_api: &str, endpoint: Option<&str>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if !self.inherits_environment {
            command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
        }
        let folder = self.folder.clone().or_else(|| env::current_dir().ok()).unwrap_or_default();
        let day = Timestamp::try_from(clock::now()).unwrap_or_default().strftime("%Y/%m/%d").to_string();
        command
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
            .env("AWS_LAMBDA_FUNCTION_NAME", &self.name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", self.memory.to_string())
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", self.name))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("{day}/[$LATEST]{:032x}", rand::random::<u128>()))
            .env("AWS_EXECUTION_ENV", "AWS_Lambda_local")
            .env("LAMBDA_TASK_ROOT", &folder)
            .env("LAMBDA_RUNTIME_DIR", &folder)
            .env("TZ", ":UTC")
            .env("_HANDLER", "bootstrap");
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| self.variable(name));
        let region = region.into_iter().flatten().next().unwrap_or_else(|| "us-east-1".into());
        command.env("AWS_REGION", &region).env("AWS_DEFAULT_REGION", &region);
        if let Some(endpoint) = endpoint {
            command.env("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", endpoint);
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    /// Returns the function's value of a variable that Lambda sets too.
    fn variable(&self, name: &str) -> Option<OsString> {
        let own =
            self.environment.iter().rev().find(|(set, _)| set == OsStr::new(name)).map(|(_, value)| value.clone());
        own.or_else(|| env::var_os(name).filter(|_| self.inherits_environment))
    }
}

/// Omits arguments and environment, which may contain secrets.
impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("instances", &self.instances)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
