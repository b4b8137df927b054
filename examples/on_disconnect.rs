//! The route `$disconnect`, which API Gateway invokes as a best-effort event.
//!
//! ```sh
//! cargo build --release --example on_disconnect --no-default-features --features runtime
//! ```

use lambda_websocket::{Disconnect, Result, Route, Router};

/// Logs the end of each connection.
pub struct OnDisconnect;

impl Route for OnDisconnect {
    const KEY: &'static str = "$disconnect";
    type Event = Disconnect;
    type Reply = ();

    async fn handle(&self, event: Disconnect) -> Result<()> {
        tracing::info!(principal = event.principal_id(), code = event.status_code(), "disconnected");
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    lambda_websocket::run(Router::new().route(OnDisconnect)).await
}
