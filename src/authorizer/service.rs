//! An authorizer as a Lambda function: a tower service, run by `lambda_runtime`.

use std::pin::Pin;
use std::task::{Context, Poll};

use lambda_runtime::{Diagnostic, LambdaEvent};
use tower_service::Service;

use super::{Authorization, Authorizer, AuthorizerError, Denied, Request, Response};
use crate::runtime::{check_environment, invocation};

/// Runs a function as the REQUEST authorizer of a WebSocket API.
///
/// On Lambda Managed Instances, invocations run concurrently, as with
/// [`lambda_websocket::run`](crate::run).
///
/// # Errors
///
/// Returns an error if the process does not run in Lambda, or if the Lambda runtime fails.
pub async fn run<F, Fut>(authorize: F) -> Result<(), lambda_runtime::Error>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Authorization, Denied>> + Send + 'static,
{
    check_environment()?;
    lambda_runtime::run_concurrent(Authorizer::new(authorize)).await
}

impl<F, Fut> Service<LambdaEvent<Request>> for Authorizer<F>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Authorization, Denied>> + Send + 'static,
{
    type Response = Response;
    type Error = AuthorizerError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, AuthorizerError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AuthorizerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: LambdaEvent<Request>) -> Self::Future {
        let invocation = invocation(event.context);
        Box::pin(self.handle(event.payload.with_invocation(invocation)))
    }
}

/// The error message of a 401 is exactly `Unauthorized`, which API Gateway looks for.
impl From<AuthorizerError> for Diagnostic {
    fn from(failure: AuthorizerError) -> Self {
        let error_type = match failure {
            AuthorizerError::Unauthorized => "Unauthorized",
            AuthorizerError::Failed(_) => "lambda_websocket::authorizer::AuthorizerError",
        };
        Self { error_type: error_type.to_owned(), error_message: failure.to_string() }
    }
}
