//! Signatures of both transports, verified by a gateway that recomputes them with `aws-sigv4`.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use lambda_websocket::Pusher;
use lambda_websocket::event::{ConnectionId, Region};
use lambda_websocket::local::{Client, Gateway};
use lambda_websocket::push::{Direct, Endpoint, Payload, Push, PushError, Sdk};
use proptest::prelude::*;
use serde_json::Value;

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

async fn checked() -> (Gateway, Client, ConnectionId) {
    let gateway = Gateway::builder("dev").check_signatures(ID, SECRET).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    client.send_text("{}").await.unwrap();
    let Value::String(id) = client.next_json().await.unwrap()["connectionId"].take() else { panic!() };
    (gateway, client, ConnectionId::new(id).unwrap())
}

fn direct(endpoint: &Endpoint, id: &str, secret: &str, token: Option<String>) -> Direct {
    Direct::new(endpoint, Credentials::new(id, secret, token, None, "test")).unwrap()
}

fn transports(endpoint: &Endpoint, id: &str, secret: &str) -> [Pusher; 2] {
    let sdk = Sdk::with_static_credentials(endpoint, &Region::new("us-east-1").unwrap(), id, secret);
    [Pusher::new(sdk), Pusher::new(direct(endpoint, id, secret, None))]
}

#[tokio::test]
async fn mgt_8_valid_sigv4_is_accepted() {
    let (gateway, _, _) = checked().await;
    for pusher in transports(&gateway.endpoint(), ID, SECRET) {
        let mut client = gateway.connect("").await.unwrap();
        client.send_text("{}").await.unwrap();
        let id = client.next_json().await.unwrap()["connectionId"].as_str().unwrap().to_owned();
        let id = ConnectionId::new(id).unwrap();
        pusher.send_text(&id, "signed \u{e9}").await.unwrap();
        assert_eq!(client.next_text().await.unwrap(), "signed \u{e9}");
        assert_eq!(pusher.info(&id).await.unwrap().source_ip.unwrap().to_string(), "127.0.0.1");
        pusher.close(&id).await.unwrap();
        assert_eq!(client.closed().await.unwrap().0, 1000);
    }
}

#[tokio::test]
async fn mgt_5_and_8_invalid_sigv4_is_forbidden_with_a_reason() {
    let (gateway, _client, id) = checked().await;
    for (key, secret, expected) in [
        (ID, "another", "InvalidSignatureException: The request signature we calculated does not match"),
        ("AKIDOTHER", SECRET, "UnrecognizedClientException: The security token included in the request is invalid."),
    ] {
        for pusher in transports(&gateway.endpoint(), key, secret) {
            let error = pusher.send_text(&id, "x").await.unwrap_err();
            assert!(matches!(error, PushError::Forbidden { .. }), "{error}");
            let said = std::error::Error::source(&error).unwrap().to_string();
            assert!(said.starts_with(expected), "{said}");
        }
    }
    // The in-process pusher needs no signature.
    gateway.pusher().send_text(&id, "x").await.unwrap();
}

/// Sends a hand-written request. Returns the response's status and error type.
async fn raw(gateway: &Gateway, headers: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "GET /dev/@connections/AAAAAAAAAAAAAAA%3D HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n",
        gateway.address()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let kind = answer.lines().find_map(|line| line.strip_prefix("x-amzn-errortype: ")).unwrap_or_default();
    format!("{} {kind}", answer.get(9..12).unwrap())
}

#[tokio::test]
async fn mgt_8_malformed_signature_is_refused() {
    let (gateway, _client, _) = checked().await;
    let signed =
        |fields: &str, date: &str| format!("Authorization: AWS4-HMAC-SHA256 {fields}\r\nX-Amz-Date: {date}\r\n");
    let good = format!("Credential={ID}/20150830/us-east-1/execute-api/aws4_request");
    let fields = format!("{good}, SignedHeaders=host;x-amz-date, Signature=00");
    let incomplete = "403 IncompleteSignatureException";
    for (headers, expected) in [
        (String::new(), "403 MissingAuthenticationTokenException"),
        ("Authorization: Bearer x\r\n".to_owned(), incomplete),
        (signed(&fields, "yesterday"), incomplete),
        (format!("Authorization: AWS4-HMAC-SHA256 {fields}\r\n"), incomplete),
        (signed("", "20150830T123600Z"), incomplete),
        (signed("Credential=x, SignedHeaders=host, Signature=00", "20150830T123600Z"), incomplete),
        (signed(&fields.replace("execute-api", "s3"), "20150830T123600Z"), incomplete),
        (signed(&fields.replace("host;", ""), "20150830T123600Z"), incomplete),
        (signed(&fields, "20150830T123600Z"), "403 InvalidSignatureException"),
    ] {
        assert_eq!(raw(&gateway, &headers).await, expected, "{headers}");
    }
}

/// Returns the headers of a request like that of [`raw`], signed at a given time.
fn signed_at(gateway: &Gateway, time: SystemTime) -> String {
    let identity = Credentials::new(ID, SECRET, None, None, "test").into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("execute-api")
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let host = gateway.address().to_string();
    let uri = format!("http://{host}/dev/@connections/AAAAAAAAAAAAAAA%3D");
    let headers = [("host", host.as_str())].into_iter();
    let request = SignableRequest::new("GET", uri, headers, SignableBody::Bytes(b"")).unwrap();
    let (instructions, _) = sign(request, &params.into()).unwrap().into_parts();
    instructions.headers().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

#[tokio::test]
async fn mgt_8_signature_is_valid_for_fifteen_minutes() {
    let (gateway, _client, _) = checked().await;
    let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
    for (time, expected) in [
        (now, "410 GoneException"),
        (now - 14 * minute, "410 GoneException"),
        (now + 14 * minute, "410 GoneException"),
        (now - 16 * minute, "403 InvalidSignatureException"),
        (now + 16 * minute, "403 InvalidSignatureException"),
    ] {
        assert_eq!(raw(&gateway, &signed_at(&gateway, time)).await, expected, "{time:?} of {now:?}");
    }
}

#[test]
fn mgt_8_signatures_match_aws_sigv4() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gateway = runtime.block_on(Gateway::builder("dev").check_signatures(ID, SECRET).start()).unwrap();
    let legal = |id: String| ConnectionId::new(id).ok();
    let ids = "[!-~]{1,40}".prop_filter_map("not an id", legal);
    let token = proptest::option::of("[A-Za-z0-9+/=]{1,200}");
    let config = ProptestConfig { cases: 300, ..ProptestConfig::default() };
    proptest!(config, |(id in ids, region in "[a-z]{2}-[a-z]{4,9}-[1-9]", token in token, payload in ".{0,200}")| {
        let endpoint = gateway.endpoint().with_region(Region::new(region).unwrap());
        let transport = direct(&endpoint, ID, SECRET, token);
        let payload = Payload::new(payload).unwrap();
        let (post, info) = runtime.block_on(async { (transport.post(&id, &payload).await, transport.info(&id).await) });
        // The request passes authentication, and fails because the connection does not exist.
        for outcome in [post.unwrap_err(), info.unwrap_err()] {
            let is_let_in = matches!(outcome, PushError::Gone { .. } | PushError::BadRequest { .. });
            prop_assert!(is_let_in, "{:?}", outcome);
        }
    });
}
