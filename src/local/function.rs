//! Functions that the gateway calls: in this process, at a Lambda Invoke endpoint, or as processes.

mod endpoint;
mod process;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use lambda_runtime::{Context, Diagnostic, LambdaEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tower_service::Service;

use self::endpoint::Endpoint;
pub use self::endpoint::InvalidInvokeEndpoint;
pub(super) use self::process::Ending;
use self::process::Pool;
pub use self::process::Process;
use crate::authorizer::{Authorization, Authorizer, Denied, Request};
use crate::clock;
use crate::event::Invocation;
use crate::route::Router;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Invoke = dyn Fn(Call) -> BoxFuture<Result<Vec<u8>, FunctionError>> + Send + Sync;

/// A function that the gateway can call, with the same JSON as on AWS.
///
/// Clones are cheap and share the function.
#[derive(Clone)]
pub struct Function {
    invoke: Arc<Invoke>,
    pool: Option<Arc<Pool>>,
    timeout: Option<Duration>,
    concurrency: Option<usize>,
}

/// One call of a function.
struct Call {
    invocation: Invocation,
    payload: Vec<u8>,
    /// Overrides the function's own timeout if it is a process.
    timeout: Option<Duration>,
}

/// An error that a function reports instead of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error_type}: {message}")]
pub struct FunctionError {
    pub(super) error_type: String,
    pub(super) message: String,
}

impl FunctionError {
    /// Creates an error with Lambda's error type and message.
    ///
    /// If an authorizer fails with the exact message `Unauthorized`, the gateway responds with 401.
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self { error_type: error_type.into(), message: message.into() }
    }
}

impl Function {
    /// Creates a function from a closure over the bytes of the event and the response.
    pub fn new<F, Fut>(function: F) -> Self
    where
        F: Fn(Invocation, Vec<u8>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<u8>, FunctionError>> + Send + 'static,
    {
        Self::from_calls(move |Call { invocation, payload, .. }| function(invocation, payload))
    }

    fn from_calls<F, Fut>(function: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<u8>, FunctionError>> + Send + 'static,
    {
        let invoke = Arc::new(move |call| Box::pin(function(call)) as BoxFuture<_>);
        Self { invoke, pool: None, timeout: None, concurrency: None }
    }

    /// Creates a function that runs a router like `lambda_runtime` does.
    pub fn router<S: Send + Sync + 'static>(router: Router<S>) -> Self {
        Self::service(router)
    }

    /// Creates a function that runs an authorizer like `lambda_runtime` does.
    pub fn authorizer<F, Fut>(authorize: F) -> Self
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Authorization, Denied>> + Send + 'static,
    {
        Self::service(Authorizer::new(authorize))
    }

    /// Creates a function from any service that `lambda_runtime` can run.
    ///
    /// An example is a router wrapped in tower layers.
    pub fn service<S, E>(service: S) -> Self
    where
        S: Service<LambdaEvent<E>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Response: Serialize,
        S::Error: Into<Diagnostic>,
        E: DeserializeOwned + Send,
    {
        Self::new(move |invocation, payload| {
            let service = service.clone();
            async move { call(service, invocation, &payload).await }
        })
    }

    /// Creates a function that calls a Lambda Invoke endpoint at `http://<host>:<port>`.
    ///
    /// The endpoint is `cargo lambda watch`, AWS's runtime interface emulator, or another emulator,
    /// and `name` is the name of the function there. AWS's emulator names its function `function`,
    /// and crashes if it is called while busy: call it [one at a time](Self::one_at_a_time).
    ///
    /// # Errors
    ///
    /// [`InvalidInvokeEndpoint`] if the URL is not such an address.
    pub fn endpoint(url: &str, name: &str) -> Result<Self, InvalidInvokeEndpoint> {
        let endpoint = Endpoint::new(url, name)?;
        Ok(Self::new(move |invocation, payload| endpoint.clone().invoke(invocation, payload)))
    }

    /// Creates a function that runs as a process, which the gateway starts.
    ///
    /// The process ends when the last clone of the function is dropped. The gateway drops its clone
    /// when it stops.
    pub fn process(process: Process) -> Self {
        let pool = Arc::new(Pool::new(process));
        let invoked = Arc::clone(&pool);
        let function = Self::from_calls(move |call| {
            let pool = Arc::clone(&invoked);
            async move { pool.invoke(call).await }
        });
        Self { pool: Some(pool), ..function }
    }

    /// Returns the same function, limited to one invocation at a time.
    ///
    /// Further invocations wait in the order in which they came.
    #[must_use]
    pub fn one_at_a_time(self) -> Self {
        let turn = Arc::new(Mutex::new(()));
        let (invoke, pool) = (Arc::clone(&self.invoke), self.pool.clone());
        let function = Self::from_calls(move |call| {
            let (invoke, turn) = (Arc::clone(&invoke), Arc::clone(&turn));
            async move {
                let _turn = turn.lock().await;
                invoke(call).await
            }
        });
        Self { pool, timeout: self.timeout, concurrency: self.concurrency, ..function }
    }

    /// Sets the time after which an invocation is ended, like Lambda's function timeout.
    ///
    /// It also determines the deadline that the function receives. Default: no timeout for a
    /// function in this process, whose deadline is the time that the gateway waits for it. A
    /// [process](Self::process) has [its own timeout](Process::timeout), which excludes the time
    /// that an invocation waits for a free process.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Limits the concurrent invocations of the function. Default: the limit of the account.
    ///
    /// Further invocations are throttled, like with Lambda's reserved concurrency: a client that
    /// sends a message receives `Internal server error`, and a client that connects is refused.
    #[must_use]
    pub fn with_concurrency(mut self, invocations: usize) -> Self {
        self.concurrency = Some(invocations);
        self
    }

    /// Calls the function as Lambda would, with any event.
    ///
    /// Use it for a function that no gateway calls, such as a worker behind a queue. The invocation
    /// ends after `time`, or when the call is dropped; a [process](Self::process) is then killed.
    ///
    /// # Errors
    ///
    /// [`FunctionError`] if the function fails, panics, or takes longer than `time`.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::local::Function;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), lambda_websocket::local::FunctionError> {
    /// let echo = Function::new(|_, event| async { Ok(event) });
    /// assert_eq!(echo.call(b"{}".to_vec(), Duration::from_secs(5)).await?, b"{}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call(&self, event: Vec<u8>, time: Duration) -> Result<Vec<u8>, FunctionError> {
        let now = clock::now();
        let request_id = format!("{:032x}", rand::random::<u128>());
        let invocation = Invocation::new(request_id, now.checked_add(time).unwrap_or(now));
        let running = (self.invoke)(Call { invocation, payload: event, timeout: Some(time) });
        match timeout(time, AssertUnwindSafe(running).catch_unwind()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(FunctionError::new("Panic", "the function panicked")),
            Err(_) => Err(timed_out(time)),
        }
    }

