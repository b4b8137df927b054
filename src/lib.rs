//! Builds AWS API Gateway WebSocket APIs on Lambda: typed routes, authorizers, pushes, rooms and
//! presence, replies from queues, and a local API Gateway emulator.
//!
//! API Gateway holds the connections of a WebSocket API. It calls a Lambda function for each event
//! of a connection, and sends to a client when a function calls its `@connections` API. With this
//! crate you write these functions. It is not a WebSocket server, not a framework for HTTP or REST
//! APIs, and it deploys nothing.
//!
//! This page is a tour: [routes](#routes), [replies and errors](#replies-and-errors),
//! [authorizers](#authorizers), [pushing](#pushing), [rooms and presence](#rooms-and-presence),
//! [replies from queues](#replies-from-queues), [testing](#testing), [deployment](#deployment), and
//! [features](#features). The [`guide`] explains each of them at length; start with
//! [Getting started](guide::getting_started).
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
//! compile. A handler can also be an `async fn`. Its arguments come from the event and from the
//! state that the routes share:
//!
//! ```
//! use lambda_websocket::event::ConnectionId;
//! use lambda_websocket::route::State;
//! use lambda_websocket::{Json, Result, Router};
//!
//! struct App { greeting: &'static str }
//!
//! #[derive(serde::Deserialize)]
//! struct Greet { name: String }
//!
//! async fn greet(
//!     Json(body): Json<Greet>,
//!     me: ConnectionId,
//!     app: State<App>,
//! ) -> Result<Json<String>> {
//!     Ok(Json(format!("{}, {}: you are {me}", app.greeting, body.name)))
//! }
//!
//! let router = Router::with_state(App { greeting: "Hello" }).on("greet", greet);
//! ```
//!
//! Three route keys are predefined:
//!
//! | key | event | runs |
//! |---|---|---|
//! | `$connect` | [`Connect`] | before the connection opens; an error rejects the handshake |
//! | `$disconnect` | [`Disconnect`] | after the connection has closed; best-effort |
//! | `$default` | [`Message`] | for a message that selects no other route |
//!
//! # Replies and errors
//!
//! A message may have an `id`. The client then gets exactly one final reply with that `id`:
//!
//! ```text
//! > {"action":"add","id":7,"left":2,"right":3}
//! < {"id":7,"result":5}
//! > {"action":"add","id":8,"left":2}
//! < {"id":8,"error":{"code":"invalid_message","message":"missing field `right` at …"}}
//! ```
//!
//! The `?` operator converts any error into a [`route::Error`]. The client gets the code `internal`
//! and the request id, and the log gets the error with its sources. [`route::Error::client`] is an
//! error whose code and text are for the client; [`Router::map_error`] converts your own error
//! types. A panic of a handler is an `internal` error, too.
//!
//! [`Router::push_replies`] pushes replies to the client. Without it they are the response of the
//! function, which API Gateway delivers only on routes that have a
//! [route response](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-route-response.html).
//!
//! # Authorizers
//!
//! A REQUEST authorizer decides who may connect. Its response is an IAM policy with a context:
//!
#![cfg_attr(feature = "runtime", doc = "```no_run")]
#![cfg_attr(not(feature = "runtime"), doc = "```text")]
//! use lambda_websocket::authorizer::{self, Authorization, Denied, Request};
//!
//! async fn authorize(request: Request) -> Result<Authorization, Denied> {
//!     let token = request.query("Auth").ok_or(Denied::Unauthorized)?; // 401
//!     let user = token.strip_prefix("user-").ok_or(Denied::Forbidden)?; // 403
//!     let context = serde_json::json!({"org": 7, "admin": true});
//!     Authorization::allow(user).with_context(&context) // a nested value is an error
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), lambda_runtime::Error> {
//!     authorizer::run(authorize).await
//! }
//! ```
//!
//! API Gateway turns context values into strings; [`event::RequestContext::context`] parses them
//! back into the types of a struct. The module [`authorizer`] also has policies with conditions, an
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
//!     let message = serde_json::json!({"event": "restart"});
//!     let report = pusher.broadcast(ids, &message)?.await;
//!     for id in &report.gone {
//!         println!("{id} has disconnected");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`Pusher::from_env`] reads the endpoint from the [environment](#deployment). In place of it,
//! [`push::Endpoint::from_context`] takes the endpoint of an event. The pusher retries with
//! exponential backoff and full jitter: until 200 ms before the deadline of the invocation, and for
//! at most 5 seconds after the first 429. [`push::PushError`] lists the errors.
//!
//! # Rooms and presence
//!
//! A [`registry`] stores the open connections with their principals and groups. A [`hub`] combines
//! it with a pusher:
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
//!     let on_connect = OnConnect::new(hub.clone());
//!     Router::with_state(hub.clone())
//!         .route(on_connect.joining(|_| Ok(vec![Group::new("lobby")?])))
//!         .route(OnDisconnect::new(hub))
//!         .on("say", say)
//! }
//! ```
//!
//! On Lambda, use [`registry::DynamoDb`] in place of [`registry::InMemory`].
//!
//! # Replies from queues
//!
//! API Gateway waits at most 29 seconds for a function. A route puts slower work into a queue,
//! together with the address of the client. A [`reply::Worker`] runs the job and pushes the result:
//!
#![cfg_attr(feature = "worker", doc = "```")]
#![cfg_attr(not(feature = "worker"), doc = "```text")]
//! use lambda_websocket::reply::{Accepted, Job, Keys, Task, Worker};
//! use lambda_websocket::{Message, Pusher, Result};
//!
//! #[derive(serde::Deserialize, serde::Serialize)]
//! struct Count { text: String }
//!
//! /// In the route.
//! async fn enqueue(event: Message<Count>, keys: &Keys) -> Result<Accepted> {
//!     let address = event.reply_address()?;
//!     let body = serde_json::to_string(&Job::seal(&event.body, &address, keys)?)?;
//!     send_to_queue(body).await?;
//!     Ok(Accepted::for_address(&address)) // {"id":…,"accepted":true}
//! }
//!
//! /// The function of the queue. The client gets {"id":…,"result":…}.
//! async fn run(pusher: Pusher, keys: Keys) -> Result<(), lambda_runtime::Error> {
//!     Worker::new(pusher, keys, count).run().await
//! }
//!
//! async fn count(task: Task<Count>) -> Result<usize> {
//!     Ok(task.job.text.chars().count())
//! }
//!
//! async fn send_to_queue(_body: String) -> Result<()> {
//!     Ok(()) // for example with aws-sdk-sqs
//! }
//! ```
//!
//! # Testing
//!
//! Unit tests need no gateway: [`Router::handle`] handles an event, [`push::Recorder`] records
//! pushes, and [`authorizer::Policy::evaluate`] evaluates a policy as IAM does. The [`local`]
//! gateway runs the same functions over real sockets, in its own process or as other processes in
//! any language:
//!
#![cfg_attr(feature = "local", doc = "```")]
#![cfg_attr(not(feature = "local"), doc = "```text")]
//! use lambda_websocket::local::Gateway;
//! use lambda_websocket::{Json, Message, Router};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let router = Router::new().on("ping", |_: Message| async { Ok(Json("pong")) });
//!     let gateway = Gateway::builder("dev").router(router).route_response("ping");
//!     let gateway = gateway.start().await?;
//!     let mut client = gateway.connect("").await?;
//!     client.send_text(r#"{"action":"ping"}"#).await?;
//!     assert_eq!(client.next_json().await?, "pong");
//!     Ok(())
//! }
//! ```
//!
//! It injects the failures that occur on AWS, and records what happened and why.
//! [`guide::conformance`] documents its behavior rule by rule.
//!
//! # Deployment
//!
//! One function may serve all routes, or each route may have a function of its own:
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
//! A function that pushes needs these environment variables:
//!
//! | variable | value |
//! |---|---|
//! | `API_GATEWAY_ID` | id of the API |
//! | `STAGE` | name of the stage |
//! | `AWS_REGION` | region of the API; Lambda sets it |
//! | `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` | optional: the URL of a custom domain, an emulator, or the local gateway |
//!
//! It also needs the permission `execute-api:ManageConnections` on
//! `arn:aws:execute-api:<region>:<account>:<api>/<stage>/POST/@connections/*`. API Gateway needs the
//! permission to invoke each function. [`guide::deploying`] has templates with all of these.
//!
//! # Features
//!
//! | feature | default | adds | brings |
//! |---|---|---|---|
//! | `runtime` | yes | [`run`], [`authorizer::run`], tower services | `lambda_runtime`, tokio |
//! | `sdk` | yes | [`push::Sdk`], [`Pusher::from_env`] | the AWS SDK's client, `aws-config`, rustls on ring |
//! | `sso` | | credentials of IAM Identity Center and of credential processes | more of `aws-config` |
//! | `direct` | | [`push::Direct`]: pushes without the SDK, in a quarter of the CPU time | `aws-sigv4`, hyper, rustls on ring |
//! | `push` | with `sdk` | [`Pusher`] over your own transport; `direct`, `reply`, `hub`, and `local` enable it, too | tokio's timer |
//! | `garde` | | [`route::Valid`]: bodies validated by that crate | `garde` |
//! | `metrics` | | counters and histograms of events, pushes, broadcasts, sweeps, and jobs | the `metrics` facade |
//! | `anyhow` | | [`Router::map_error`] finds the error inside an `anyhow::Error` | `anyhow` |
//! | `tickets` | | [`authorizer::ticket`]: tokens that open one connection | HMAC and SHA-256 |
//! | `rate-limit` | | [`rate_limit`]: limits how many messages a client may send | tokio's timer |
//! | `reply` | | [`reply::ReplyAddress`] | `push`, HMAC and SHA-256 |
//! | `worker` | | [`reply::Worker`] | `reply`, `runtime`, `aws_lambda_events` |
//! | `registry` | | [`registry::Registry`], [`registry::InMemory`] | futures-util, tokio |
//! | `hub` | | [`hub::Hub`] | `registry`, `push` |
//! | `conformance` | | [`registry::conformance`] | `registry` |
//! | `dynamodb` | | [`registry::DynamoDb`], and the stores of `worker`, `tickets`, and `rate-limit` | `registry`, the AWS SDK's client of DynamoDB |
//! | `local` | | [`local::Gateway`] | `push`, `runtime`, hyper, tokio-tungstenite |
//! | `aws_lambda_events` | | conversions from and to the types of that crate | `aws_lambda_events` |
//!
//! Features are additive. Without any, the crate depends on neither an async runtime nor an AWS SDK.
//!
//! # Logs
//!
//! The crate logs through [`tracing`](https://docs.rs/tracing), in a span with the request id, the
//! connection id, the route key, and the trace id. Jobs and pushes have their own spans;
//! [`Router::on_trace`] makes them parts of one trace.
//!
//! It never logs a query string, a header's value, a body, or an authorizer's context. At the level
//! `TRACE`, `lambda_runtime` logs whole events: leave that level off, since events contain tokens.
//!
//! # Security
//!
//! Access is denied by default: an authorizer that fails lets no client connect, a hub without a
//! policy lets no client join a group, and a worker runs no job whose address is not signed.
//! Signatures are compared in constant time. The crate contains no unsafe code.
//!
//! # Minimum supported Rust version
//!
//! 1.94.1, that of the AWS SDK. It rises with the SDK's.

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
#[cfg_attr(docsrs, doc(auto_cfg = false))]
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
