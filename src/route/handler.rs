//! Type-erased routes, so that a router can hold routes of different types.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use super::extract::{Arguments, Function};
use super::response::{Reply, Response};
use super::{Error, Result, Route};
use crate::event::{Body, Connect, Disconnect, Event, InvalidBody, Message, RouteKey};

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(super) const ILLEGAL_KEY: &str =
    "a route key is `$connect`, `$disconnect`, `$default`, or 1 to 128 bytes that do not start with `$`";

pub(super) trait Handler: Send + Sync {
    fn call(&self, event: Event) -> BoxFuture<Result<Response>>;
}

pub(super) struct RouteHandler<R>(Arc<R>);

impl<R: Route> RouteHandler<R> {
    pub(super) fn new(route: R) -> Self {
        Self(Arc::new(route))
    }
}

impl<R: Route> Handler for RouteHandler<R> {
    fn call(&self, event: Event) -> BoxFuture<Result<Response>> {
        let route = Arc::clone(&self.0);
        Box::pin(async move {
            let reply = route.handle(R::Event::take(event)?).await?;
            reply.into_response()
        })
    }
}

/// An async function, with the state from which its arguments are extracted.
pub(super) struct FunctionHandler<F, A, S> {
    function: Arc<F>,
    state: Arc<S>,
    arguments: PhantomData<fn(A)>,
}

impl<F, A, S> FunctionHandler<F, A, S> {
    pub(super) fn new(function: F, state: Arc<S>) -> Self {
        Self { function: Arc::new(function), state, arguments: PhantomData }
    }
}

impl<F, A, S, R> Handler for FunctionHandler<F, A, S>
where
    S: Send + Sync + 'static,
    A: Arguments<S>,
    F: Function<A>,
    F::Future: Future<Output = Result<R>> + Send + 'static,
    R: Reply,
{
    fn call(&self, event: Event) -> BoxFuture<Result<Response>> {
        let (function, state) = (Arc::clone(&self.function), Arc::clone(&self.state));
        Box::pin(async move {
            let arguments = A::from_event(&event, &state).await?;
            drop((event, state));
            function.call(arguments).await?.into_response()
        })
    }
}

/// An event that a route can take.
///
/// It is [`Connect`], [`Disconnect`], [`Message<T>`](Message) with `T: DeserializeOwned`, or
/// [`Message`] with the body undecoded.
///
/// The trait is sealed: API Gateway sends no other events.
#[diagnostic::on_unimplemented(
    message = "a route cannot take `{Self}`",
    label = "not an event of a route",
    note = "a route takes `Connect`, `Disconnect`, `Message<T>` where `T: DeserializeOwned`, or `Message` for the raw body"
)]
#[allow(private_bounds, reason = "a private type seals the trait")]
pub trait RouteEvent: Send + 'static + Take {
    #[doc(hidden)]
    const KIND: EventKind;
}

/// The type of an event.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Connect,
    Message,
    Disconnect,
}

impl EventKind {
    pub(super) fn of(event: &Event) -> Self {
        match event {
            Event::Connect(_) => Self::Connect,
            Event::Message(_) => Self::Message,
            Event::Disconnect(_) => Self::Disconnect,
        }
    }

    /// Returns the type of the events that select this route key.
    pub(super) fn of_key(key: &str) -> Self {
        match key {
            RouteKey::CONNECT => Self::Connect,
            RouteKey::DISCONNECT => Self::Disconnect,
            _ => Self::Message,
        }
    }
}

/// Converts an event into the type that a route takes.
pub(super) trait Take: Sized {
    fn take(event: Event) -> Result<Self>;
}

impl RouteEvent for Connect {
    const KIND: EventKind = EventKind::Connect;
}

impl Take for Connect {
    fn take(event: Event) -> Result<Self> {
        match event {
            Event::Connect(connect) => Ok(connect),
            other => Err(unexpected("a CONNECT event", &other)),
        }
    }
}

impl RouteEvent for Disconnect {
    const KIND: EventKind = EventKind::Disconnect;
}

