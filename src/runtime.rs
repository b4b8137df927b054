//! The Lambda runtime: its environment, and the invocation that it describes.

use std::env;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use crate::clock;
use crate::event::Invocation;
use crate::quotas;

/// Checks the environment, because `lambda_runtime` panics if a variable is missing.
pub(crate) fn check_environment() -> Result<(), NotInLambda> {
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
#[derive(thiserror::Error)]
#[error(
    "this is a Lambda function, and Lambda did not start it: {missing} is not set; on your own machine run it with \
     `cargo lambda watch`, or put it behind `lambda_websocket::local::Gateway`"
)]
pub(crate) struct NotInLambda {
    missing: &'static str,
}

/// Same output as `Display`, because `main` prints the `Debug` form of an error that it returns.
impl fmt::Debug for NotInLambda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the invocation that a function's context describes.
///
/// `cargo lambda watch` sets deadlines in 1970. No invocation starts after its deadline, so such a
/// deadline is ignored.
pub(crate) fn invocation(context: lambda_runtime::Context) -> Invocation {
    let now = clock::now();
    let deadline = UNIX_EPOCH.checked_add(Duration::from_millis(context.deadline)).filter(|deadline| *deadline > now);
    let deadline = deadline.or_else(|| now.checked_add(quotas::INTEGRATION_TIMEOUT)).unwrap_or(now);
    let mut invocation = Invocation::new(context.request_id, deadline);
    invocation.trace = context.xray_trace_id.and_then(|trace| trace.parse().ok());
    invocation
}
