//! The arguments of a handler.

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
/// A handler of [`Router::on`](super::Router::on) has up to eight of them. They are extracted from
/// left to right. On the first error the handler is not called, and the error is treated as its
/// own.
///
/// | argument | value | available in |
/// |---|---|---|
/// | [`Connect`](crate::Connect), [`Message<T>`](crate::Message), [`Disconnect`](crate::Disconnect) | the event, with the body of a message decoded | events of that type |
/// | [`Json<T>`](super::Json) | the body of the message, decoded | messages |
/// | `Valid<T>` (feature `garde`) | the body of the message, decoded and validated | messages |
/// | `Sender` (feature `push`) | pushes to the client | every event |
/// | `ReplyAddress` (feature `reply`) | the address for a later reply | `$connect` and messages |
/// | `Caller` (feature `hub`) | the client, with its operations on a hub | every event |
/// | [`State<S>`](State) | the state of the [router](super::Router::with_state) | every event |
/// | [`ConnectionId`](crate::event::ConnectionId), [`RequestContext`](crate::event::RequestContext) | a part of the event | every event |
/// | [`AuthorizerContext<T>`](AuthorizerContext) | the authorizer's context | every event |
/// | `Option<T>` | the argument `T`, or `None` if this type of event does not provide it | every event |
///
/// # Examples
///
/// Your own type, extracted from the event and the state:
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
///         let name = name.ok_or_else(|| {
///             Error::client(StatusCode::UNAUTHORIZED, "who are you?")
///         })?;
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
    note = "a handler takes `Connect`, `Disconnect`, `Message<T>` or `Json<T>` where `T: DeserializeOwned`, `State<{S}>`, and any other type that implements `FromEvent<{S}>`",
    note = "pass the state of a router to `Router::with_state`; that of `Router::new` is `()`"
)]
pub trait FromEvent<S>: Sized + Send + 'static {
    /// The types of event that provide this argument. Default: all of them.
    const EVENTS: EventKinds = EventKinds::ALL;

    /// Extracts the argument from the event and the router's state.
    ///
    /// # Errors
    ///
    /// An [`Error`](super::Error) if the argument cannot be extracted. The handler is then not
    /// called.
    fn from_event(event: &Event, state: &Arc<S>) -> impl Future<Output = Result<Self>> + Send;
}

/// A set of event types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventKinds {
    connect: bool,
    message: bool,
    disconnect: bool,
}

impl EventKinds {
    /// All event types.
    pub const ALL: Self = Self { connect: true, message: true, disconnect: true };
    /// Connect events only.
    pub const CONNECT: Self = Self { connect: true, message: false, disconnect: false };
    /// Messages only.
    pub const MESSAGE: Self = Self { connect: false, message: true, disconnect: false };
    /// Disconnect events only.
    pub const DISCONNECT: Self = Self { connect: false, message: false, disconnect: true };

    /// Returns the union of both sets.
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
