//! How the gateway calls a function: in this process, at a Lambda Invoke endpoint, or as a process of its own.

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

/// A function that the gateway can call: it takes and returns the same JSON as on AWS.
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
    /// Instead of the function's own timeout, where that is a process.
    timeout: Option<Duration>,
}

/// A function failed instead of answering.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error_type}: {message}")]
pub struct FunctionError {
    pub(super) error_type: String,
    pub(super) message: String,
}

impl FunctionError {
    /// A failure with Lambda's two texts about it.
    ///
    /// An authorizer whose message is exactly `Unauthorized` makes the gateway answer 401.
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Self {
        Self { error_type: error_type.into(), message: message.into() }
    }
}

impl Function {
    /// A function over the bytes of its event and its answer.
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

    /// A router as `lambda_runtime` would run it.
    pub fn router<S: Send + Sync + 'static>(router: Router<S>) -> Self {
        Self::service(router)
    }

    /// An authorizer as `lambda_runtime` would run it.
    pub fn authorizer<F, Fut>(authorize: F) -> Self
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Authorization, Denied>> + Send + 'static,
    {
        Self::service(Authorizer::new(authorize))
    }

    /// Any service that `lambda_runtime` would run, such as a router wrapped in tower layers.
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

    /// A function of this name behind a Lambda Invoke endpoint: `cargo lambda watch`, AWS's runtime interface emulator, or
    /// another emulator, as `http://<host>:<port>`.
    ///
    /// AWS's emulator names its function `function`, and crashes when it is called while it is busy: call it
    /// [one at a time](Self::one_at_a_time).
    ///
    /// # Errors
    ///
    /// [`InvalidInvokeEndpoint`] when the text is not such an address.
    pub fn endpoint(url: &str, name: &str) -> Result<Self, InvalidInvokeEndpoint> {
        let endpoint = Endpoint::new(url, name)?;
        Ok(Self::new(move |invocation, payload| endpoint.clone().invoke(invocation, payload)))
    }

    /// A function as a process that the gateway starts.
    ///
    /// It ends when the last clone of the function does, as it does with the gateway.
    pub fn process(process: Process) -> Self {
        let pool = Arc::new(Pool::new(process));
        let invoked = Arc::clone(&pool);
        let function = Self::from_calls(move |call| {
            let pool = Arc::clone(&invoked);
            async move { pool.invoke(call).await }
        });
        Self { pool: Some(pool), ..function }
    }

    /// The same function, called only when the call before has ended.
    ///
    /// Calls wait for their turn in the order in which they came.
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

    /// Ends an invocation that takes longer, as Lambda does at the timeout of a function.
    ///
    /// It is also the deadline that the function is told. Default: none for a function in this process, which is told the
    /// time that the gateway waits for it. A [process](Self::process) has [a timeout of its own](Process::timeout), which
    /// does not count the time for which an invocation waits for a process that is free.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets the gateway run at most this many invocations of the function at a time. Default: those of the account.
    ///
    /// Lambda throttles those beyond it, as it does with a function's reserved concurrency: a message is answered with
    /// `Internal server error`, and a client that connects is refused.
    #[must_use]
    pub fn with_concurrency(mut self, invocations: usize) -> Self {
        self.concurrency = Some(invocations);
        self
    }

    /// Calls the function as Lambda would, with an event of any kind: for a worker behind a queue, which no gateway calls.
    ///
    /// It is given this time, and ended when that is over or when the call is dropped: a [process](Self::process) is killed.
    ///
    /// # Errors
    ///
    /// [`FunctionError`] when the function fails, or takes longer.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use lambda_websocket::local::Function;
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

    /// Calls the function, to which the gateway gives this much time.
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

    /// Where the function pushes, if it is a process that was not told before.
    pub(super) fn set_endpoint(&self, endpoint: &str) {
        if let Some(pool) = &self.pool {
            pool.set_endpoint(endpoint);
        }
    }

    /// The end of its processes, where it has any.
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
