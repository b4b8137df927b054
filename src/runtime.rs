//! Running as a Lambda function: tower services, and the loop of `lambda_runtime`.

use std::env;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use lambda_runtime::{Diagnostic, LambdaEvent};
use tower_service::Service;

use crate::authorizer::{self, Authorization, Authorizer, Denied};
use crate::event::{Event, Invocation, within_deadline};
use crate::route::{Error, Response, Router};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs a [`Router`], or a router wrapped in tower layers, as a Lambda function.
///
/// # Errors
///
/// When the process does not run in Lambda, and when the Lambda runtime ends with an error.
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
    S: Service<LambdaEvent<Event>, Response = Response>,
    S::Future: Future<Output = Result<Response, S::Error>>,
    S::Error: Into<Diagnostic> + fmt::Debug,
{
    check_environment()?;
    lambda_runtime::run(service).await
}

/// Runs a function as the REQUEST authorizer of a WebSocket API.
///
/// # Errors
///
/// When the process does not run in Lambda, and when the Lambda runtime ends with an error.
pub async fn run_authorizer<F, Fut>(authorize: F) -> Result<(), lambda_runtime::Error>
where
    F: Fn(authorizer::Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Authorization, Denied>> + Send + 'static,
{
    check_environment()?;
    lambda_runtime::run(Authorizer::new(authorize)).await
}

/// `lambda_runtime` panics when one of these is missing.
fn check_environment() -> Result<(), NotInLambda> {
    const NEEDED: [&str; 4] = [
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_VERSION",
    ];
    match NEEDED.into_iter().find(|name| env::var_os(name).is_none()) {
        Some(missing) => Err(NotInLambda { missing }),
        None => match env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").unwrap_or_default().parse::<i32>() {
            Ok(_) => Ok(()),
            Err(_) => Err(NotInLambda { missing: "AWS_LAMBDA_FUNCTION_MEMORY_SIZE as a number" }),
        },
    }
}

/// The process was not started by Lambda.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is a Lambda function, and Lambda did not start it: {missing} is not set; on your own machine run it with \
     `cargo lambda watch`, or put it behind `lambda_websocket::local::Gateway`"
)]
struct NotInLambda {
    missing: &'static str,
}

fn invocation(context: lambda_runtime::Context) -> Invocation {
    let deadline = UNIX_EPOCH.checked_add(Duration::from_millis(context.deadline)).unwrap_or(UNIX_EPOCH);
    Invocation::new(context.request_id, deadline)
}

impl Service<LambdaEvent<Event>> for Router {
    type Response = Response;
    type Error = Error;
    type Future = BoxFuture<Result<Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: LambdaEvent<Event>) -> Self::Future {
        let invocation = invocation(event.context);
        let deadline = invocation.deadline;
        Box::pin(within_deadline(deadline, self.handle(event.payload.with_invocation(invocation))))
    }
}

impl<F, Fut> Service<LambdaEvent<authorizer::Request>> for Authorizer<F>
where
    F: Fn(authorizer::Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Authorization, Denied>> + Send + 'static,
{
    type Response = authorizer::Response;
    type Error = authorizer::Failure;
    type Future = BoxFuture<Result<authorizer::Response, authorizer::Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), authorizer::Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: LambdaEvent<authorizer::Request>) -> Self::Future {
        let invocation = invocation(event.context);
        Box::pin(self.handle(event.payload.with_invocation(invocation)))
    }
}

/// The error type is always `lambda_websocket::Error`; the message is the error with its sources.
impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self { error_type: "lambda_websocket::Error".to_owned(), error_message: error.chain().to_string() }
    }
}

/// The message of a 401 is exactly `Unauthorized`, which is how API Gateway knows it.
impl From<authorizer::Failure> for Diagnostic {
    fn from(failure: authorizer::Failure) -> Self {
        let error_type = match failure {
            authorizer::Failure::Unauthorized => "Unauthorized",
            authorizer::Failure::Failed(_) => "lambda_websocket::authorizer::Failure",
        };
        Self { error_type: error_type.to_owned(), error_message: failure.to_string() }
    }
}
