//! WebSocket APIs of AWS API Gateway whose routes are Lambda functions.
//!
//! - **Routes**: implement [`Route`] for each message of your protocol; a [`Router`] dispatches to it with a typed body.
//! - **Authorizers**: return an IAM policy and a context that is checked to be flat; see [`authorizer`].
//! - **Pushes**: send to one connection or to a hundred thousand, from anywhere that knows their ids; see [`push`].
//! - **Who is connected**: send to a room, to a person, to everyone but the sender; see [`hub`] and [`registry`].
//! - **Replies from a queue**: slow work is done elsewhere, and its result reaches exactly the client that asked; see [`reply`].
//! - **A local gateway**: run the same functions in a test or on a laptop; see [`local`].
//!
//! It is not a WebSocket server, not a framework for HTTP or REST APIs, and it deploys nothing.
//!
//! # A route
//!
#![cfg_attr(all(feature = "runtime", feature = "sdk"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "runtime", feature = "sdk")), doc = "```text")]
//! use lambda_websocket::{Message, Pusher, Result, Route, Router};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Push { message: String }
//!
//! #[derive(Serialize)]
//! struct Pushed { echoed: String }
//!
//! struct PushToWebSocket { pusher: Pusher }
//!
//! impl Route for PushToWebSocket {
//!     const KEY: &'static str = "pushtowebsocket";
//!     type Event = Message<Push>;
//!     type Reply = ();
//!
//!     async fn handle(&self, event: Message<Push>) -> Result<()> {
//!         let reply = Pushed { echoed: event.body.message.clone() };
//!         self.pusher.send(event.connection_id(), &reply).await?;
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), lambda_runtime::Error> {
//!     let pusher = Pusher::from_env().await?; // API_GATEWAY_ID, AWS_REGION, STAGE; or an endpoint's URL
//!     lambda_websocket::run(Router::new().route(PushToWebSocket { pusher })).await
//! }
//! ```
//!
//! # Where to look
//!
//! | module | is about |
//! |---|---|
//! | [`event`] | what API Gateway tells a function: [`Connect`], [`Message`], [`Disconnect`] |
//! | [`route`] | which code answers which event, and with what |
//! | [`authorizer`] | who may connect, and what the routes learn about them |
//! | [`push`] | sending to connections, closing them, asking about them |
//! | [`registry`] | which connections exist, whose they are, and which groups they have joined |
//! | [`hub`] | sending to groups and principals, and keeping the registry clean |
//! | [`reply`] | replying later, from a queue back to exactly the client that asked |
//! | `rate_limit` | how many messages a client may send |
//! | [`local`] | the gateway for tests and laptops |
//! | `metrics` | which numbers are recorded, and under which names |
//!
//! # Features
//!
//! | feature | default | adds | brings |
//! |---|---|---|---|
//! | `runtime` | yes | [`run`], [`authorizer::run`], tower services | `lambda_runtime`, tokio |
//! | `sdk` | yes | [`push::Sdk`], [`Pusher::from_env`] | the AWS SDK's client, `aws-config`, rustls on ring |
//! | `direct` | | [`push::Direct`]: pushes without the SDK, for a quarter of the CPU time | `aws-sigv4`, hyper, rustls on ring |
//! | `push` | with `sdk`, `direct`, `local` | [`Pusher`] over your own transport | tokio's timer |
//! | `garde` | | [`route::Valid`]: bodies that are validated | `garde` |
//! | `metrics` | | counters and histograms of events, pushes, broadcasts, sweeps, and jobs | the `metrics` facade |
//! | `anyhow` | | [`Router::map_error`] finds the outermost error of an `anyhow::Error` | `anyhow` |
//! | `tickets` | | [`authorizer::ticket`]: tokens that open one connection | HMAC and SHA-256 |
//! | `rate-limit` | | [`rate_limit`]: how many messages a client may send | tokio's timer |
//! | `reply` | | [`reply::ReplyAddress`] | HMAC and SHA-256 |
//! | `worker` | | [`reply::Worker`] | `runtime`, `aws_lambda_events` |
//! | `registry` | | [`registry::Registry`], [`registry::InMemory`] | futures-util |
//! | `hub` | | [`hub::Hub`] | `registry`, `push` |
//! | `conformance` | | [`registry::conformance`] | `registry` |
//! | `dynamodb` | | [`registry::DynamoDb`]; with `worker` also [`reply::DynamoDb`] | `registry`, the AWS SDK's client of DynamoDB |
//! | `local` | | [`local::Gateway`] | hyper, tokio-tungstenite |
//! | `aws_lambda_events` | | conversions from and to the types of that crate | `aws_lambda_events` |
//!
//! Features only add items. Without any, the crate has neither an async runtime nor an AWS SDK below it.
//!
//! # Logs
//!
//! The crate logs through [`tracing`](https://docs.rs/tracing), in a span with the request id, the connection id, the
//! route key, and the trace id. Jobs and pushes have spans of their own; [`Router::on_trace`] makes them parts of one trace.
//!
//! It never logs a query string, a header's value, a body or an authorizer's context. `lambda_runtime` itself logs whole events
//! at the level `TRACE`: leave that off where tokens travel in the query string.
//!
//! # Minimum Rust version
//!
//! 1.94.1, which is that of the AWS SDK. It moves with the SDK's.

#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Links to what a feature adds can only be followed where the feature is on.
#![cfg_attr(
    not(all(
        feature = "local",
        feature = "sdk",
        feature = "direct",
        feature = "dynamodb",
        feature = "worker",
        feature = "hub",
        feature = "conformance",
        feature = "garde",
        feature = "rate-limit",
        feature = "tickets"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

pub mod authorizer;
#[cfg(any(feature = "push", feature = "registry", feature = "rate-limit", feature = "runtime", feature = "tickets"))]
#[cfg_attr(not(feature = "registry"), allow(dead_code, reason = "only a registry accepts a custom clock"))]
mod clock;
#[cfg(feature = "dynamodb")]
mod dynamodb;
pub mod event;
// Its programs use every feature.
#[cfg(all(
    any(doc, doctest),
    feature = "anyhow",
    feature = "conformance",
    feature = "direct",
    feature = "dynamodb",
    feature = "garde",
    feature = "hub",
    feature = "local",
    feature = "metrics",
    feature = "rate-limit",
    feature = "sdk",
    feature = "tickets",
    feature = "worker"
))]
pub mod guide;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(any(feature = "reply", feature = "tickets"))]
mod keys;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
mod metrics;
#[cfg(feature = "push")]
pub mod push;
mod quotas;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
#[cfg(feature = "registry")]
pub mod registry;
#[cfg(feature = "reply")]
pub mod reply;
#[cfg(any(feature = "push", feature = "dynamodb"))]
mod retry;
pub mod route;
#[cfg(feature = "runtime")]
mod runtime;

pub use self::event::{Connect, Disconnect, Event, Message};
#[cfg(any(feature = "reply", feature = "tickets"))]
pub use self::keys::{InvalidKey, Keys};
#[cfg(feature = "push")]
pub use self::push::Pusher;
#[cfg(feature = "runtime")]
pub use self::route::service::run;
pub use self::route::{Json, Response, Result, Route, Router};

/// The README's programs, compiled.
#[cfg(all(doctest, feature = "local", feature = "sdk", feature = "worker", feature = "hub", feature = "dynamodb"))]
#[doc = include_str!("../README.md")]
struct Readme;
