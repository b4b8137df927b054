//! From event bytes to response bytes: a `Router` compared with hand-written code.
//!
//! ```sh
//! cargo bench --bench dispatch --no-default-features --features runtime
//! ```
//!
//! Both use what `lambda_runtime` uses: its deserializer, which tracks the path, for the event, and
//! `serde_json` for the response. Times are medians of alternating rounds. Valgrind's callgrind,
//! which this program runs on itself, counts instructions; the counts are the same in every run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench that panics has failed, which is all it can do"
)]

use std::env;
use std::fmt::Write as _;
use std::hint::black_box;
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use aws_lambda_events::encodings::Body;
use aws_lambda_events::event::apigw::{ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest};
use lambda_runtime::{LambdaEvent, Service};
use lambda_websocket::{Connect, Event, Json, Message, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The cases, and the maximum cost as a ratio to the hand-written code.
const CASES: [(&str, f64); 5] = [
    ("connect_20_headers", 0.35),
    ("message_200_b", 0.81),
    ("message_100_kb", 1.01),
    ("message_200_b_with_id", 0.9),
    ("message_100_kb_with_id", 1.01),
];

#[derive(Deserialize)]
struct Say {
    message: String,
}

/// The same, with an id by which the client matches the reply.
#[derive(Deserialize)]
struct Ask {
    id: u64,
    message: String,
}

#[derive(Serialize)]
struct Answered<T> {
    id: u64,
    result: T,
}

#[derive(Serialize)]
struct Said {
    length: usize,
}

/// An event whose members are in API Gateway's order.
fn event(case: &str) -> Vec<u8> {
    let context = |route_key: &str, event_type: &str| {
        let message_id = if event_type == "MESSAGE" { r#""messageId":"Kb7qAd4-PHcCIhw=","# } else { "" };
        format!(
            r#"{{"routeKey":"{route_key}","authorizer":{{"principalId":"alice","org":"7","admin":"true"}},{message_id}"eventType":"{event_type}","extendedRequestId":"Kb7qAF22PHcEdGg=","requestTime":"14/Nov/2023:22:13:20 +0000","messageDirection":"IN","stage":"dev","connectedAt":1700000000000,"requestTimeEpoch":1700000005000,"identity":{{"userAgent":"Mozilla/5.0 (X11; Linux x86_64)","sourceIp":"203.0.113.7"}},"requestId":"Kb7qAF22PHcEdGg=","domainName":"a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com","connectionId":"Kb7p2d5_vHcCIhw=","apiId":"a1b2c3d4e5"}}"#
        )
    };
    let message = |length: usize, id: Option<u64>| {
        let mut text = String::new();
        while text.len() < length {
            write!(text, "word \"{}\" ", text.len()).unwrap();
        }
        text.truncate(length);
        let (key, body) = match id {
            None => ("say", json!({"action": "say", "message": text}).to_string()),
            Some(id) => ("ask", format!(r#"{{"action":"ask","id":{id},"message":{}}}"#, json!(text))),
        };
        format!(r#"{{"requestContext":{},"body":{},"isBase64Encoded":false}}"#, context(key, "MESSAGE"), json!(body))
    };
    let json = match case {
        "connect_20_headers" => {
            let headers: Vec<(String, String)> =
                (0..20).map(|n| (format!("X-Header-{n}"), format!("value {n} of a header of usual length"))).collect();
            let single: serde_json::Map<_, _> = headers.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
            let multi: serde_json::Map<_, _> = headers.iter().map(|(n, v)| (n.clone(), json!([v]))).collect();
            format!(
                r#"{{"headers":{},"multiValueHeaders":{},"queryStringParameters":{{"Auth":"token"}},"multiValueQueryStringParameters":{{"Auth":["token"]}},"requestContext":{},"isBase64Encoded":false}}"#,
                json!(single),
                json!(multi),
                context("$connect", "CONNECT")
            )
        }
        "message_200_b" => message(200, None),
        "message_100_kb" => message(100_000, None),
        "message_200_b_with_id" => message(200, Some(7)),
        "message_100_kb_with_id" => message(100_000, Some(7)),
        other => panic!("no case {other}"),
    };
    json.into_bytes()
}

/// Reads an event as `lambda_runtime` does.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> LambdaEvent<T> {
    let json = &mut serde_json::Deserializer::from_slice(bytes);
    LambdaEvent::new(serde_path_to_error::deserialize(json).unwrap(), lambda_runtime::Context::default())
}

fn finish<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn router() -> Router {
    Router::new()
        .on("$connect", |event: Connect| async move {
            black_box(event.connection_id());
            Ok(())
        })
        .on("say", |event: Message<Say>| async move { Ok(Json(Said { length: event.body.message.len() })) })
        .on("ask", |event: Message<Say>| async move { Ok(Json(Said { length: event.body.message.len() })) })
}

fn ours(router: &mut Router, bytes: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&finish(router.call(read::<Event>(bytes))).unwrap()).unwrap()
}

async fn by_hand(
    event: LambdaEvent<ApiGatewayWebsocketProxyRequest>,
) -> Result<ApiGatewayProxyResponse, lambda_runtime::Error> {
    let request = event.payload;
    let mut response = ApiGatewayProxyResponse::default();
    response.status_code = 200;
    match request.request_context.route_key.as_deref() {
        Some("$connect") => {
            black_box(request.request_context.connection_id.as_deref().ok_or("no connection id")?);
        }
        Some("say") => {
            let say: Say = serde_json::from_str(request.body.as_deref().unwrap_or_default())?;
            response.body = Some(Body::Text(serde_json::to_string(&Said { length: say.message.len() })?));
        }
        Some("ask") => {
            let ask: Ask = serde_json::from_str(request.body.as_deref().unwrap_or_default())?;
            let answered = Answered { id: ask.id, result: Said { length: ask.message.len() } };
            response.body = Some(Body::Text(serde_json::to_string(&answered)?));
        }
        _ => response.status_code = 404,
    }
    Ok(response)
}

fn peer(bytes: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&finish(by_hand(read(bytes))).unwrap()).unwrap()
}

fn repeat(who: &str, case: &str, times: usize) {
    let bytes = event(case);
    let mut router = router();
    for _ in 0..times {
        match who {
            "ours" => black_box(ours(&mut router, black_box(&bytes))),
            _ => black_box(peer(black_box(&bytes))),
        };
    }
}

/// Returns the instructions of one round: the difference between a short and a long run.
fn instructions(who: &str, case: &str) -> Option<u64> {
    let count = |times: &str| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().ok()?)
            .args(["--repeat", who, case, times])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stderr).ok()?;
        let line = text.lines().find(|line| line.contains("Collected :"))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    Some((count("220")? - count("20")?) / 200)
}

