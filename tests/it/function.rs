//! The three ways in which the local gateway invokes a function.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_websocket::local::{Client, Function, Gateway, Process};
use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::local::{KEY, example};

const INVOCATIONS: &str = "/2015-03-31/functions/chat/invocations";

/// Returns the path of an example, next to the directory of the test binary.
pub fn built(name: &str) -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(
        binary.exists(),
        "the example {name} is not built: `cargo test` builds it, `cargo test --test it` does not"
    );
    binary
}

pub fn bootstrap() -> Process {
    Process::new("bootstrap", "python3").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/functions/bootstrap.py"))
}

async fn behind(function: Function) -> Gateway {
    Gateway::builder("dev").function(["$default"], function).route_response("$default").start().await.unwrap()
}

pub async fn ask(client: &mut Client, message: Value) -> Value {
    client.send_json(&message).await.unwrap();
    client.next_json().await.unwrap()
}

#[tokio::test]
async fn invoke_endpoint_returns_response_or_function_error() {
    let emulator = MockServer::start().await;
    let on = |message: &str| {
        Mock::given(method("POST")).and(path(INVOCATIONS)).and(body_partial_json(json!({"body": message})))
    };
    let answer = ResponseTemplate::new(200).set_body_json(json!({"statusCode": 200, "body": "\"hello\""}));
    on("\"good\"").respond_with(answer).mount(&emulator).await;
    let failure = json!({"errorType": "OnPurpose", "errorMessage": "it shall fail"});
    let failure = ResponseTemplate::new(200).insert_header("X-Amz-Function-Error", "Unhandled").set_body_json(failure);
    on("\"bad\"").respond_with(failure).mount(&emulator).await;
    on("\"busy\"").respond_with(ResponseTemplate::new(429)).mount(&emulator).await;

    let gateway = behind(Function::endpoint(&emulator.uri(), "chat").unwrap()).await;
    let mut client = gateway.connect("").await.unwrap();
    assert_eq!(ask(&mut client, json!("good")).await, "hello");
    for broken in ["bad", "busy", "unknown"] {
        assert_eq!(ask(&mut client, json!(broken)).await["message"], "Internal server error", "{broken}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = behind(Function::endpoint(&format!("http://{nobody}"), "chat").unwrap()).await;
    let mut client = gateway.connect("").await.unwrap();
    assert_eq!(ask(&mut client, json!("good")).await["message"], "Internal server error");
}

#[tokio::test]
async fn aut_7_invoke_endpoint_authorizer_reports_unauthorized() {
    let emulator = MockServer::start().await;
    let failure = json!({"errorType": "Error", "errorMessage": "Unauthorized"});
    let failure = ResponseTemplate::new(200).set_body_json(failure);
    // AWS's runtime interface emulator omits the header; so does `cargo lambda watch`, which responds with 500.
    let failure_500 =
        ResponseTemplate::new(500).set_body_json(json!({"errorType": "E", "errorMessage": "Unauthorized"}));
    for answer in [failure.clone().insert_header("X-Amz-Function-Error", "Handled"), failure, failure_500] {
        emulator.reset().await;
        Mock::given(path(INVOCATIONS)).respond_with(answer).mount(&emulator).await;
        let function = Function::endpoint(&format!("{}/", emulator.uri()), "chat").unwrap();
        let none: [&str; 0] = [];
        let gateway = Gateway::builder("dev").authorizer_function(function, none).start().await.unwrap();
        assert_eq!(gateway.connect("").await.unwrap_err().status(), Some(401));
    }
}

#[tokio::test]
async fn concurrency_limit_of_one_serializes_invocations() {
    let running = Arc::new(AtomicUsize::new(0));
    let function = Function::new(move |_, _| {
        let running = Arc::clone(&running);
        async move {
            let others = running.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(json!({"statusCode": 200, "body": others.to_string()}).to_string().into_bytes())
        }
    });
    let gateway = behind(function.one_at_a_time()).await;
    let mut client = gateway.connect("").await.unwrap();
    for _ in 0..20 {
        client.send_json(&json!({})).await.unwrap();
    }
    for _ in 0..20 {
        assert_eq!(client.next_json().await.unwrap(), 0, "others ran at the same time");
    }
}

#[test]
fn invalid_invoke_endpoint_is_refused() {
    for url in ["", "127.0.0.1:9000", "https://127.0.0.1:9000", "http://", "http://x/?a=b"] {
        let error = Function::endpoint(url, "chat").unwrap_err().to_string();
        let expected = "is not the address of a Lambda Invoke endpoint: expected `http://<host>:<port>`";
        assert_eq!(error, format!("{url:?} {expected}"));
    }
}

#[tokio::test]
async fn the_four_functions_run_as_processes() {
    let key = String::from_utf8(KEY.to_vec()).unwrap();
    let process = |name: &str| Process::new(name, built(name));
    let gateway = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
    let push = process("push_to_websocket")
        .env("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", gateway.endpoint().unwrap().to_string())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any");
    let authorizer = Function::process(process("authorizer").env("JWT_KEY", key));
    let gateway = gateway
        .authorizer_function(authorizer, ["route.request.querystring.Auth"])
        .function(["$connect"], Function::process(process("on_connect")))
        .function(["$disconnect"], Function::process(process("on_disconnect")))
        .function(["pushtowebsocket"], Function::process(push))
        .start()
        .await
        .unwrap();
    assert_eq!(gateway.connect("").await.unwrap_err().status(), Some(401));
    assert_eq!(gateway.connect("?Auth=bad").await.unwrap_err().status(), Some(403));
    let token = example::token(KEY, Duration::from_secs(60)).unwrap();
    let mut client = gateway.connect(&format!("?Auth={token}")).await.unwrap();
    let answer = ask(&mut client, json!({"action": "pushtowebsocket", "message": "hello"})).await;
    assert_eq!(answer, json!({"echoed": "hello"}));
}

#[tokio::test]
async fn process_in_another_language_uses_the_runtime_api() {
    let gateway = behind(Function::process(bootstrap())).await;
    let mut client = gateway.connect("").await.unwrap();
    let first = ask(&mut client, json!({})).await;
    assert_eq!(first["name"], "bootstrap");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let deadline = u128::from(first["deadline"].as_u64().unwrap());
    assert!((now..now + 4_000).contains(&deadline), "the timeout of the function");
    let trace = first["trace"].as_str().unwrap();
    assert!(trace.starts_with("Root=1-") && trace.ends_with(";Sampled=0") && trace.len() == 50, "{trace}");
    assert_eq!(ask(&mut client, json!({"do": "fail"})).await["message"], "Internal server error");
    assert_eq!(ask(&mut client, json!({})).await["pid"], first["pid"], "a failure does not end the process");
}

#[tokio::test]
async fn dead_process_fails_its_invocation_and_is_restarted() {
    let gateway = behind(Function::process(bootstrap())).await;
    let mut client = gateway.connect("").await.unwrap();
    let first = ask(&mut client, json!({})).await["pid"].clone();
    assert_eq!(ask(&mut client, json!({"do": "die"})).await["message"], "Internal server error");
    let second = ask(&mut client, json!({})).await["pid"].clone();
    assert!(second.is_u64() && second != first, "{second}");
}

#[tokio::test]
async fn con_3_process_that_cannot_start_fails_its_invocation() {
    let missing = Process::new("missing", "/nonexistent/bootstrap");
    for process in [missing, bootstrap().env("FAIL_AT_START", "1"), Process::new("true", "true")] {
        let function = Function::process(process);
        let gateway = Gateway::builder("dev").function(["$connect"], function).start().await.unwrap();
        assert_eq!(gateway.connect("").await.unwrap_err().status(), Some(502));
    }
}

#[tokio::test]
async fn process_count_follows_demand_up_to_the_limit() {
    let gateway = behind(Function::process(bootstrap().instances(3))).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(gateway.connect("").await.unwrap());
    }
    for client in &mut clients {
        client.send_json(&json!({})).await.unwrap();
    }
    let mut processes = std::collections::BTreeSet::new();
    for client in &mut clients {
        processes.insert(client.next_json().await.unwrap()["pid"].as_u64().unwrap());
    }
    assert!((1..=3).contains(&processes.len()), "{processes:?}");
}

#[tokio::test]
async fn process_ends_with_the_gateway() {
    let gateway = behind(Function::process(bootstrap())).await;
    let mut client = gateway.connect("").await.unwrap();
    let pid = ask(&mut client, json!({})).await["pid"].as_u64().unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{pid}/cmdline"));
    let runs = || std::fs::read(&process).is_ok_and(|line| !line.is_empty());
    assert!(runs() || !std::path::Path::new("/proc").exists());
    drop(client);
    gateway.shutdown().await;
    for _ in 0..500 {
        if !runs() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} still runs");
}
