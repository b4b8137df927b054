//! Clients whose authorization expires while they are connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_websocket::authorizer::{Authorization, Authorizer, Denied, Request, RouteArn};
use lambda_websocket::event::RequestContext;
use lambda_websocket::hub::{Hub, OnConnect, OnDisconnect};
use lambda_websocket::local::{Client, Gateway};
use lambda_websocket::push::Recorder;
use lambda_websocket::registry::{Group, InMemory, Namespace, ReadOptions};
use lambda_websocket::route::StatusCode;
use lambda_websocket::{Event, Json, Message, Pusher, Router};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture;

const MINUTE: Duration = Duration::from_secs(60);

/// Authorizes every client for as many seconds as its token says.
async fn authorize(request: Request) -> Result<Authorization, Denied> {
    let seconds = request.query("Auth").ok_or(Denied::Unauthorized)?.parse().map_err(|_| Denied::Unauthorized)?;
    let now = request.request_context().request_time;
    let authorization = Authorization::allow("alice").with_expiry(now + Duration::from_secs(seconds));
    authorization.with_context(&json!({"org": 7}))
}

fn counting(handled: &Arc<AtomicUsize>) -> Router {
    let handled = Arc::clone(handled);
    Router::new().on("say", move |Json(message): Json<Value>| {
        handled.fetch_add(1, Ordering::SeqCst);
        async move { Ok(Json(message["text"].clone())) }
    })
}

async fn is_answered(client: &mut Client) -> bool {
    client.send_json(&json!({"action": "say", "text": "hello", "id": 1})).await.unwrap();
    client.next_json().await.unwrap() == json!({"id": 1, "result": "hello"})
}