impl Take for Disconnect {
    fn take(event: Event) -> Result<Self> {
        match event {
            Event::Disconnect(disconnect) => Ok(disconnect),
            other => Err(unexpected("a DISCONNECT event", &other)),
        }
    }
}

impl<B: MessageBody> RouteEvent for Message<B> {
    const KIND: EventKind = EventKind::Message;
}

impl<B: MessageBody> Take for Message<B> {
    fn take(event: Event) -> Result<Self> {
        match event {
            Event::Message(message) => Ok(B::take(message)?),
            other => Err(unexpected("a MESSAGE event", &other)),
        }
    }
}

/// The body of a message: undecoded, or any type that serde can deserialize.
pub(super) trait MessageBody: Sized + Send + 'static {
    fn take(message: Message) -> Result<Message<Self>, InvalidBody>;

    fn read(message: &Message) -> Result<Message<Self>, InvalidBody>;
}

impl MessageBody for Body {
    fn take(message: Message) -> Result<Message, InvalidBody> {
        Ok(message)
    }

    fn read(message: &Message) -> Result<Message, InvalidBody> {
        Ok(message.clone())
    }
}

impl<T: serde::de::DeserializeOwned + Send + 'static> MessageBody for T {
    fn take(message: Message) -> Result<Message<T>, InvalidBody> {
        message.decode().map_err(|(_, error)| error)
    }

    fn read(message: &Message) -> Result<Message<T>, InvalidBody> {
        message.read()
    }
}

/// Creates the error for an event whose type does not fit its route key.
///
/// API Gateway selects the route by the type, so the function was integrated with the wrong route.
pub(super) fn unexpected(expected: &str, event: &Event) -> Error {
    let found = match event {
        Event::Connect(_) => "a CONNECT event",
        Event::Message(_) => "a MESSAGE event",
        Event::Disconnect(_) => "a DISCONNECT event",
    };
    let key = &event.request_context().route_key;
    Error::message(format_args!("the route {:?} expected {expected}, found {found}", key.as_str()))
}

/// Checks that the key is valid and that its events are of this type.
pub(super) const fn key_fits(key: &str, kind: EventKind) -> Result<(), &'static str> {
    const CONNECT: &[u8] = RouteKey::CONNECT.as_bytes();
    const DISCONNECT: &[u8] = RouteKey::DISCONNECT.as_bytes();
    const DEFAULT: &[u8] = RouteKey::DEFAULT.as_bytes();
    let key = key.as_bytes();
    match kind {
        EventKind::Connect if !same(key, CONNECT) => Err("only `$connect` receives a `Connect`"),
        EventKind::Disconnect if !same(key, DISCONNECT) => Err("only `$disconnect` receives a `Disconnect`"),
        EventKind::Message if same(key, CONNECT) => Err("`$connect` receives a `Connect`, not a `Message`"),
        EventKind::Message if same(key, DISCONNECT) => Err("`$disconnect` receives a `Disconnect`, not a `Message`"),
        EventKind::Message if !same(key, DEFAULT) && !is_custom(key) => Err(ILLEGAL_KEY),
        _ => Ok(()),
    }
}

/// Checks the same at compile time.
pub(super) const fn assert_key_fits(key: &str, kind: EventKind) {
    if let Err(problem) = key_fits(key, kind) {
        panic!("{}", problem);
    }
}

const fn is_custom(mut key: &[u8]) -> bool {
    if matches!(key, [] | [b'$', ..]) || key.len() > 128 {
        return false;
    }
    while let [first, rest @ ..] = key {
        if first.is_ascii_control() {
            return false;
        }
        key = rest;
    }
    true
}

const fn same(mut left: &[u8], mut right: &[u8]) -> bool {
    while let ([a, left_rest @ ..], [b, right_rest @ ..]) = (left, right) {
        if *a != *b {
            return false;
        }
        left = left_rest;
        right = right_rest;
    }
    left.is_empty() && right.is_empty()
}
