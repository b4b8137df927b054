//! A route that puts slow jobs into a queue, with the client's reply address.
//!
//! A client that sends `{"action":"sum","numbers":[1,2,3],"id":7}` gets `{"id":7,"accepted":true}`
//! at once, and later the result from the [worker](worker.rs), with the same id. A client that
//! sends no `id` learns it from the first reply.
//!
//! The function needs `QUEUE_URL` and `REPLY_KEY` in its environment, `sqs:SendMessage` on the
//! queue, and a route response.

use std::env;

use aws_config::BehaviorVersion;
use aws_sdk_sqs::Client;
use aws_smithy_http_client::tls;
use lambda_websocket::reply::{Accepted, Job, Keys};
use lambda_websocket::{Message, Result, Route, Router};
use serde::{Deserialize, Serialize};

/// A client's request, which is also the job.
#[derive(Debug, Deserialize, Serialize)]
pub struct Sum {
    pub numbers: Vec<u64>,
}

/// The route that puts jobs into the queue.
pub struct Enqueue {
    pub queue: Client,
    pub queue_url: String,
    pub keys: Keys,
}

impl Route for Enqueue {
    const KEY: &'static str = "sum";
    type Event = Message<Sum>;
    type Reply = Accepted;

    async fn handle(&self, event: Message<Sum>) -> Result<Accepted> {
        let address = event.reply_address()?;
        let body = serde_json::to_string(&Job::seal(&event.body, &address, &self.keys)?)?;
        self.queue.send_message().queue_url(&self.queue_url).message_body(body).send().await?;
        // Accept the request only once it is in the queue.
        Ok(Accepted::for_address(&address))
    }
}

/// Creates an SQS client with the environment's credentials, region, and endpoint.
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
