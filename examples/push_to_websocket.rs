//! How does a function answer a client? The route `pushtowebsocket` pushes back to the caller.
//!
//! ```sh
//! cargo build --release --example push_to_websocket
//! ```
//!
//! `API_GATEWAY_ID` and `STAGE` say where the API is; Lambda sets `AWS_REGION`.

use lambda_websocket::{Message, Pusher, Result, Route, Router};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub struct Push {
    message: String,
}

#[derive(Serialize)]
struct Pushed {
    echoed: String,
}

/// Pushes what a client says back to it.
pub struct PushToWebSocket {
    pub pusher: Pusher,
}

impl Route for PushToWebSocket {
    const KEY: &'static str = "pushtowebsocket";
    type Event = Message<Push>;
    type Reply = ();

    async fn handle(&self, event: Message<Push>) -> Result<()> {
        let reply = Pushed { echoed: event.body.message.clone() };
        self.pusher.send(event.connection_id(), &reply).await?;
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let pusher = Pusher::from_env().await?;
    lambda_websocket::run(Router::new().route(PushToWebSocket { pusher })).await
}
