//! Errors that prevent a gateway from starting.

use std::fmt;
use std::io;

use super::{InvalidIdentitySource, InvalidRouteSelection};
use crate::event::InvalidId;

/// An error returned when a gateway cannot start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The gateway cannot listen on the address.
    #[error("cannot listen on {address}: {}", reason(.source))]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// A stage, a route key, or another name is invalid.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// API Gateway reserves the path of this stage: `ping` or `sping`.
    #[error("the stage cannot be named {stage:?}: API Gateway reserves the paths /ping and /sping")]
    ReservedStage {
        /// The name of the stage.
        stage: String,
    },
    /// A route has two functions.
    #[error("the route {key:?} has two functions")]
    TwoFunctions {
        /// The route key.
        key: String,
    },
    /// A route with a route response or a timeout has no function.
    #[error("the route {key:?} has no function")]
    NoFunction {
        /// The route key.
        key: String,
    },
    /// An identity source of the authorizer is invalid.
    #[error(transparent)]
    IdentitySource(#[from] InvalidIdentitySource),
    /// The route selection expression is invalid.
    #[error(transparent)]
    RouteSelection(#[from] InvalidRouteSelection),
}

/// Prints the same text as `Display`, because a `main` that returns the error prints `Debug`.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use; choose another port, or 0 for any free port".to_owned(),
        _ => error.to_string(),
    }
}
