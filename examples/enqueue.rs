//! How does a slow job get into a queue? With the address of the client that asked, which is told that it has been taken.
//!
//! A client sends `{"action":"sum","numbers":[1,2,3]}`, and gets `{"correlationId":"…"}` at once when the route has a route
//! response. The result of the [worker](worker.rs) it gets later, with the same id.
//!
//! Needs `QUEUE_URL` and `REPLY_KEY` in its environment, and `sqs:SendMessage` on the queue.

use std::env;

use aws_config::BehaviorVersion;
use aws_sdk_sqs::Client;
use aws_smithy_http_client::tls;
use lambda_websocket::reply::{Acknowledged, Job, Keys};
use lambda_websocket::{Json, Message, Result, Route, Router};
use serde::{Deserialize, Serialize};

/// What a client asks for, and the job that it becomes.
#[derive(Debug, Deserialize, Serialize)]
pub struct Sum {
    pub numbers: Vec<u64>,
}

/// Puts jobs into the queue.
pub struct Enqueue {
    pub queue: Client,
    pub queue_url: String,
    pub keys: Keys,
}

impl Route for Enqueue {
    const KEY: &'static str = "sum";
    type Event = Message<Sum>;
    type Reply = Json<Acknowledged>;

    async fn handle(&self, event: Message<Sum>) -> Result<Json<Acknowledged>> {
        let address = event.reply_address()?;
        let body = serde_json::to_string(&Job::seal(&event.body, &address, &self.keys)?)?;
        self.queue.send_message().queue_url(&self.queue_url).message_body(body).send().await?;
        // Only now: what is acknowledged is in the queue.
        Ok(Json(Acknowledged::for_address(&address)))
    }
}

/// A client of SQS with what the environment says of credentials, region and endpoint.
pub async fn sqs() -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    Client::new(&aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let keys =
        Keys::new("example", env::var("REPLY_KEY").map_err(|_| "set REPLY_KEY to a secret of 32 bytes or more")?)?;
    let queue_url = env::var("QUEUE_URL").map_err(|_| "set QUEUE_URL to the queue's URL")?;
    lambda_websocket::run(Router::new().route(Enqueue { queue: sqs().await, queue_url, keys })).await
}
