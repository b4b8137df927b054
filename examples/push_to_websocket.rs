//! The route `pushtowebsocket`, which pushes its reply to the caller.
//!
//! A client that sends `{"action":"pushtowebsocket","message":"hello","id":7}` gets
//! `{"id":7,"result":{"echoed":"hello"}}`; without an `id` it gets `{"echoed":"hello"}`. For an
//! invalid message it gets an error. Replies and errors are pushed, so the route needs no route
//! response.
//!
//! ```sh
//! cargo build --release --example push_to_websocket
//! ```
//!
//! `API_GATEWAY_ID` and `STAGE` identify the API; Lambda sets `AWS_REGION`.

use lambda_websocket::{Json, Message, Pusher, Result, Route, Router};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub struct Push {
    message: String,
}

#[derive(Serialize)]
pub struct Pushed {
    echoed: String,
}

/// Echoes a client's message.
pub struct PushToWebSocket;

impl Route for PushToWebSocket {
    const KEY: &'static str = "pushtowebsocket";
    type Event = Message<Push>;
    type Reply = Json<Pushed>;

    async fn handle(&self, event: Message<Push>) -> Result<Json<Pushed>> {
        Ok(Json(Pushed { echoed: event.body.message }))
    }
}

/// Creates the function's router, which replies through this pusher.
pub fn router(pusher: Pusher) -> Router {
    Router::new().route(PushToWebSocket).push_replies(pusher)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let pusher = Pusher::from_env().await?;
    lambda_websocket::run(router(pusher)).await
}
