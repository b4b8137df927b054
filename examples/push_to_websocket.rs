//! How does a function answer a client? The route `pushtowebsocket` pushes back to the caller.
//!
//! A client that sends `{"action":"pushtowebsocket","message":"hello","id":7}` gets `{"id":7,"result":{"echoed":"hello"}}`; without an
//! `id` it gets `{"echoed":"hello"}`. Of a message that does not fit it hears why: replies and errors are pushed, so the route
//! needs no route response.
//!
//! ```sh
//! cargo build --release --example push_to_websocket
//! ```
//!
//! `API_GATEWAY_ID` and `STAGE` say where the API is; Lambda sets `AWS_REGION`.

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

/// Says what a client says back to it.
pub struct PushToWebSocket;

impl Route for PushToWebSocket {
    const KEY: &'static str = "pushtowebsocket";
    type Event = Message<Push>;
    type Reply = Json<Pushed>;

    async fn handle(&self, event: Message<Push>) -> Result<Json<Pushed>> {
        Ok(Json(Pushed { echoed: event.body.message }))
    }
}

/// The function, which pushes through this.
pub fn router(pusher: Pusher) -> Router {
    Router::new().route(PushToWebSocket).push_replies(pusher)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let pusher = Pusher::from_env().await?;
    lambda_websocket::run(router(pusher)).await
}
