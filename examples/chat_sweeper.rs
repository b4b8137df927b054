//! A scheduled function that removes stale connections.
//!
//! It asks API Gateway about each connection once per period. It needs `CHAT_TABLE` in its
//! environment, and the permissions and environment of a function that pushes. `CHAT_SWEEP_PERIOD`
//! is the period in seconds (default: 600). The schedule invokes the function once a minute.

use std::env;
use std::time::Duration;

use lambda_websocket::Pusher;
use lambda_websocket::event::{ApiId, Stage};
use lambda_websocket::hub::Hub;
use lambda_websocket::registry::{DynamoDb, Namespace};

#[path = "chat_function.rs"]
#[allow(dead_code, reason = "it has its own `main`")]
mod chat_function;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let variable = |name: &str| env::var(name).map_err(|_| format!("set {name}"));
    let namespace = Namespace::for_stage(&ApiId::new(variable("API_GATEWAY_ID")?)?, &Stage::new(variable("STAGE")?)?);
    let period = env::var("CHAT_SWEEP_PERIOD").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(600);
    let hub = Hub::builder(DynamoDb::new(variable("CHAT_TABLE")?).await, Pusher::from_env().await?);
    chat_function::settings(hub)
        .with_sweep_period(Duration::from_secs(period))
        .build()
        .run_sweeper(vec![namespace])
        .await
}
