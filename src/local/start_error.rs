//! Why a gateway does not start.

use std::fmt;
use std::io;

use super::{InvalidIdentitySource, InvalidRouteSelection};
use crate::event::InvalidId;

/// The gateway could not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {}", reason(.source))]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A stage, a route key or another name is not legal.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// API Gateway keeps the path of this stage, `ping` or `sping`, for itself.
    #[error("the stage cannot be named {stage:?}: API Gateway reserves the paths /ping and /sping")]
    ReservedStage {
        /// The stage.
        stage: String,
    },
    /// A route has two functions.
    #[error("the route {key:?} has two functions")]
    TwoFunctions {
        /// The route.
        key: String,
    },
    /// A route that has a route response or a timeout does not exist.
    #[error("the route {key:?} has no function")]
    NoFunction {
        /// The route.
        key: String,
    },
    /// An identity source of the authorizer is not one.
    #[error(transparent)]
    IdentitySource(#[from] InvalidIdentitySource),
    /// The route selection expression is not one.
    #[error(transparent)]
    RouteSelection(#[from] InvalidRouteSelection),
}

/// The same text as `Display`: it is what a `main` prints that returns the error.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program already does; choose another port, or 0 for any free one".to_owned()
        }
        _ => error.to_string(),
    }
}
