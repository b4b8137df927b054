//! A chat with rooms: a table stores the connections, and rooms get messages.
//!
//! | the client sends | the client gets |
//! |---|---|
//! | `{"action":"join","room":"lobby"}` | `{"event":"who","room":"lobby","who":["alice"],"more":false}`; the others `{"event":"presence",…}` |
//! | `{"action":"say","room":"lobby","text":"hello","key":"k1"}` | like all in the room, `{"event":"said","room":"lobby","who":"alice","text":"hello","key":"k1"}` |
//! | `{"action":"who","room":"lobby"}` | the names of those in the room, as for `join` |
//! | `{"action":"leave","room":"lobby"}` | the others get `{"event":"presence",…}` |
//! | anything else | `{"action":…,"error":{"code":…,"message":…}}` |
//!
//! To each of these, a client may add an `id`. Then the reply is `{"id":…,"result":…}` or `{"id":…,"error":…}`.
//!
//! A message may have a `key` of at most 64 bytes, which the sender chooses and the room gets unchanged. A client that got no
//! reply sends the message again with the same key, and clients show messages with the same `who` and `key` once.
//!
//! A presence message tells a room who joined and who left:
//! `{"event":"presence","room":"lobby","events":[{"event":"joined","who":"alice","version":1764028800000}]}`.
//!
//! Names are the authorizer's principal ids. The function needs `CHAT_TABLE` in its environment,
//! and the permissions and environment of a function that pushes.

use std::env;

use futures_util::StreamExt as _;
use lambda_websocket::hub::{Caller, Hub, HubBuilder, OnConnect, OnDisconnect, PresenceEvent};
use lambda_websocket::registry::{DynamoDb, Group};
use lambda_websocket::route::{Error, StatusCode};
use lambda_websocket::{Json, Pusher, Result, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Maximum number of names in a list.
const NAMES: usize = 100;
/// Maximum number of characters in a message.
const TEXT: usize = 1000;
/// Maximum number of bytes in the key of a message.
const KEY: usize = 64;

#[derive(Deserialize)]
struct Room {
    room: Group,
}

#[derive(Deserialize)]
struct Words {
    room: Group,
    text: String,
    key: Option<String>,
}

/// The messages that clients get.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Told {
    Who {
        room: Group,
        who: Vec<String>,
        more: bool,
    },
    Said {
        room: Group,
        who: String,
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
}

async fn join(me: Caller, Json(Room { room }): Json<Room>) -> Result<Json<Told>> {
    let _ = me.join(&room).await?;
    who(me, Json(Room { room })).await
}

async fn leave(me: Caller, Json(Room { room }): Json<Room>) -> Result<()> {
    me.leave(&room).await?;
    Ok(())
}

async fn say(me: Caller, Json(Words { room, text, key }): Json<Words>) -> Result<()> {
    if text.chars().count() > TEXT {
        return Err(Error::client(StatusCode::PAYLOAD_TOO_LARGE, format!("a message has at most {TEXT} characters")));
    }
    if key.as_ref().is_some_and(|key| key.len() > KEY) {
        return Err(Error::client(StatusCode::BAD_REQUEST, format!("a key has at most {KEY} bytes")));
    }
    if !me.is_in(&room).await? {
        return Err(Error::client(StatusCode::FORBIDDEN, format!("join {room} before sending a message to it")));
    }
    let who = me.principal().unwrap_or("somebody").to_owned();
    let report = me.send_to(&room.clone(), &Told::Said { room, who, text, key }).await?;
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

/// Applies the settings that all functions of the chat share.
///
/// Anyone may join a room, and rooms get presence events.
pub fn settings(hub: HubBuilder) -> HubBuilder {
    hub.allowing_all_joins().announcing(announcement)
}

/// Creates the message that tells a room who joined and who left.
///
/// Each event has a version, which tells which of two events is later.
fn announcement(events: &[PresenceEvent]) -> Option<serde_json::Value> {
    let events_of_room: Vec<_> = events
        .iter()
        .map(|event| json!({"event": event.kind, "who": event.principal, "version": event.version}))
        .collect();
    Some(json!({"event": "presence", "room": events.first()?.group, "events": events_of_room}))
}

/// Creates the routes of the chat.
///
/// Replies and errors are pushed, so no route needs a route response.
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