#[tokio::test(start_paused = true)]
async fn message_after_token_expiry_closes_the_connection() {
    // With pushed replies, and with replies in the route response.
    for pushes in [true, false] {
        let handled = Arc::new(AtomicUsize::new(0));
        let builder = Gateway::builder("dev").authorizer(authorize, ["route.request.querystring.Auth"]);
        let pusher = builder.pusher();
        let router = counting(&handled).close_expired(pusher.clone());
        let gateway = match pushes {
            true => builder.router(router.push_replies(pusher)),
            false => builder.router(router).route_response("say"),
        };
        let gateway = gateway.start().await.unwrap();
        let mut client = gateway.connect("?Auth=90").await.unwrap();
        let mut other = gateway.connect("?Auth=7200").await.unwrap();
        sleep(MINUTE).await;
        assert!(is_answered(&mut client).await);
        sleep(MINUTE).await;
        client.send_json(&json!({"action": "say", "text": "hello", "id": 2})).await.unwrap();
        let expected =
            json!({"code": "authorization_expired", "message": "the authorization has expired: connect again"});
        assert_eq!(client.next_json().await.unwrap(), json!({"id": 2, "error": expected}));
        assert_eq!(client.closed().await.unwrap().0, 1000);
        assert!(is_answered(&mut other).await, "the other's token is good for two hours");
        assert_eq!(handled.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn listening_client_gets_nothing_after_token_expiry_and_is_swept() {
    let builder = Gateway::builder("dev").authorizer(authorize, ["route.request.querystring.Auth"]);
    let namespace = Namespace::new("chat").unwrap();
    let hub = Hub::builder(InMemory::new(), builder.pusher())
        .in_namespace(namespace.clone())
        .announcing(|events| Some(json!({"left": events.len()})))
        .with_sweep_period(MINUTE)
        .with_sweep_interval(MINUTE)
        .build();
    let lobby = Group::new("lobby").unwrap();
    let joining = lobby.clone();
    let on_connect = OnConnect::new(hub.clone()).joining(move |_| Ok(vec![joining.clone()]));
    let router = Router::new().route(on_connect).route(OnDisconnect::new(hub.clone()));
    let gateway = builder.router(router).start().await.unwrap();
    let mut brief = gateway.connect("?Auth=90").await.unwrap();
    let mut lasting = gateway.connect("?Auth=7200").await.unwrap();
    sleep(MINUTE).await;
    let report = hub.sweep(&namespace).await;
    assert_eq!((report.alive, report.expired.len()), (2, 0), "{report}");
    assert_eq!(hub.send_to(&namespace.group(&lobby), "hello").await.unwrap().report.delivered, 2);
    assert_eq!(brief.next_json().await.unwrap(), "hello");

    sleep(MINUTE).await;
    assert_eq!(hub.send_to(&namespace.group(&lobby), "again").await.unwrap().report.delivered, 1);
    let report = hub.sweep(&namespace).await;
    assert_eq!((report.alive, report.expired.len(), report.removed.len()), (1, 1, 0), "{report}");
    assert!(report.to_string().contains("1 closed, since their authorization has expired"), "{report}");
    report.require_all().unwrap();
    assert_eq!(brief.closed().await.unwrap().0, 1000, "without having got the second message");
    assert_eq!(lasting.next_json().await.unwrap(), "hello");
    assert_eq!(lasting.next_json().await.unwrap(), "again");
    assert_eq!(hub.registry().count(&namespace.everyone(), ReadOptions::default()).await.unwrap(), 1);
}

#[tokio::test]
async fn expired_and_closed_connection_is_removed_as_stale() {
    let recorder = Recorder::new();
    let hub = Hub::builder(InMemory::new(), Pusher::new(recorder.clone())).with_sweep_period(Duration::ZERO).build();
    let mut event = fixture::json("connect");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    event["requestContext"]["connectedAt"] = json!((now.as_secs() - 600) * 1000);
    event["requestContext"]["authorizer"] = json!({"principalId": "alice", "authorizationExpiresAt": "1"});
    let event = serde_json::from_value::<Event>(event).unwrap();
    let connection = hub.connection(event.request_context()).unwrap();
    assert!(hub.registry().insert(&connection).await.unwrap().is_registered());
    recorder.hang_up(connection.id());
    let report = hub.sweep(connection.key().namespace()).await;
    assert_eq!((report.removed.len(), report.expired.len(), report.failed.len()), (1, 0, 0), "{report}");
}

fn context(expires_at: Value) -> RequestContext {
    let mut json = fixture::json("message");
    json["requestContext"]["authorizer"] =
        json!({"principalId": "alice", "org": "7", "authorizationExpiresAt": expires_at});
    serde_json::from_value::<Event>(json).unwrap().request_context().clone()
}

#[test]
fn expiry_passes_the_gateway_apart_from_context_values() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Values {
        org: u64,
    }
    let arn: RouteArn = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/$connect".parse().unwrap();
    let end = UNIX_EPOCH + Duration::from_millis(1_900_000_000_999);
    let response =
        Authorization::allow("alice").with_expiry(end).with_context(&json!({"org": 7})).unwrap().respond(&arn);
    let answer = serde_json::to_value(response.unwrap()).unwrap();
    assert_eq!(answer["context"], json!({"org": 7, "authorizationExpiresAt": 1_900_000_000_u64}));

    let arrived = context(json!("1900000000"));
    assert_eq!(arrived.authorization_expires_at(), Some(UNIX_EPOCH + Duration::from_secs(1_900_000_000)));
    assert_eq!(arrived.context::<Values>().unwrap().org, 7);
    assert_eq!(context(json!(1_900_000_000_u64)).authorization_expires_at(), arrived.authorization_expires_at());
    assert_eq!(fixture::event("message").request_context().authorization_expires_at(), None);
    // A value that cannot be parsed counts as expired.
    for other in
        [json!(""), json!("soon"), json!("-1"), json!("1e400"), json!(null), json!(true), json!([1]), json!(u64::MAX)]
    {
        assert_eq!(context(other.clone()).authorization_expires_at(), Some(UNIX_EPOCH), "{other}");
    }
}

#[tokio::test]
async fn expired_authorization_still_runs_connect_and_disconnect() {
    let recorder = Recorder::new();
    let router = Router::new().close_expired(Pusher::new(recorder.clone()));
    for name in ["connect", "disconnect"] {
        let mut json = fixture::json(name);
        json["requestContext"]["authorizer"] = json!({"principalId": "alice", "authorizationExpiresAt": "1"});
        let response = router.handle(serde_json::from_value(json).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(recorder.attempts(), 0);
    // A stale connection need not be closed.
    let event = |end: SystemTime| {
        let mut json = fixture::json("message");
        let end = end.duration_since(UNIX_EPOCH).unwrap().as_secs();
        json["requestContext"]["authorizer"] =
            json!({"principalId": "alice", "authorizationExpiresAt": end.to_string()});
        serde_json::from_value::<Event>(json).unwrap()
    };
    let router = router.on("$default", |_: Message| async { Ok(()) });
    assert_eq!(router.handle(event(SystemTime::now() + MINUTE)).await.unwrap().status(), StatusCode::OK);
    recorder.hang_up(&event(UNIX_EPOCH).request_context().connection_id);
    assert_eq!(router.handle(event(SystemTime::now() - MINUTE)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(recorder.attempts(), 2);
}

#[tokio::test]
async fn authorizer_response_has_expiry_without_context() {
    let authorizer = Authorizer::new(|_| async { Ok(Authorization::allow("alice").with_expiry(UNIX_EPOCH + MINUTE)) });
    let answer = authorizer.handle(fixture::request("authorizer")).await.unwrap();
    assert_eq!(answer.context().iter().collect::<Vec<_>>(), [("authorizationExpiresAt", &json!(60))]);
}
