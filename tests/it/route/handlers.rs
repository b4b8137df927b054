//! The arguments of handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lambda_websocket::event::{ConnectionId, RequestContext};
use lambda_websocket::route::{AuthorizerContext, Error, EventKinds, FromEvent, State, StatusCode};
use lambda_websocket::{Connect, Disconnect, Event, Json, Message, Response, Result, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{panic_text, status};
use crate::fixture;

#[derive(Deserialize)]
struct Words {
    text: String,
}

#[derive(Deserialize)]
struct Session {
    org: u64,
}

/// Not `Clone`: handlers share it.
#[derive(Default)]
struct App {
    calls: AtomicUsize,
}

async fn answer<S: Send + Sync + 'static>(router: &Router<S>, event: Event) -> Response {
    router.handle(event).await.unwrap()
}

fn body(response: &Response) -> Value {
    serde_json::from_str(response.text().unwrap()).unwrap()
}

async fn nothing() -> Result<()> {
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "as many as there can be")]
async fn eight(
    me: ConnectionId,
    Json(words): Json<Words>,
    app: State<App>,
    context: RequestContext,
    session: AuthorizerContext<Session>,
    message: Message<Words>,
    raw: Message,
    connect: Option<Connect>,
) -> Result<Json<Value>> {
    assert!(connect.is_none());
    Ok(Json(json!({
        "me": me,
        "text": words.text,
        "calls": app.calls.fetch_add(1, Ordering::Relaxed),
        "stage": context.stage,
        "org": session.org,
        "again": message.body.text,
        "raw": raw.body.to_text(),
    })))
}

