//! A chat with rooms: a table keeps the connections, and a message goes to everyone in its room.
//!
//! | the client sends | and gets |
//! |---|---|
//! | `{"action":"join","room":"lobby"}` | `{"event":"who","room":"lobby","who":["alice"],"more":false}`; the others `{"event":"presence",…}` |
//! | `{"action":"say","room":"lobby","text":"hello"}` | with all in the room `{"event":"said","room":"lobby","who":"alice","text":"hello"}` |
//! | `{"action":"who","room":"lobby"}` | who is there |
//! | `{"action":"leave","room":"lobby"}` | the others get `{"event":"presence",…}` |
//! | anything else | `{"action":…,"error":{"code":…,"message":…}}` |
//!
//! A presence message tells a room who joined and who left:
//! `{"event":"presence","room":"lobby","events":[{"event":"joined","who":"alice","version":1764028800000}]}`.
//!
//! Names are those of the authorizer. Needs `CHAT_TABLE` in its environment, and what a function needs to push.

use std::env;

use futures_util::StreamExt as _;
use lambda_websocket::hub::{Caller, Hub, HubBuilder, OnConnect, OnDisconnect, PresenceEvent};
use lambda_websocket::registry::{DynamoDb, Group};
use lambda_websocket::route::{Error, StatusCode};
use lambda_websocket::{Json, Pusher, Result, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How many names a list has at most.
const NAMES: usize = 100;
/// How many characters can be said at once.
const TEXT: usize = 1000;

#[derive(Deserialize)]
struct Room {
    room: Group,
}

#[derive(Deserialize)]
struct Words {
    room: Group,
    text: String,
}

/// What clients get.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Told {
    Who { room: Group, who: Vec<String>, more: bool },
    Said { room: Group, who: String, text: String },
}

async fn join(me: Caller, Json(Room { room }): Json<Room>) -> Result<Json<Told>> {
    let _ = me.join(&room).await?;
    who(me, Json(Room { room })).await
}

async fn leave(me: Caller, Json(Room { room }): Json<Room>) -> Result<()> {
    me.leave(&room).await?;
    Ok(())
}

async fn say(me: Caller, Json(Words { room, text }): Json<Words>) -> Result<()> {
    if text.chars().count() > TEXT {
        return Err(Error::client(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("at most {TEXT} characters can be said at once"),
        ));
    }
    if !me.is_in(&room).await? {
        return Err(Error::client(StatusCode::FORBIDDEN, format!("join {room} before you say something there")));
    }
    let who = me.principal().unwrap_or("somebody").to_owned();
    let report = me.send_to(&room.clone(), &Told::Said { room, who, text }).await?;
    tracing::info!(%report, "said");
    Ok(())
}

async fn who(me: Caller, Json(Room { room }): Json<Room>) -> Result<Json<Told>> {
    let mut who = Vec::new();
    let mut pages = me.hub().principals(me.key().namespace(), &room);
    while let Some(page) = pages.next().await {
        who.extend(page?.into_iter().map(|name| name.to_string()));
        if who.len() > NAMES {
            break;
        }
    }
    drop(pages);
    let more = who.len() > NAMES;
    who.truncate(NAMES);
    who.sort();
    Ok(Json(Told::Who { room, who, more }))
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

/// The routes of the chat. Replies and errors are pushed, so no route needs a route response.
pub fn routes(hub: Hub, pusher: Pusher) -> Router<Hub> {
    Router::with_state(hub.clone())
        .route(OnConnect::new(hub.clone()))
        .route(OnDisconnect::new(hub))
        .on("join", join)
        .on("leave", leave)
        .on("say", say)
        .on("who", who)
        .push_replies(pusher.clone())
        .close_expired(pusher)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let table = env::var("CHAT_TABLE").map_err(|_| "set CHAT_TABLE to the name of the table of connections")?;
    let pusher = Pusher::from_env().await?;
    let hub = settings(Hub::builder(DynamoDb::new(table).await, pusher.clone())).build();
    lambda_websocket::run(routes(hub, pusher)).await
}
