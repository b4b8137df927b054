//! Who has gone without a word? A function on a schedule, which asks about connections of which nothing was heard.
//!
//! Needs `CHAT_TABLE` in its environment, and what a function needs to push; `CHAT_LEASE` are the seconds after which it asks.

use std::env;
use std::time::Duration;

use lambda_websocket::Pusher;
use lambda_websocket::event::{ApiId, Stage};
use lambda_websocket::hub::Hub;
use lambda_websocket::registry::{DynamoDb, Namespace};

#[path = "chat_function.rs"]
#[allow(dead_code, reason = "it has a `main` of its own")]
mod chat_function;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let variable = |name: &str| env::var(name).map_err(|_| format!("set {name}"));
    let namespace = Namespace::of_stage(&ApiId::new(variable("API_GATEWAY_ID")?)?, &Stage::new(variable("STAGE")?)?);
    let lease = env::var("CHAT_LEASE").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    Hub::new(DynamoDb::new(variable("CHAT_TABLE")?).await, Pusher::from_env().await?)
        .with_lease(Duration::from_secs(lease))
        .announcing(chat_function::announcement)
        .run_sweeper(vec![namespace])
        .await
}