#[tokio::test]
async fn handlers_take_zero_to_eight_arguments() {
    let router = Router::with_state(App::default())
        .on("nothing", nothing)
        .on("eight", eight)
        .on("three", |app: State<App>, Json(words): Json<Words>, me: ConnectionId| async move {
            Ok(Json((app.calls.load(Ordering::Relaxed), words.text, me)))
        })
        .on("$connect", |connect: Connect, disconnect: Option<Disconnect>, message: Option<Json<Words>>| async move {
            assert!(disconnect.is_none() && message.is_none());
            Ok(Response::new(StatusCode::ACCEPTED).body(connect.query("Auth").unwrap_or_default()))
        });
    let text = r#"{"text":"hello"}"#;
    assert_eq!(answer(&router, fixture::message("nothing", "no JSON")).await.text(), None);
    for calls in 0..2 {
        let said = body(&answer(&router, fixture::message("eight", text)).await);
        let expected = json!({
            "me": "Kb7p2d5_vHcCIhw=", "text": "hello", "calls": calls, "stage": "dev", "org": 7, "again": "hello", "raw": text,
        });
        assert_eq!(said, expected);
    }
    let said = body(&answer(&router.clone(), fixture::message("three", text)).await);
    assert_eq!(said, json!([2, "hello", "Kb7p2d5_vHcCIhw="]), "clones share the state");
    assert_eq!(answer(&router, fixture::event("connect")).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn mismatched_body_does_not_reach_the_handler() {
    let called = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&called);
    let router = Router::new().on("say", move |_: ConnectionId, _: Json<Words>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    });
    assert_eq!(status(&router, fixture::message("say", r#"{"txt":"typo"}"#)).await, 400);
    assert_eq!(called.load(Ordering::Relaxed), 0);
    assert_eq!(status(&router, fixture::message("say", r#"{"text":""}"#)).await, 200);
    assert_eq!(called.load(Ordering::Relaxed), 1);
}

#[cfg(feature = "garde")]
#[tokio::test]
async fn invalid_body_error_names_the_member_and_problem() {
    use garde::Validate;
    use lambda_websocket::route::Valid;

    #[derive(Deserialize, Validate)]
    struct Order {
        #[garde(length(min = 1, max = 3))]
        name: String,
        #[garde(range(min = 1))]
        count: u32,
    }

    let router =
        Router::new().on("order", |order: Valid<Order>| async move { Ok(Json((order.name.len(), order.count))) });
    let ordered = answer(&router, fixture::message("order", r#"{"name":"pie","count":2}"#)).await;
    assert_eq!(body(&ordered), json!([3, 2]));
    let refused = answer(&router, fixture::message("order", r#"{"id":1,"name":"","count":0}"#)).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let error = &body(&refused)["error"];
    assert_eq!((&error["code"], &error["message"]), (&json!("invalid_message"), &json!("not valid: count, name")));
    assert_eq!(error["details"]["name"], json!(["length is lower than 1"]));
    assert_eq!(error["details"].as_object().unwrap().len(), 2);
    let undecodable = answer(&router, fixture::message("order", r#"{"name":7}"#)).await;
    assert_eq!(body(&undecodable)["error"]["code"], "invalid_message");
}

#[cfg(feature = "reply")]
#[tokio::test]
async fn reply_address_and_sender_are_extractors() {
    use lambda_websocket::Pusher;
    use lambda_websocket::push::Recorder;
    use lambda_websocket::reply::ReplyAddress;
    use lambda_websocket::route::Sender;

    let recorder = Recorder::new();
    let router = Router::with_state(Pusher::new(recorder.clone())).on(
        "later",
        |address: ReplyAddress, sender: Sender| async move {
            assert_eq!(address.connection_id(), sender.id());
            sender.send(&"meanwhile").await?;
            Ok(Json(address.correlation_id().clone()))
        },
    );
    let replied = body(&answer(&router, fixture::message("later", r#"{"id":7}"#)).await);
    assert_eq!(replied, json!({"id": 7, "result": 7}));
    let pushes = recorder.pushes();
    assert_eq!((pushes.len(), pushes[0].text()), (1, "\"meanwhile\"".to_owned()));
}

/// A custom extractor that uses another one.
struct Member {
    name: String,
}

impl FromEvent<App> for Member {
    const EVENTS: EventKinds = EventKinds::MESSAGE.or(EventKinds::CONNECT);

    async fn from_event(event: &Event, app: &Arc<App>) -> Result<Self> {
        tokio::task::yield_now().await;
        app.calls.fetch_add(1, Ordering::Relaxed);
        match event.request_context().principal_id() {
            Some(name) => Ok(Self { name: name.to_owned() }),
            None => Err(Error::client(StatusCode::UNAUTHORIZED, "who are you?")),
        }
    }
}

#[tokio::test]
async fn custom_extractor_reads_event_and_state_or_rejects() {
    let router = Router::with_state(App::default())
        .on("who", |member: Member, app: State<App>| async move {
            Ok(Json((member.name.clone(), app.calls.load(Ordering::Relaxed))))
        })
        .on("$disconnect", |member: Option<Member>| async move {
            assert!(member.is_none(), "a disconnect has none");
            Ok(())
        });
    assert_eq!(body(&answer(&router, fixture::message("who", "")).await), json!(["alice", 1]));
    let anonymous = fixture::changed("message_without_authorizer", "/requestContext/routeKey", "who");
    let refused = answer(&router, Event::from_slice(&anonymous).unwrap()).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.text().unwrap().contains("who are you?"));
    assert_eq!(status(&router, fixture::event("disconnect")).await, 200);
}

#[test]
fn unavailable_extractor_panics_when_the_router_is_built() {
    for (build, expected) in [
        (
            Box::new(|| Router::new().on("$connect", |_: ConnectionId, _: Json<Words>| async { Ok(()) }))
                as Box<dyn FnOnce() -> Router + std::panic::UnwindSafe>,
            "route \"$connect\": its events have no `lambda_websocket::route::response::Json<",
        ),
        (
            Box::new(|| Router::new().on("say", |_: Connect| async { Ok(()) })),
            "route \"say\": its events have no `lambda_websocket::event::Connect`, which is an argument of its handler",
        ),
        (
            Box::new(|| Router::new().on("$disconnect", |_: Connect, _: Disconnect| async { Ok(()) })),
            "route \"$disconnect\": its events have no `lambda_websocket::event::Connect`",
        ),
    ] {
        let (text, place) = panic_text(build);
        assert!(text.starts_with(expected), "{text}");
        assert!(place.contains("handlers.rs"), "{place}");
    }
}
