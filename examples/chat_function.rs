//! A chat with rooms: a table keeps the connections, and a message goes to everyone in its room.
//!
//! | the client sends | and gets |
//! |---|---|
//! | `{"action":"join","room":"lobby"}` | `{"event":"who","room":"lobby","who":["alice"],"more":false}`; the others `{"event":"presence",…}` |
//! | `{"action":"say","room":"lobby","text":"hello"}` | with all in the room `{"event":"said","room":"lobby","who":"alice","text":"hello"}` |
//! | `{"action":"who","room":"lobby"}` | who is there |
//! | `{"action":"leave","room":"lobby"}` | the others get `{"event":"presence",…}` |
//! | anything else | `{"event":"refused","why":…}` |
//!
//! A presence message tells a room who joined and who left:
//! `{"event":"presence","room":"lobby","events":[{"event":"joined","who":"alice","version":1764028800000}]}`.
//!
//! Names are those of the authorizer. Needs `CHAT_TABLE` in its environment, and what a function needs to push.

use std::env;

use futures_util::StreamExt as _;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::hub::{Hub, HubBuilder, OnConnect, OnDisconnect, PresenceEvent};
use lambda_websocket::registry::{ConnectionKey, DynamoDb, Group};
use lambda_websocket::route::Failure;
use lambda_websocket::{Message, Pusher, Result, Route, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How many names a list has at most.
const NAMES: usize = 100;
/// How many characters can be said at once.
const TEXT: usize = 1000;

#[derive(Deserialize)]
pub struct Room {
    room: String,
}

#[derive(Deserialize)]
pub struct Words {
    room: String,
    text: String,
}

/// What clients get.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Told<'a> {
    Who { room: &'a Group, who: Vec<String>, more: bool },
    Said { room: &'a Group, who: &'a str, text: &'a str },
    Refused { why: String },
}

/// What all routes share.
#[derive(Clone)]
struct Chat {
    hub: Hub,
    pusher: Pusher,
}

impl Chat {
    async fn refuse(&self, to: &ConnectionId, why: String) -> Result<()> {
        Ok(self.pusher.send(to, &Told::Refused { why }).await?)
    }

    /// The room of this name; who asks for none that can be is told so.
    async fn room<B>(&self, event: &Message<B>, name: &str) -> Result<Option<Group>> {
        match Group::new(name) {
            Ok(room) => Ok(Some(room)),
            Err(error) => self.refuse(event.connection_id(), error.to_string()).await.map(|()| None),
        }
    }

    async fn tell_who(&self, to: &ConnectionKey, room: &Group) -> Result<()> {
        let mut who = Vec::new();
        let mut pages = self.hub.principals(to.namespace(), room);
        while let Some(page) = pages.next().await {
            who.extend(page?.into_iter().map(|name| name.to_string()));
            if who.len() > NAMES {
                break;
            }
        }
        let more = who.len() > NAMES;
        who.truncate(NAMES);
        who.sort();
        Ok(self.pusher.send(to.id(), &Told::Who { room, who, more }).await?)
    }
}

struct Join(Chat);

impl Route for Join {
    const KEY: &'static str = "join";
    type Event = Message<Room>;
    type Reply = ();

    async fn handle(&self, event: Message<Room>) -> Result<()> {
        let Some(room) = self.0.room(&event, &event.body.room).await? else { return Ok(()) };
        let me = self.0.hub.key(event.request_context());
        let _ = self.0.hub.join(&me, &room).await?;
        self.0.tell_who(&me, &room).await
    }
}

struct Leave(Chat);

impl Route for Leave {
    const KEY: &'static str = "leave";
    type Event = Message<Room>;
    type Reply = ();

    async fn handle(&self, event: Message<Room>) -> Result<()> {
        let Some(room) = self.0.room(&event, &event.body.room).await? else { return Ok(()) };
        self.0.hub.leave(&self.0.hub.key(event.request_context()), &room).await?;
        Ok(())
    }
}

struct Say(Chat);

impl Route for Say {
    const KEY: &'static str = "say";
    type Event = Message<Words>;
    type Reply = ();

    async fn handle(&self, event: Message<Words>) -> Result<()> {
        let Some(room) = self.0.room(&event, &event.body.room).await? else { return Ok(()) };
        let me = self.0.hub.key(event.request_context());
        if event.body.text.chars().count() > TEXT {
            return self.0.refuse(me.id(), format!("at most {TEXT} characters can be said at once")).await;
        }
        if !self.0.hub.registry().groups(&me).await?.contains(&room) {
            return self.0.refuse(me.id(), format!("join {room} before you say something there")).await;
        }
        let who = event.principal_id().unwrap_or("somebody");
        let said = Told::Said { room: &room, who, text: &event.body.text };
        let report = self.0.hub.send_to(&me.group(&room), &said).await?;
        tracing::info!(%report, "said");
        Ok(())
    }
}

struct Who(Chat);

impl Route for Who {
    const KEY: &'static str = "who";
    type Event = Message<Room>;
    type Reply = ();

    async fn handle(&self, event: Message<Room>) -> Result<()> {
        let Some(room) = self.0.room(&event, &event.body.room).await? else { return Ok(()) };
        self.0.tell_who(&self.0.hub.key(event.request_context()), &room).await
    }
}

/// What every function of the chat has in common: rooms are open to everybody, and hear who joins and who leaves.
pub fn settings(hub: HubBuilder) -> HubBuilder {
    hub.allowing_all_joins().announcing(announcement)
}

/// Tells a room who has joined and who has left, each with the version that says which of two events is the later one.
fn announcement(events: &[PresenceEvent]) -> Option<serde_json::Value> {
    let events_of_room: Vec<_> = events
        .iter()
        .map(|event| json!({"event": event.kind, "who": event.principal, "version": event.version}))
        .collect();
    Some(json!({"event": "presence", "room": events.first()?.group, "events": events_of_room}))
}

/// The routes of the chat.
pub fn routes(hub: Hub, pusher: Pusher) -> Router {
    let chat = Chat { hub, pusher };
    let refusing = chat.clone();
    Router::new()
        .route(OnConnect::new(chat.hub.clone()))
        .route(OnDisconnect::new(chat.hub.clone()))
        .route(Join(chat.clone()))
        .route(Leave(chat.clone()))
        .route(Say(chat.clone()))
        .route(Who(chat))
        .on_error(move |failure: Failure| {
            let chat = refusing.clone();
            async move {
                let to = failure.request_context().connection_id.clone();
                if let Err(error) = chat.refuse(&to, failure.client_text().to_owned()).await {
                    tracing::warn!(error = %error.chain(), "a client does not know that it was refused");
                }
            }
        })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let table = env::var("CHAT_TABLE").map_err(|_| "set CHAT_TABLE to the name of the table of connections")?;
    let pusher = Pusher::from_env().await?;
    let hub = settings(Hub::builder(DynamoDb::new(table).await, pusher.clone())).build();
    lambda_websocket::run(routes(hub, pusher)).await
}
