//! Runs a router as a Lambda function: a tower service for `lambda_runtime`.

use std::fmt;
use std::task::{Context, Poll};

use lambda_runtime::{Diagnostic, LambdaEvent};
use tower_service::Service;

use super::handler::BoxFuture;
use super::{Error, FailedInvocation, Response, Result, Router};
use crate::event::{Event, within_deadline};
use crate::runtime::{check_environment, invocation};

/// Runs a [`Router`], or a router wrapped in tower layers, as a Lambda function.
///
/// On [Lambda Managed
/// Instances](https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances.html), an
/// execution environment runs up to `AWS_LAMBDA_MAX_CONCURRENCY` invocations concurrently. Each has
/// its own clone of the service, its own deadline and its own span. Elsewhere it runs one
/// invocation at a time.
///
/// # Errors
///
/// A `lambda_runtime::Error` if the environment variables that Lambda sets are missing, or if the
/// Lambda runtime fails.
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::{Message, Router};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), lambda_runtime::Error> {
///     let router = Router::new().on("$default", |message: Message| async move {
///         println!("{} bytes", message.body.as_bytes().len());
///         Ok(())
///     });
///     lambda_websocket::run(router).await
/// }
/// ```
pub async fn run<S>(service: S) -> Result<(), lambda_runtime::Error>
where
    S: Service<LambdaEvent<Event>, Response = Response> + Clone + Send + 'static,
    S::Future: Future<Output = Result<Response, S::Error>> + Send + 'static,
    S::Error: Into<Diagnostic> + fmt::Debug,
{
    check_environment()?;
    lambda_runtime::run_concurrent(service).await
}

impl<S: Send + Sync + 'static> Service<LambdaEvent<Event>> for Router<S> {
    type Response = Response;
    type Error = FailedInvocation;
    type Future = BoxFuture<Result<Response, FailedInvocation>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), FailedInvocation>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: LambdaEvent<Event>) -> Self::Future {
        let invocation = invocation(event.context);
        let deadline = invocation.deadline;
        Box::pin(within_deadline(deadline, self.handle(event.payload.with_invocation(invocation))))
    }
}

/// Creates a diagnostic of the error type `lambda_websocket::Error`.
///
/// Its message is the error with its sources.
impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self { error_type: "lambda_websocket::Error".to_owned(), error_message: error.chain().to_string() }
    }
}

impl From<FailedInvocation> for Diagnostic {
    fn from(failed: FailedInvocation) -> Self {
        failed.into_error().into()
    }
}
