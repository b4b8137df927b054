//! The route `$connect`, which reads the authorizer's context.
//!
//! ```sh
//! cargo build --release --example on_connect --no-default-features --features runtime
//! ```

use lambda_websocket::{Connect, Result, Route, Router};
use serde::Deserialize;

/// The context that the authorizer passes to the routes.
#[derive(Deserialize)]
struct Session {
    org: u64,
}

/// Accepts every client that the authorizer has allowed.
pub struct OnConnect;

impl Route for OnConnect {
    const KEY: &'static str = "$connect";
    type Event = Connect;
    type Reply = ();

    async fn handle(&self, event: Connect) -> Result<()> {
        let session: Session = event.context()?;
        tracing::info!(principal = event.principal_id(), org = session.org, "connected");
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    lambda_websocket::run(Router::new().route(OnConnect)).await
}
