//! The example `authorizer` with keys from a secret that is rotated while clients are connected.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use lambda_websocket::local::{Client, Gateway};
use lambda_websocket::{Message, Response, Router};
use serde_json::json;
use wiremock::matchers::{header, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::local::example::authorizer::Tokens;
use crate::local::example::authorizer::key_secret::KeySecret;

const SECRET: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:jwt-AbCdEf";

fn key(name: &str) -> String {
    format!("{name}: a key for tests, which has 32 bytes at least")
}

fn token(name: &str) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
    let claims = json!({"sub": name, "org": 7, "exp": exp});
    encode(&Header::default(), &claims, &EncodingKey::from_secret(key(name).as_bytes())).unwrap()
}

/// Sets the secret that the extension returns from now on.
async fn keep(extension: &MockServer, current: &str, previous: Option<&str>) {
    extension.reset().await;
    for (stage, name) in [("AWSCURRENT", Some(current)), ("AWSPREVIOUS", previous)] {
        let answer = match name {
            Some(name) => ResponseTemplate::new(200).set_body_json(json!({"Name": "jwt", "SecretString": key(name)})),
            None => ResponseTemplate::new(400).set_body_string("…ResourceNotFoundException: no value for AWSPREVIOUS"),
        };
        Mock::given(path("/secretsmanager/get"))
            .and(query_param("secretId", SECRET))
            .and(query_param("versionStage", stage))
            .and(header("X-Aws-Parameters-Secrets-Token", "session"))
            .respond_with(answer)
            .mount(extension)
            .await;
    }
}

async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

async fn connect(gateway: &Gateway, name: &str) -> Result<Client, Option<u16>> {
    gateway.connect(&format!("?Auth={}", token(name))).await.map_err(|error| error.status())
}

async fn is_answered(client: &mut Client) -> bool {
    client.send_text("\"hello\"").await.unwrap();
    client.next_json().await.unwrap() == "hello"
}

#[tokio::test]
async fn keys_rotate_while_clients_are_connected() {
    let extension = MockServer::start().await;
    let tokens = Tokens::from_secret(KeySecret::at(&extension.address().to_string(), SECRET, "session".to_owned()));
    let router = Router::new()
        .on("$default", |message: Message| async move { Ok(Response::ok().body(message.body.to_text().into_owned())) });
    let gateway = Gateway::builder("dev")
        .authorizer(move |request| tokens.clone().authorize(request), ["route.request.querystring.Auth"])
        .router(router)
        .route_response("$default");
    let gateway = gateway.start().await.unwrap();

    // Without a key the authorizer refuses every client, as a server error.
    Mock::given(path("/secretsmanager/get")).respond_with(ResponseTemplate::new(400)).mount(&extension).await;
    assert_eq!(connect(&gateway, "first").await.map(drop), Err(Some(500)));

    pass(11).await;
    keep(&extension, "first", None).await;
    let mut early = connect(&gateway, "first").await.unwrap();
    assert_eq!(connect(&gateway, "forged").await.map(drop), Err(Some(403)));

    pass(11).await;
    keep(&extension, "second", Some("first")).await;
    assert!(is_answered(&mut connect(&gateway, "second").await.unwrap()).await, "a new key counts at once");
    assert!(is_answered(&mut connect(&gateway, "first").await.unwrap()).await, "the one before it still counts");

    pass(11).await;
    keep(&extension, "third", Some("second")).await;
    connect(&gateway, "third").await.unwrap();
    assert_eq!(connect(&gateway, "first").await.map(drop), Err(Some(403)), "the one before that no longer does");
    assert!(is_answered(&mut early).await, "who is connected stays");

    // Tokens with invented keys do not make the function read the secret each time.
    let before = extension.received_requests().await.unwrap().len();
    for _ in 0..20 {
        assert_eq!(connect(&gateway, "forged").await.map(drop), Err(Some(403)));
    }
    assert_eq!(extension.received_requests().await.unwrap().len(), before);

    // A key withdrawn in an emergency is accepted for at most five minutes, even if no unknown key arrives.
    keep(&extension, "fourth", None).await;
    connect(&gateway, "third").await.unwrap();
    pass(301).await;
    assert_eq!(connect(&gateway, "third").await.map(drop), Err(Some(403)));

    // If the extension fails, tokens with cached keys are still accepted.
    extension.reset().await;
    pass(301).await;
    assert!(is_answered(&mut connect(&gateway, "fourth").await.unwrap()).await);
}

#[tokio::test]
async fn too_short_key_is_refused() {
    let extension = MockServer::start().await;
    let short = ResponseTemplate::new(200).set_body_json(json!({"SecretString": "short"}));
    Mock::given(path("/secretsmanager/get")).respond_with(short).mount(&extension).await;
    let tokens = Tokens::from_secret(KeySecret::at(&extension.address().to_string(), SECRET, "session".to_owned()));
    let gateway = Gateway::builder("dev")
        .authorizer(move |request| tokens.clone().authorize(request), ["route.request.querystring.Auth"])
        .start()
        .await
        .unwrap();
    assert_eq!(connect(&gateway, "short").await.map(drop), Err(Some(500)));
}
