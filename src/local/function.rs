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
use self::process::Pool;
pub use self::process::Process;
use crate::authorizer::{Authorization, Authorizer, Denied, Request};
use crate::event::Invocation;
use crate::route::Router;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Invoke = dyn Fn(Invocation, Vec<u8>) -> BoxFuture<Result<Vec<u8>, FunctionError>> + Send + Sync;

/// A function that the gateway can call: it takes and returns the same JSON as on AWS.
///
/// Clones are cheap and share the function.
#[derive(Clone)]
pub struct Function(Arc<Invoke>);

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
        Self(Arc::new(move |invocation, payload| Box::pin(function(invocation, payload))))
    }

    /// A router as `lambda_runtime` would run it.
    pub fn router(router: Router) -> Self {
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
        Self::new(move |invocation, payload| {
            let pool = Arc::clone(&pool);
            async move { pool.invoke(invocation, payload).await }
        })
    }

    /// The same function, called only when the call before has ended.
    ///
    /// Calls wait for their turn in the order in which they came.
    #[must_use]
    pub fn one_at_a_time(self) -> Self {
        let turn = Arc::new(Mutex::new(()));
        Self::new(move |invocation, payload| {
            let (function, turn) = (self.clone(), Arc::clone(&turn));
            async move {
                let _turn = turn.lock().await;
                function.invoke(invocation, payload).await
            }
        })
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
        let now = SystemTime::now();
        let request_id = format!("{:032x}", rand::random::<u128>());
        let running = self.invoke(Invocation::new(request_id, now.checked_add(time).unwrap_or(now)), event);
        match timeout(time, AssertUnwindSafe(running).catch_unwind()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(FunctionError::new("Panic", "the function panicked")),
            Err(_) => Err(FunctionError::new("Sandbox.Timedout", "the function took too long")),
        }
    }

    pub(super) fn invoke(&self, invocation: Invocation, payload: Vec<u8>) -> BoxFuture<Result<Vec<u8>, FunctionError>> {
        (self.0)(invocation, payload)
    }
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
