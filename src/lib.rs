//! x
#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
pub mod authorizer;
pub mod event;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "push")]
pub mod push;
pub mod route;
#[cfg(feature = "runtime")]
mod runtime;
pub use event::{Connect, Disconnect, Event, Message};
#[cfg(feature = "push")]
pub use push::Pusher;
pub use route::{Json, Response, Result, Route, Router};
#[cfg(feature = "runtime")]
pub use runtime::run;
