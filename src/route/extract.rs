//! What a handler takes as its arguments.

mod arguments;
mod event;
#[cfg(feature = "push")]
mod sender;
mod state;
#[cfg(feature = "garde")]
mod valid;

use std::sync::Arc;

pub use self::arguments::{Arguments, Function};
#[cfg(feature = "push")]
pub use self::sender::Sender;
pub use self::state::{AuthorizerContext, State};
#[cfg(feature = "garde")]
pub use self::valid::Valid;
use super::Result;
use crate::event::Event;

/// A type that a handler can take as an argument.
///
/// A handler of [`Router::on`](super::Router::on) has up to eight of them. They are made from left to right, and the first error ends that:
/// the handler is not called, and the error is treated as one of its own.
///
/// | argument | is | in |
/// |---|---|---|
/// | [`Connect`](crate::Connect), [`Message<T>`](crate::Message), [`Disconnect`](crate::Disconnect) | the event, a message with its body decoded | its own kind of event |
/// | [`Json<T>`](super::Json) | the body of the message | messages |
/// | `Valid<T>` (feature `garde`) | the body of the message, validated | messages |
/// | `Sender` (feature `push`) | pushes to the client | every event |
/// | `ReplyAddress` (feature `reply`) | where to reply later | `$connect` and messages |
/// | `Caller` (feature `hub`) | the client, with what it does in a hub | every event |
/// | [`State<S>`](State) | what the [router](super::Router::with_state) was made with | every event |
/// | [`ConnectionId`](crate::event::ConnectionId), [`RequestContext`](crate::event::RequestContext) | a part of the event | every event |
/// | [`AuthorizerContext<T>`](AuthorizerContext) | the values of the authorizer | every event |
/// | `Option<T>` | the argument `T`, or `None` for a `T` that is not in this kind of event | every event |
///
/// # Examples
///
/// An argument of your own is made of the event and the state:
///
/// ```
/// use std::sync::Arc;
///
/// use lambda_websocket::route::{Error, FromEvent, StatusCode};
/// use lambda_websocket::{Event, Result, Router};
///
/// /// The name of the client, whom the authorizer has let in.
/// struct Principal(String);
///
/// impl<S: Send + Sync> FromEvent<S> for Principal {
///     async fn from_event(event: &Event, _: &Arc<S>) -> Result<Self> {
///         let name = event.request_context().principal_id();
///         let name = name.ok_or_else(|| Error::client(StatusCode::UNAUTHORIZED, "who are you?"))?;
///         Ok(Self(name.to_owned()))
///     }
/// }
///
/// async fn leave(Principal(name): Principal) -> Result<()> {
///     println!("{name} leaves");
///     Ok(())
/// }
///
/// let router = Router::new().on("leave", leave);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler of a `Router<{S}>`",
    label = "not an argument of a handler",
    note = "a handler takes `Connect`, `Disconnect`, `Message<T>` or `Json<T>` where `T: DeserializeOwned`, `State<{S}>`, and whatever else implements `FromEvent<{S}>`",
    note = "the state of a router is given to `Router::with_state`; that of `Router::new` is `()`"
)]
pub trait FromEvent<S>: Sized + Send + 'static {
    /// The events that have this. Default: all of them.
    const EVENTS: EventKinds = EventKinds::ALL;

    /// Makes the argument of an event and the router's state.
    ///
    /// # Errors
    ///
    /// An [`Error`](super::Error) when the handler is not to be called.
    fn from_event(event: &Event, state: &Arc<S>) -> impl Future<Output = Result<Self>> + Send;
}

/// A set of kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventKinds {
    connect: bool,
    message: bool,
    disconnect: bool,
}

impl EventKinds {
    /// Every kind.
    pub const ALL: Self = Self { connect: true, message: true, disconnect: true };
    /// A client wants to connect.
    pub const CONNECT: Self = Self { connect: true, message: false, disconnect: false };
    /// A client has sent a message.
    pub const MESSAGE: Self = Self { connect: false, message: true, disconnect: false };
    /// A client has disconnected.
    pub const DISCONNECT: Self = Self { connect: false, message: false, disconnect: true };

    /// Returns the kinds that either set has.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            connect: self.connect || other.connect,
            message: self.message || other.message,
            disconnect: self.disconnect || other.disconnect,
        }
    }

    pub(super) const fn contains(self, kind: super::handler::EventKind) -> bool {
        match kind {
            super::handler::EventKind::Connect => self.connect,
            super::handler::EventKind::Message => self.message,
            super::handler::EventKind::Disconnect => self.disconnect,
        }
    }
}
