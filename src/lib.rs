//! x
#![warn(missing_docs)]
pub mod authorizer;
pub mod event;
#[cfg(feature = "push")]
pub mod push;
pub mod route;
#[cfg(feature = "runtime")]
mod runtime;
pub use event::{Connect, Disconnect, Event, Message};
pub use route::{Json, Response, Result, Route, Router};
#[cfg(feature = "push")]
pub use push::Pusher;
#[cfg(feature = "runtime")]
pub use runtime::run;
