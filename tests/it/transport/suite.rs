//! The contract of every transport, against responses of API Gateway. Each transport includes this module and defines `at`.

use std::error::Error as _;
use std::net::TcpListener;
use std::time::{Duration, UNIX_EPOCH};

use lambda_websocket::Pusher;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::PushError;
use wiremock::matchers::{body_string, header_regex, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::at;
use crate::broadcast::is_true;
use crate::stub::{Behavior, Stub, connection_id};

const ID: &str = "L0SM9-OF_HcCIhw=";
const PATH: &str = "/dev/@connections/L0SM9-OF_HcCIhw%3D";

fn id() -> ConnectionId {
    ConnectionId::new(ID).unwrap()
}

/// Returns the endpoint, and a pusher that does not retry, so that each response is visible.
async fn server(answer: ResponseTemplate) -> (MockServer, Pusher) {
    let server = MockServer::start().await;
    Mock::given(path(PATH)).respond_with(answer).mount(&server).await;
    let pusher = at(&format!("{}/dev", server.uri()));
    (server, pusher.without_retries())
}

async fn push(answer: ResponseTemplate) -> Result<(), PushError> {
    let (_server, pusher) = server(answer).await;
    pusher.send_text(&id(), "hello").await
}

#[tokio::test]
async fn mgt_1_and_8_push_is_a_signed_post_to_the_encoded_id() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path(PATH))
        .and(body_string("hello"))
        .and(header_regex(
            "authorization",
            "^AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/[0-9]{8}/eu-central-1/execute-api/aws4_request, ",
        ))
        .respond_with(ResponseTemplate::new(200))
        .expect(1)
        .mount(&server)
        .await;
    at(&format!("{}/dev", server.uri())).send_text(&id(), "hello").await.unwrap();
}

#[tokio::test]
async fn mgt_2_get_returns_connection_info() {
    let body = r#"{"connectedAt":"2022-01-25T18:50:04.673Z","identity":{"sourceIp":"203.0.113.7","userAgent":null},
        "lastActiveAt":"2022-01-25T18:51:04.673Z"}"#;
    let (_server, pusher) = server(ResponseTemplate::new(200).set_body_raw(body, "application/json")).await;
    let info = pusher.info(&id()).await.unwrap();
    assert_eq!(info.connected_at, UNIX_EPOCH + Duration::from_millis(1_643_136_604_673));
    assert_eq!((info.last_active_at.duration_since(info.connected_at)).unwrap(), Duration::from_secs(60));
    assert_eq!(info.source_ip.unwrap().to_string(), "203.0.113.7");
    assert_eq!(info.user_agent, None);
}

#[tokio::test]
async fn mgt_9_close_sends_delete() {
    let server = MockServer::start().await;
    Mock::given(method("DELETE")).respond_with(ResponseTemplate::new(204)).expect(1).mount(&server).await;
    at(&format!("{}/dev", server.uri())).close(&id()).await.unwrap();
}

#[tokio::test]
async fn mgt_3_to_7_every_status_maps_to_its_error() {
    let typed = |status: u16, kind: &str| ResponseTemplate::new(status).insert_header("x-amzn-ErrorType", kind);
    let said = |body: &'static str| ResponseTemplate::new(403).set_body_raw(body, "application/json");
    assert!(matches!(push(ResponseTemplate::new(200)).await, Ok(())));
    for answer in
        [typed(410, "GoneException"), ResponseTemplate::new(410), ResponseTemplate::new(410).set_body_string("<")]
    {
        assert!(matches!(push(answer).await, Err(PushError::Gone { connection_id }) if connection_id == id()));
    }
    let answer =
        typed(400, "BadRequestException").set_body_raw(r#"{"message":"Invalid connectionId: x"}"#, "application/json");
    let error = push(answer).await.unwrap_err();
    assert!(matches!(error, PushError::BadRequest { .. }), "{error:?}");
    assert_eq!(error.source().unwrap().to_string(), "BadRequestException: Invalid connectionId: x");
    for answer in [
        typed(403, "ForbiddenException"),
        typed(403, "AccessDeniedException"),
        said(r#"{"message":"Forbidden"}"#),
        said(r#"{"Message":"not authorized"}"#),
        said("<html>"),
    ] {
        assert!(matches!(push(answer).await, Err(PushError::Forbidden { .. })));
    }
    for answer in [typed(413, "PayloadTooLargeException"), ResponseTemplate::new(413)] {
        assert!(matches!(push(answer).await, Err(PushError::TooLarge { size: 5 })));
    }
    for answer in [typed(429, "LimitExceededException"), ResponseTemplate::new(429)] {
        assert!(matches!(push(answer).await, Err(PushError::Throttled { .. })));
    }
    for status in [500, 502, 503, 504, 599] {
        assert!(matches!(push(ResponseTemplate::new(status)).await, Err(PushError::Unavailable { .. })), "{status}");
    }
    for status in [301, 404, 426] {
        assert!(matches!(push(ResponseTemplate::new(status)).await, Err(PushError::Unexpected { .. })), "{status}");
    }
}

#[tokio::test]
async fn transport_does_not_retry() {
    let (server, pusher) = server(ResponseTemplate::new(503)).await;
    let error = pusher.send_text(&id(), "hello").await.unwrap_err();
    assert!(matches!(error, PushError::Unavailable { .. }), "{error:?}");
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn more_than_a_hundred_retries_are_possible() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(429)).up_to_n_times(150).mount(&server).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let pusher = at(&format!("{}/dev", server.uri())).with_random(|| 0.0);
    pusher.with_timeout(Duration::from_secs(60)).send_text(&id(), "hello").await.unwrap();
    assert_eq!(server.received_requests().await.unwrap().len(), 151);
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pusher = at(&format!("http://{free}/dev")).without_retries();
    let error = pusher.send_text(&id(), "hello").await.unwrap_err();
    assert!(matches!(error, PushError::Unreachable { .. }), "{error:?}");
    assert_eq!(error.to_string(), "the endpoint cannot be reached");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn broken_connection_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    let pusher = at(&format!("http://{address}/dev")).without_retries();
    assert!(matches!(pusher.send_text(&id(), "hello").await, Err(PushError::Unreachable { .. })));
}

#[tokio::test]
async fn missing_response_times_out() {
    let (_server, pusher) = server(ResponseTemplate::new(200).set_delay(Duration::from_secs(600))).await;
    let pusher = pusher.with_timeout(Duration::from_millis(200));
    assert!(matches!(pusher.send_text(&id(), "hello").await, Err(PushError::TimedOut { .. })));
}

#[test]
fn debug_output_hides_credentials() {
    let shown = format!("{:?}", at("https://ws.example.com/chat"));
    assert!(shown.contains("ws.example.com") && !shown.contains("secret") && !shown.contains("AKID"), "{shown}");
}

#[tokio::test]
async fn broadcast_report_matches_the_server_log() {
    for seed in 0..6 {
        let behavior = Behavior {
            latency: Duration::from_millis(seed % 3),
            gone: 0.1,
            throttled: 0.1,
            failed: 0.05,
            forbidden: 0.02,
            stalled: 0.02,
            seed,
            forgets: false,
        };
        let stub = Stub::start(behavior, None).await;
        let pusher = at(&format!("http://{}/dev", stub.address)).with_attempt_timeout(Duration::from_millis(300));
        let report = pusher.with_concurrency(32).broadcast((0..400).map(connection_id), "hello").unwrap().await;
        assert!(report.is_complete && report.not_tried.is_empty(), "{report}");
        is_true(&report, &stub.log, 400);
    }
}