fn median_nanoseconds(case: &str) -> (f64, f64) {
    const ROUNDS: usize = 61;
    let bytes = event(case);
    let mut router = router();
    let times = (2_000_000 / bytes.len()).clamp(20, 2000);
    let (mut us, mut them) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..times {
            black_box(ours(&mut router, black_box(&bytes)));
        }
        us.push(start.elapsed().as_nanos() as f64 / times as f64);
        let start = Instant::now();
        for _ in 0..times {
            black_box(peer(black_box(&bytes)));
        }
        them.push(start.elapsed().as_nanos() as f64 / times as f64);
    }
    us.sort_by(f64::total_cmp);
    them.sort_by(f64::total_cmp);
    (us[ROUNDS / 2], them[ROUNDS / 2])
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, who, case, times] = arguments.as_slice()
        && flag == "--repeat"
    {
        return repeat(who, case, times.parse().unwrap());
    }
    for (case, goal) in CASES {
        let (us, them) = median_nanoseconds(case);
        println!("figure {case} time: {us:.0} ns vs {them:.0} ns = {:.3} (goal {goal})", us / them);
        match (instructions("ours", case), instructions("peer", case)) {
            (Some(us), Some(them)) => {
                let ratio = us as f64 / them as f64;
                println!("figure {case} instructions: {us} vs {them} = {ratio:.3} (goal {goal})");
            }
            _ => println!("figure {case} instructions: not counted, since valgrind did not run (goal {goal})"),
        }
    }
}
