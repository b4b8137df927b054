//! The reply protocol through the local gateway, as a client sees it.

use std::time::Duration;

use lambda_websocket::local::{CallError, ClientError, Gateway};
use serde_json::json;

use super::routes;
use crate::local::{KEY, example};

#[tokio::test]
async fn misspelled_member_is_named_in_the_error_reply() {
    let gateway = example::start(0, KEY).await.unwrap();
    let token = example::token(KEY, Duration::from_secs(60)).unwrap();
    let mut client = gateway.connect(&format!("?Auth={token}")).await.unwrap();
    client.send_text(r#"{"action":"pushtowebsocket","messag":"typo","id":7}"#).await.unwrap();
    let expected = json!({"id": 7, "error": {"code": "invalid_message", "message": "missing field `message` at line 1 column 51"}});
    assert_eq!(client.next_json().await.unwrap(), expected);
    client.expect_silence(Duration::from_millis(300)).await.unwrap();
    client.send_json(&json!({"action": "pushtowebsocket", "messag": "typo"})).await.unwrap();
    assert_eq!(client.next_json().await.unwrap()["action"], "pushtowebsocket");
    client.send_json(&json!({"action": "pushtowebsocket", "message": "hello", "id": "x"})).await.unwrap();
    assert_eq!(client.next_json().await.unwrap(), json!({"id": "x", "result": {"echoed": "hello"}}));
}

#[tokio::test]
async fn pushed_and_returned_replies_arrive_once() {
    for pushes in [false, true] {
        let builder = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
        let builder = match pushes {
            true => {
                let router = routes().push_replies(builder.pusher());
                builder.router(router)
            }
            false => builder.router(routes()).route_response("do"),
        };
        let gateway = builder.start().await.unwrap();
        let mut client = gateway.connect("").await.unwrap();
        for (what, found) in [("nothing", "result"), ("large", "error"), ("panic", "error"), ("client", "error")] {
            client.send_json(&json!({"action": "do", "do": what, "id": what})).await.unwrap();
            let frame = client.next_json().await.unwrap();
            assert_eq!(frame["id"], what);
            assert!(frame.get(found).is_some(), "{frame}");
        }
        client.expect_silence(Duration::from_millis(200)).await.unwrap();
    }
}

#[tokio::test]
async fn call_returns_its_own_reply_and_keeps_other_frames() {
    let router = routes();
    let gateway = Gateway::builder("dev").router(router).route_response("do").start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    client.send_json(&json!({"action": "do", "do": "json", "value": "first"})).await.unwrap();
    client.send_json(&json!({"action": "do", "do": "text", "id": "own"})).await.unwrap();
    let sum: Vec<u8> = client.call("do", &json!({"do": "json", "value": [1, 2]})).await.unwrap();
    assert_eq!(sum, [1, 2]);
    client.call::<()>("do", &json!({"do": "nothing"})).await.unwrap();
    let error = client.call::<()>("do", &json!({"do": "client"})).await.unwrap_err();
    let CallError::Refused { code, message, details } = &error else { panic!("{error}") };
    assert_eq!((code.as_str(), message.as_str(), details), ("conflict", "taken \u{0}\n\"\u{7f}", &Some(json!([1]))));
    assert_eq!(client.call::<()>("do", &()).await.unwrap_err().code(), Some("invalid_message"));
    let error = client.call::<u8>("do", &json!({"do": "json", "value": "x"})).await.unwrap_err();
    assert!(error.to_string().contains("the result \"x\" (invalid type: string"), "{error}");
    assert!(
        client.call::<u8>("do", &7).await.unwrap_err().to_string().starts_with("expected an object to send, found 7")
    );

    let noise = client.expect_silence(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(noise.to_string(), "expected silence, found the text frame \"\\\"first\\\"\"");
    let own = client.next_matching(|frame| frame["id"] == "own").await.unwrap();
    assert_eq!(own["result"], "words \"and\" \n");
    assert_eq!(client.next::<String>().await.unwrap(), "first");
    let mut client = client.with_timeout(Duration::from_millis(50));
    client.expect_silence(Duration::from_millis(100)).await.unwrap();
    assert!(matches!(client.next_matching(|_| true).await, Err(ClientError::TimedOut { .. })));
}