    /// Calls the function, for which the gateway waits up to `limit`.
    pub(super) fn invoke(
        &self,
        request_id: String,
        payload: Vec<u8>,
        limit: Duration,
    ) -> impl Future<Output = Result<Vec<u8>, FunctionError>> + Send + 'static {
        let now = clock::now();
        let deadline = now.checked_add(self.timeout.unwrap_or(limit)).unwrap_or(now);
        let call = Call { invocation: Invocation::new(request_id, deadline), payload, timeout: None };
        let (running, own) = ((self.invoke)(call), self.timeout);
        async move {
            match own {
                None => running.await,
                Some(own) => timeout(own, running).await.unwrap_or_else(|_| Err(timed_out(own))),
            }
        }
    }

    pub(super) fn concurrency(&self) -> Option<usize> {
        self.concurrency
    }

    /// Sets where the function pushes, if it is a process without an endpoint.
    pub(super) fn set_endpoint(&self, endpoint: &str) {
        if let Some(pool) = &self.pool {
            pool.set_endpoint(endpoint);
        }
    }

    /// Returns a handle to wait for the end of its processes, if it has any.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.pool.as_ref().map(|pool| pool.ending())
    }
}

fn timed_out(limit: Duration) -> FunctionError {
    let text = format!("the function timed out after {:.2} seconds", limit.as_secs_f64());
    FunctionError::new("Sandbox.Timedout", text)
}

async fn call<S, E>(mut service: S, invocation: Invocation, payload: &[u8]) -> Result<Vec<u8>, FunctionError>
where
    S: Service<LambdaEvent<E>>,
    S::Response: Serialize,
    S::Error: Into<Diagnostic>,
    E: DeserializeOwned,
{
    let event: E =
        serde_json::from_slice(payload).map_err(|error| FunctionError::new("InvalidEvent", error.to_string()))?;
    let event = LambdaEvent::new(event, context(&invocation));
    let failed = |error: S::Error| {
        let Diagnostic { error_type, error_message } = error.into();
        FunctionError::new(error_type, error_message)
    };
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    let answer = service.call(event).await.map_err(failed)?;
    serde_json::to_vec(&answer).map_err(|error| FunctionError::new("InvalidAnswer", error.to_string()))
}

fn context(invocation: &Invocation) -> Context {
    let since: SystemTime = invocation.deadline;
    let deadline = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut context = Context::default();
    context.request_id.clone_from(&invocation.request_id);
    context.deadline = u64::try_from(deadline).unwrap_or(u64::MAX);
    context
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").finish_non_exhaustive()
    }
}
