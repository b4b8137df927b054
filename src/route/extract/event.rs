//! Events and their parts as arguments of a handler.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{EventKinds, FromEvent};
use crate::event::{Connect, ConnectionId, Disconnect, Event, Message, RequestContext};
use crate::route::handler::{EventKind, MessageBody, unexpected};
use crate::route::{Json, Result};

impl<S: Send + Sync> FromEvent<S> for Connect {
    const EVENTS: EventKinds = EventKinds::CONNECT;

    async fn from_event(event: &Event, _: &Arc<S>) -> Result<Self> {
        match event {
            Event::Connect(connect) => Ok(connect.clone()),
            other => Err(unexpected("a CONNECT event", other)),
        }
    }
}

impl<S: Send + Sync> FromEvent<S> for Disconnect {
    const EVENTS: EventKinds = EventKinds::DISCONNECT;

    async fn from_event(event: &Event, _: &Arc<S>) -> Result<Self> {
        match event {
            Event::Disconnect(disconnect) => Ok(disconnect.clone()),
            other => Err(unexpected("a DISCONNECT event", other)),
        }
    }
}

impl<S: Send + Sync, B: MessageBody> FromEvent<S> for Message<B> {
    const EVENTS: EventKinds = EventKinds::MESSAGE;

    async fn from_event(event: &Event, _: &Arc<S>) -> Result<Self> {
        match event {
            Event::Message(message) => Ok(B::read(message)?),
            other => Err(unexpected("a MESSAGE event", other)),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromEvent<S> for Json<T> {
    const EVENTS: EventKinds = EventKinds::MESSAGE;

    async fn from_event(event: &Event, _: &Arc<S>) -> Result<Self> {
        match event {
            Event::Message(message) => Ok(Self(message.body.json()?)),
            other => Err(unexpected("a MESSAGE event", other)),
        }
    }
}

impl<S: Send + Sync> FromEvent<S> for ConnectionId {
    async fn from_event(event: &Event, _: &Arc<S>) -> Result<Self> {
        Ok(event.request_context().connection_id.clone())
    }
}

impl<S: Send + Sync> FromEvent<S> for RequestContext {
    async fn from_event(event: &Event, _: &Arc<S>) -> Result<Self> {
        Ok(event.request_context().clone())
    }
}

impl<S: Send + Sync, T: FromEvent<S>> FromEvent<S> for Option<T> {
    async fn from_event(event: &Event, state: &Arc<S>) -> Result<Self> {
        if !T::EVENTS.contains(EventKind::of(event)) {
            return Ok(None);
        }
        T::from_event(event, state).await.map(Some)
    }
}
