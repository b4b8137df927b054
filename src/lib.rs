//! x
#![warn(missing_docs)]
pub mod authorizer;
pub mod event;
pub mod route;
pub use event::{Connect, Disconnect, Event, Message};
pub use route::{Json, Response, Result, Route, Router};
