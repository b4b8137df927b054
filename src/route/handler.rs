//! A route with its types erased, so that a router can hold it beside the others.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

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

pub(super) struct ClosureHandler<F, E> {
    closure: F,
    event: PhantomData<fn(E)>,
}

impl<F, E> ClosureHandler<F, E> {
    pub(super) fn new(closure: F) -> Self {
        Self { closure, event: PhantomData }
    }
}

impl<F, E, Fut, R> Handler for ClosureHandler<F, E>
where
    F: Fn(E) -> Fut + Send + Sync + 'static,
    E: RouteEvent,
    Fut: Future<Output = Result<R>> + Send + 'static,
    R: Reply,
{
    fn call(&self, event: Event) -> BoxFuture<Result<Response>> {
        let answer = E::take(event).map(&self.closure);
        Box::pin(async move {
            let reply = answer?.await?;
            reply.into_response()
        })
    }
}

/// What a route can take: [`Connect`], [`Disconnect`], [`Message<T>`](Message) with `T: DeserializeOwned`, or
/// [`Message`] with the body as it came.
///
/// The trait is sealed: these are the events that API Gateway sends.
#[diagnostic::on_unimplemented(
    message = "a route cannot take `{Self}`",
    label = "not an event of a route",
    note = "a route takes `Connect`, `Disconnect`, `Message<T>` where `T: DeserializeOwned`, or `Message` for the body as it came"
)]
#[allow(private_bounds, reason = "that is what seals it")]
pub trait RouteEvent: Send + 'static + Take {
    #[doc(hidden)]
    const KIND: EventKind;
}

/// Which of the three an event is.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Connect,
    Message,
    Disconnect,
}

/// Takes out of an event what a route takes.
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
            Event::Message(message) => Ok(B::from_message(message).map_err(|(_, error)| error)?),
            other => Err(unexpected("a MESSAGE event", &other)),
        }
    }
}

/// What the body of a message can be for a route: the body as it came, or anything that serde can read.
#[diagnostic::on_unimplemented(
    message = "the body of a message cannot be read as `{Self}`",
    label = "not a message body",
    note = "derive `serde::Deserialize` for it, without borrowed fields"
)]
pub(super) trait MessageBody: Sized + Send + 'static {
    fn from_message(message: Message) -> Result<Message<Self>, (Message, InvalidBody)>;
}

impl MessageBody for Body {
    fn from_message(message: Message) -> Result<Message, (Message, InvalidBody)> {
        Ok(message)
    }
}

impl<T: serde::de::DeserializeOwned + Send + 'static> MessageBody for T {
    fn from_message(message: Message) -> Result<Message<T>, (Message, InvalidBody)> {
        message.decode()
    }
}

/// The gateway sends an event to the route that its type selects, so this is a function that was wired up wrongly.
fn unexpected(expected: &str, event: &Event) -> Error {
    let found = match event {
        Event::Connect(_) => "a CONNECT event",
        Event::Message(_) => "a MESSAGE event",
        Event::Disconnect(_) => "a DISCONNECT event",
    };
    let key = &event.request_context().route_key;
    Error::message(format_args!("the route {:?} expected {expected}, found {found}", key.as_str()))
}

/// Whether a key is legal and its events are of this kind.
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

/// The same, as a compile error.
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
