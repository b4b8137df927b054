//! The gateway's timeline: what happened, and why.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_websocket::authorizer::{Authorization, Denied, Request};
use lambda_websocket::local::{Entry, EntryKind, Fault, Function, FunctionError, Gateway, When};
use lambda_websocket::{Json, Message, Router};
use serde_json::json;

fn lines(gateway: &Gateway) -> Vec<String> {
    gateway.timeline().entries().iter().map(|entry| entry.kind.to_string()).collect()
}

fn router() -> Router {
    Router::new()
        .on("one-way", |_: Message| async { Ok(Json("unseen")) })
        .on("answered", |_: Message| async { Ok(Json("seen")) })
}

#[tokio::test]
async fn client_timeout_error_explains_the_cause() {
    let gateway = Gateway::builder("dev").router(router()).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap().with_timeout(Duration::from_millis(300));
    client.send_json(&json!({"action": "one-way"})).await.unwrap();
    let error = client.next_text().await.unwrap_err().to_string();
    assert!(
        error.contains("one-way returned 200")
            && error.contains("nothing is sent, since the route has no route response"),
        "{error}"
    );
}

#[tokio::test]
async fn every_refusal_has_a_reason() {
    async fn authorize(request: Request) -> Result<Authorization, Denied> {
        match request.query("Auth") {
            Some("forbidden") => Err(Denied::Forbidden),
            Some("unauthorized") => Err(Denied::Unauthorized),
            _ => Ok(Authorization::allow("alice")),
        }
    }
    let malformed = Function::new(|_, _| async { Ok::<_, FunctionError>(br#"{"statusCode":200,"Data":1}"#.to_vec()) });
    let gateway = Gateway::builder("dev")
        .authorizer(authorize, ["route.request.querystring.Auth"])
        .function(["$connect"], malformed)
        .start()
        .await
        .unwrap();
    for (query, reason) in [
        ("", "refused with 401: the request lacks the identity source route.request.querystring.Auth"),
        ("?Auth=forbidden", "refused with 403: the authorizer's policy denies it"),
        ("?Auth=unauthorized", "refused with 401: the authorizer failed with `Unauthorized`"),
        ("?Auth=ok", "refused with 502: $connect returned a malformed response: it has the unknown member \"Data\""),
    ] {
        gateway.connect(query).await.unwrap_err();
        let lines = lines(&gateway);
        assert!(lines.last().unwrap().starts_with(reason), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("?Auth=")), "the query is left out");
    }
}

#[tokio::test]
async fn timeline_numbers_every_connection_event() {
    let seen: Arc<Mutex<Vec<Entry>>> = Arc::default();
    let observed = Arc::clone(&seen);
    let gateway = Gateway::builder("dev")
        .router(router())
        .route_response("answered")
        .observer(move |entry: &Entry| observed.lock().unwrap().push(entry.clone()))
        .start()
        .await
        .unwrap();
    let mut entries = gateway.timeline().subscribe();
    let mut client = gateway.connect("").await.unwrap();
    let id = gateway.connections().remove(0);
    gateway.inject(Fault::PostThrottled, When::Next(1));
    client.send_json(&json!({"action": "answered", "secret": "s3cret"})).await.unwrap();
    client.next_text().await.unwrap();
    client.send_json(&json!({"action": "nowhere"})).await.unwrap();
    client.next_text().await.unwrap();
    gateway.pusher().without_retries().send_text(&id, "x").await.unwrap_err();
    gateway.pusher().send_text(&id, "pushed").await.unwrap();
    client.next_text().await.unwrap();
    client.close(1000, "bye").await.unwrap();
    let what: Vec<String> = gateway.timeline().of(&id).iter().map(|entry| entry.kind.to_string()).collect();
    let expected = [
        "handshake of 127.0.0.1:",
        "opened",
        "message of 39 bytes to the route answered: it matches the route selection expression",
        "answered is called",
        "answered returned 200 after ",
        "sent 6 bytes from the route response",
        "message of 20 bytes to no route: the route selection expression gives \"nowhere\", which is not a route",
        "sent ",
        "the fault PostThrottled occurs",
        "POST @connections of 1 bytes: 429",
        "sent 6 bytes from a push",
        "POST @connections of 6 bytes: 200",
        "closed by the client with 1000 \"bye\"",
    ];
    assert_eq!(what.len(), expected.len(), "{what:#?}");
    for (found, expected) in what.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} instead of {expected:?}");
    }
    let seen = seen.lock().unwrap().clone();
    assert!(seen.iter().map(|entry| entry.number).eq(0..seen.len() as u64), "in their order, none left out");
    assert!(!format!("{seen:?}").contains("s3cret"), "bodies are not in Debug");
    let text = seen.iter().find_map(|entry| match &entry.kind {
        EntryKind::Received { text, .. } => Some(text.as_str().to_owned()),
        _ => None,
    });
    assert!(text.unwrap().contains("s3cret"), "but they are there");
    assert_eq!(entries.next().await.unwrap().number, 0);
}

#[tokio::test]
async fn observer_may_use_the_gateway() {
    let builder = Gateway::builder("dev");
    let pusher = builder.pusher();
    let observer = move |entry: &Entry| {
        if let (EntryKind::Opened { .. }, Some(id)) = (&entry.kind, &entry.connection_id) {
            let (pusher, id) = (pusher.clone(), id.clone());
            tokio::spawn(async move { pusher.send_text(&id, "welcome").await });
        }
    };
    let gateway = builder.observer(observer).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    assert_eq!(client.next_text().await.unwrap(), "welcome");
}

#[tokio::test]
async fn replacing_a_function_keeps_connections_open() {
    let gateway = Gateway::builder("dev").router(router()).route_response("answered").start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    let ask = async |client: &mut lambda_websocket::local::Client| {
        client.send_json(&json!({"action": "answered"})).await.unwrap();
        client.next_json().await.unwrap()
    };
    assert_eq!(ask(&mut client).await, "seen");
    let other = Router::new().on("answered", |_: Message| async { Ok(Json("anew")) });
    gateway.replace("answered", Function::router(other)).unwrap();
    assert_eq!(ask(&mut client).await, "anew");
    assert!(gateway.replace("none", Function::router(Router::new())).is_err());
}

#[tokio::test]
async fn replacing_the_authorizer_keeps_connections_open() {
    let authorized = |user: &'static str| {
        Function::authorizer(move |_: Request| async move { Ok::<_, Denied>(Authorization::allow(user)) })
    };
    let whoami =
        Router::new().on("whoami", |event: Message| async move { Ok(Json(event.principal_id().map(str::to_owned))) });
    let builder = Gateway::builder("dev").router(whoami).route_response("whoami");
    let gateway = builder.authorizer_function(authorized("ali"), Vec::<String>::new()).start().await.unwrap();
    let ask = async |client: &mut lambda_websocket::local::Client| {
        client.send_json(&json!({"action": "whoami"})).await.unwrap();
        client.next_json().await.unwrap()
    };
    let mut first = gateway.connect("").await.unwrap();
    gateway.replace_authorizer(authorized("bea")).unwrap();
    let mut second = gateway.connect("").await.unwrap();
    assert_eq!((ask(&mut first).await, ask(&mut second).await), (json!("ali"), json!("bea")));
    gateway.replace_authorizer(Function::authorizer(|_: Request| async { Err(Denied::Forbidden) })).unwrap();
    assert_eq!(gateway.connect("").await.unwrap_err().status(), Some(403));
    assert_eq!(ask(&mut first).await, "ali");

    let without = Gateway::builder("dev").start().await.unwrap();
    assert!(without.replace_authorizer(authorized("ali")).is_err());
}
