//! Builds AWS API Gateway WebSocket APIs on Lambda: typed routes, authorizers, pushes, rooms and
//! presence, replies from queues, and a local API Gateway emulator.
//!
//! API Gateway holds the connections of a WebSocket API. It calls a Lambda function for each event
//! of a connection, and sends to a client when a function calls its `@connections` API. This crate
//! is what such functions are made of. It is not a WebSocket server, not a framework for HTTP or
//! REST APIs, and it deploys nothing.
//!
//! This page is a tour: [routes](#routes), [replies and errors](#replies-and-errors),
//! [authorizers](#authorizers), [pushing](#pushing), [rooms and presence](#rooms-and-presence),
//! [replies from queues](#replies-from-queues), [testing](#testing), [deployment](#deployment),
//! [modules](#modules), and [features](#features). The [`guide`] explains each of them at length.
//!
//! # Routes
//!
//! API Gateway selects a route by its *route key*, which is by default the member `action` of the
//! message. Implement [`Route`] for a key, and register it with a [`Router`]:
//!
#![cfg_attr(all(feature = "runtime", feature = "sdk"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "runtime", feature = "sdk")), doc = "```text")]
//! use lambda_websocket::{Json, Message, Pusher, Result, Route, Router};
//!
//! #[derive(serde::Deserialize)]
//! struct Add { left: i32, right: i32 }
//!
//! struct Adder;
//!
//! impl Route for Adder {
//!     const KEY: &'static str = "add"; // selected by {"action":"add"}
//!     type Event = Message<Add>;
//!     type Reply = Json<i64>;
//!
//!     async fn handle(&self, event: Message<Add>) -> Result<Json<i64>> {
//!         Ok(Json(i64::from(event.body.left) + i64::from(event.body.right)))
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), lambda_runtime::Error> {
//!     let pusher = Pusher::from_env().await?;
//!     let router = Router::new().route(Adder).push_replies(pusher);
//!     lambda_websocket::run(router).await
//! }
//! ```
//!
//! A key that does not fit the type of the event, such as `$connect` for a [`Message`], does not
//! compile. A handler can also be an `async fn`, whose arguments come from the event and from the
//! state that the routes share:
//!
//! ```
//! use lambda_websocket::event::ConnectionId;
//! use lambda_websocket::route::State;
//! use lambda_websocket::{Json, Result, Router};
//!
//! struct App { greeting: &'static str }
//!
//! async fn greet(Json(name): Json<String>, me: ConnectionId, app: State<App>) -> Result<Json<String>> {
//!     Ok(Json(format!("{}, {name}: you are {me}", app.greeting)))
//! }
//!
//! let router = Router::with_state(App { greeting: "Hello" }).on("greet", greet);
//! ```
//!
//! Three route keys are predefined:
//!
//! | key | event | runs |
//! |---|---|---|
//! | `$connect` | [`Connect`] | before the connection opens; an error refuses the handshake |
//! | `$disconnect` | [`Disconnect`] | after the connection is closed; best-effort |
//! | `$default` | [`Message`] | for messages that select no other route |
//!
//! # Replies and errors
//!
//! A message may have an `id`. Then the client gets exactly one final reply with that `id`:
//!
//! ```text
//! > {"action":"add","id":7,"left":2,"right":3}
//! < {"id":7,"result":5}
//! > {"action":"add","id":8,"left":2}
//! < {"id":8,"error":{"code":"invalid_message","message":"missing field `right` at …"}}
//! ```
//!
//! Any error converts into a [`route::Error`] by `?`. The client then gets the code `internal` and
//! the request id, and the log gets the error with its sources. [`route::Error::client`] is an
//! error that the client may see; [`Router::map_error`] turns your own error types into such errors.
//! A panic of a handler is an `internal` error, too.
//!
//! [`Router::push_replies`] pushes replies to the client. Without it they are the response of the
//! function, which API Gateway delivers only on routes that have a
//! [route response](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-route-response.html).
//!
//! # Authorizers
//!
//! A REQUEST authorizer decides on the handshake. Its response is an IAM policy with a context:
//!
#![cfg_attr(feature = "runtime", doc = "```no_run")]
#![cfg_attr(not(feature = "runtime"), doc = "```text")]
//! use lambda_websocket::authorizer::{self, Authorization, Denied, Request};
//!
//! async fn authorize(request: Request) -> Result<Authorization, Denied> {
//!     let token = request.query("Auth").ok_or(Denied::Unauthorized)?; // 401
//!     let user = token.strip_prefix("user-").ok_or(Denied::Forbidden)?; // 403
//!     // Allows the requested route. Nested context values are an error, which names the path.
//!     Authorization::allow(user).with_context(&serde_json::json!({"org": 7, "admin": true}))
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), lambda_runtime::Error> {
//!     authorizer::run(authorize).await
//! }
//! ```
//!
//! API Gateway turns context values into strings; [`event::RequestContext::context`] parses them
//! back into the types of a struct. The module [`authorizer`] has policies with conditions, an
//! allow-list for origins, and tickets, each of which opens one connection.
//!
//! # Pushing
//!
//! A [`Pusher`] sends to connections by their ids, from any function or worker:
//!
#![cfg_attr(feature = "push", doc = "```")]
#![cfg_attr(not(feature = "push"), doc = "```text")]
//! use lambda_websocket::event::ConnectionId;
//! use lambda_websocket::push::{PushError, Pusher};
//!
//! async fn notify(pusher: &Pusher, ids: Vec<ConnectionId>) -> Result<(), PushError> {
//!     let report = pusher.broadcast(ids, &serde_json::json!({"event": "restart"}))?.await;
//!     for id in &report.gone {
//!         println!("{id} has disconnected");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! | where the endpoint comes from | use |
//! |---|---|
//! | the environment: `API_GATEWAY_ID`, `AWS_REGION`, `STAGE` | [`Pusher::from_env`] |
//! | an event | [`push::Endpoint::from_context`] |
//! | a custom domain | [`push::Endpoint::custom_domain`] |
//! | an emulator or the local gateway | `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` |
//!
//! Retryable errors are retried with exponential backoff and full jitter until 200 ms before the
//! deadline of the invocation. [`push::PushError`] classifies the others.
//!
//! # Rooms and presence
//!
//! A [`registry`] stores which connections exist, whose they are, and which groups they have
//! joined. A [`hub`] combines it with a pusher:
//!
#![cfg_attr(feature = "hub", doc = "```")]
#![cfg_attr(not(feature = "hub"), doc = "```text")]
//! use lambda_websocket::hub::{Caller, Hub, OnConnect, OnDisconnect};
//! use lambda_websocket::registry::{Group, InMemory};
//! use lambda_websocket::{Json, Pusher, Result, Router};
//!
//! #[derive(serde::Deserialize)]
//! struct Say { room: Group, text: String }
//!
//! async fn say(me: Caller, Json(message): Json<Say>) -> Result<()> {
//!     if me.is_in(&message.room).await? {
//!         me.send_to(&message.room, &message.text).except(me.key()).await?;
//!     }
//!     Ok(())
//! }
//!
//! fn router(pusher: Pusher) -> Router<Hub> {
//!     let hub = Hub::builder(InMemory::new(), pusher).build();
//!     let joins_lobby = OnConnect::new(hub.clone()).joining(|_| Ok(vec![Group::new("lobby")?]));
//!     Router::with_state(hub.clone())
//!         .route(joins_lobby)
//!         .route(OnDisconnect::new(hub))
//!         .on("say", say)
//! }
//! ```
//!
//! Lambda functions keep their connections in [`registry::DynamoDb`].
//!
//! # Replies from queues
//!
//! API Gateway waits 29 seconds for a function. Slow work goes into a queue, with the address of
//! the client. A [`reply::Worker`] runs the job, and pushes the result to exactly that client:
//!
#![cfg_attr(feature = "worker", doc = "```")]
#![cfg_attr(not(feature = "worker"), doc = "```text")]
//! use lambda_websocket::reply::{Accepted, Job, Keys, Task, Worker};
//! use lambda_websocket::{Message, Pusher, Result};
//!
//! /// In the route.
//! async fn enqueue(event: Message<String>, keys: &Keys) -> Result<Accepted> {
//!     let address = event.reply_address()?;
//!     let body = serde_json::to_string(&Job::seal(&event.body, &address, keys)?)?;
//!     send_to_queue(body).await?;
//!     Ok(Accepted::for_address(&address)) // {"id":…,"accepted":true}
//! }
//!
//! /// The function of the queue. The client gets {"id":…,"result":…}.
//! async fn run(pusher: Pusher, keys: Keys) -> std::result::Result<(), lambda_runtime::Error> {
//!     Worker::new(pusher, keys, |task: Task<String>| async move { Ok(task.job.len()) }).run().await
//! }
//!
//! async fn send_to_queue(_body: String) -> Result<()> {
//!     Ok(()) // for example with aws-sdk-sqs
//! }
//! ```
//!
//! # Testing
//!
//! Unit tests need no gateway: [`push::Recorder`] records pushes, [`Router::handle`] handles an
//! event, and [`authorizer::Policy::evaluate`] decides as IAM does. The [`local`] gateway runs the
//! same functions over real sockets, in process or as processes in any language:
//!
#![cfg_attr(feature = "local", doc = "```")]
#![cfg_attr(not(feature = "local"), doc = "```text")]
//! use lambda_websocket::local::Gateway;
//! use lambda_websocket::{Json, Message, Router};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let router = Router::new().on("ping", |_: Message| async { Ok(Json("pong")) });
//!     let gateway = Gateway::builder("dev").router(router).route_response("ping").start().await?;
//!     let mut client = gateway.connect("").await?;
//!     client.send_text(r#"{"action":"ping"}"#).await?;
//!     assert_eq!(client.next_json().await?, "pong");
//!     Ok(())
//! }
//! ```
//!
//! It injects the failures that occur on AWS, and records why each thing happened. Its behavior is
//! documented rule by rule in [`guide::conformance`].
//!
//! # Deployment
//!
//! One function may serve all routes, or each route may have its own:
//!
//! ```text
//!              ┌─────────────┐  before $connect   ┌────────────┐
//!  client ───► │ API Gateway │ ─────────────────► │ authorizer │
//!         ◄─── │             │  $connect, …       ├────────────┤      ┌───────┐
//!              │             │ ─────────────────► │ routes     │ ───► │ queue │
//!              │ @connections│ ◄───────────────── │            │      └───┬───┘
//!              │             │       pushes       ├────────────┤          │
//!              │             │ ◄───────────────── │ worker     │ ◄────────┘
//!              └─────────────┘                    └────────────┘
//! ```
//!
//! | environment variable | of functions that | meaning |
//! |---|---|---|
//! | `API_GATEWAY_ID` | push | id of the API |
//! | `STAGE` | push | name of the stage |
//! | `AWS_REGION` | push | region of the API; Lambda sets it |
//! | `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` | push | endpoint to use in place of those three |
//!
//! A function that pushes needs the right `execute-api:ManageConnections` on
//! `arn:aws:execute-api:<region>:<account>:<api>/<stage>/POST/@connections/*`. API Gateway needs the
//! permission to invoke each function. [`guide::deploying`] has templates for all of it.
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`event`] | events of a WebSocket API, and identifiers |
//! | [`route`] | routes, routers, replies, errors |
//! | [`authorizer`] | REQUEST authorizers, policies, contexts, origins, tickets |
//! | [`push`] | pushes, broadcasts, streams, endpoints, transports |
//! | [`registry`] | connections, principals, groups, and the stores for them |
//! | [`hub`] | sending to groups and principals, presence, sweeps |
//! | [`reply`] | reply addresses, jobs, the worker, idempotency stores |
//! | [`rate_limit`] | limits for messages |
//! | [`local`] | the local gateway |
//! | [`mod@metrics`] | names, units, and labels of the metrics |
//!
//! # Features
//!
//! | feature | default | adds | brings |
//! |---|---|---|---|
//! | `runtime` | yes | [`run`], [`authorizer::run`], tower services | `lambda_runtime`, tokio |
//! | `sdk` | yes | [`push::Sdk`], [`Pusher::from_env`] | the AWS SDK's client, `aws-config`, rustls on ring |
//! | `direct` | | [`push::Direct`]: pushes without the SDK, for a quarter of the CPU time | `aws-sigv4`, hyper, rustls on ring |
//! | `push` | with `sdk`, `direct`, `local` | [`Pusher`] over your own transport | tokio's timer |
//! | `garde` | | [`route::Valid`]: bodies validated by that crate | `garde` |
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
//! Features only add items. Without any, the crate depends on neither an async runtime nor an AWS
//! SDK.
//!
//! # Logs
//!
//! The crate logs through [`tracing`](https://docs.rs/tracing), in a span with the request id, the
//! connection id, the route key, and the trace id. Jobs and pushes have their own spans;
//! [`Router::on_trace`] makes them parts of one trace.
//!
//! It never logs a query string, a header's value, a body, or an authorizer's context.
//! `lambda_runtime` itself logs whole events at the level `TRACE`: leave that off where tokens
//! travel in the query string.
//!
//! # Security
//!
//! Everything is denied by default: an authorizer that fails, a hub without a join policy, a worker
//! that gets an unsigned address. Keys and tokens are compared in constant time. The crate contains
//! no unsafe code.
//!
//! # Minimum supported Rust version
//!
//! 1.94.1, which is that of the AWS SDK. It is raised with the SDK's.

#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Links to what a feature adds can only be followed where the feature is on.
#![cfg_attr(
    not(all(
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
