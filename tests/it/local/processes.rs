//! The life cycle of function processes: start, end, and cleanup.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use lambda_websocket::local::{Fault, Function, Gateway, When};
use serde_json::json;

use super::child::{ask, behind, has_ended, process, runs, script};

#[tokio::test]
async fn non_utf_8_output_does_not_break_the_function() {
    let gateway = behind(process("latin-1")).await;
    let mut client = gateway.connect("").await.unwrap();
    let first = ask(&mut client, "latin-1").await;
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "latin-1").await["pid"], first["pid"], "the process still runs and prints");
    }
}

#[tokio::test]
async fn hanging_function_is_killed_at_its_timeout_and_restarted() {
    let gateway = behind(process("hangs").timeout(Duration::from_secs(1))).await;
    let mut client = gateway.connect("").await.unwrap();
    let first = ask(&mut client, "").await["pid"].clone();
    assert_eq!(ask(&mut client, "sleep").await["message"], "Internal server error");
    let second = ask(&mut client, "").await["pid"].clone();
    assert!(second.is_u64() && second != first, "{first} {second}");
    has_ended(&first).await;
}

#[tokio::test]
async fn hanging_function_does_not_outlive_the_gateway() {
    let function = Function::process(process("hangs").timeout(Duration::from_secs(600)));
    let limit = Duration::from_millis(300);
    let gateway = Gateway::builder("dev").function(["$default"], function).route_response("$default");
    let gateway = gateway.integration_timeout(limit).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    let mut pid = ask(&mut client, "").await["pid"].clone();
    while !pid.is_u64() {
        // The process took longer than the timeout to start.
        pid = ask(&mut client, "").await["pid"].clone();
    }
    assert_eq!(ask(&mut client, "sleep").await["message"], "Endpoint request timed out");
    drop(gateway);
    has_ended(&pid).await;
}

#[tokio::test]
async fn abandoned_invocation_is_not_run_later() {
    let function = Function::process(process("slow"));
    let limit = Duration::from_millis(700);
    let gateway = Gateway::builder("dev").function(["$default"], function).route_response("$default");
    let gateway = gateway.integration_timeout(limit).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    while !ask(&mut client, "").await["pid"].is_u64() {}
    // Six seconds of work: at most three of the twenty start before their timeout.
    for _ in 0..20 {
        client.send_json(&json!({"do": "nap"})).await.unwrap();
    }
    for _ in 0..20 {
        client.next_json().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(ask(&mut client, "").await["pid"].is_u64(), "the function has recovered");
}

#[cfg(unix)]
#[tokio::test]
async fn process_that_cannot_start_is_started_on_demand_only() {
    let folder = std::env::temp_dir().join(format!("starts-{}", std::process::id()));
    let crashing = script("crashing", "echo start >> $STARTS; echo no such table >&2; exit 1").env("STARTS", &folder);
    let gateway = behind(crashing).await;
    let starts = || std::fs::read_to_string(&folder).unwrap_or_default().lines().count();
    let mut client = gateway.connect("").await.unwrap();
    assert_eq!(ask(&mut client, "").await["message"], "Internal server error");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(starts(), 1, "for one message");
    assert_eq!(ask(&mut client, "").await["message"], "Internal server error");
    assert_eq!(starts(), 2);
    drop(gateway);
    let _ = std::fs::remove_file(folder);
}

/// Sends ten messages concurrently, after one that has started an instance.
#[cfg(unix)]
async fn all_are_answered(gateway: &Gateway) {
    let mut client = gateway.connect("").await.unwrap().with_timeout(Duration::from_secs(30));
    assert!(ask(&mut client, "").await["pid"].is_u64());
    for _ in 0..10 {
        client.send_json(&json!({"do": "nap"})).await.unwrap();
    }
    for _ in 0..10 {
        let reply = client.next_json().await.unwrap();
        assert!(reply["pid"].is_u64(), "{reply}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn failed_instance_does_not_fail_invocations_of_others() {
    let folder = std::env::temp_dir().join(format!("first-{}", std::process::id()));
    let one_of_two = script("one-of-two", "mkdir $FIRST && exec $CHILD; exit 1").env("FIRST", &folder).instances(2);
    let gateway = behind(one_of_two).await;
    all_are_answered(&gateway).await;
    let _ = std::fs::remove_dir(folder);
}

#[cfg(unix)]
#[tokio::test]
async fn init_error_does_not_fail_invocations_of_other_instances() {
    let folder = std::env::temp_dir().join(format!("reports-{}", std::process::id()));
    let child = "mkdir $FIRST && exec $CHILD; ASKS_ALTHOUGH=1 exec $CHILD";
    let gateway = behind(script("reports", child).env("FIRST", &folder).instances(2)).await;
    all_are_answered(&gateway).await;
    let _ = std::fs::remove_dir(folder);
}

#[cfg(unix)]
#[tokio::test]
async fn orphaned_child_process_gets_no_invocation() {
    let gateway = behind(script("leaves", "setsid $CHILD & sleep 1")).await;
    let mut client = gateway.connect("").await.unwrap();
    let first = ask(&mut client, "").await["pid"].clone();
    assert!(first.is_u64(), "{first}");
    // The parent has ended, and the instance with it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let second = ask(&mut client, "").await["pid"].clone();
    assert!(second.is_u64() && second != first, "{first} {second}");
    has_ended(&first).await;
}

#[cfg(unix)]
#[tokio::test]
async fn children_of_a_process_end_with_it() {
    let gateway = behind(script("wrapped", "$CHILD & wait")).await;
    let mut client = gateway.connect("").await.unwrap();
    let killed = ask(&mut client, "").await["pid"].clone();
    gateway.inject(Fault::FunctionKilled(Duration::from_millis(200)), When::Next(1));
    assert_eq!(ask(&mut client, "sleep").await["message"], "Internal server error");
    has_ended(&killed).await;
    let last = ask(&mut client, "").await["pid"].clone();
    assert_ne!(runs(&last), Some(false));
    gateway.shutdown().await;
    has_ended(&last).await;
}

#[test]
fn function_works_in_several_tokio_runtimes() {
    static FUNCTION: LazyLock<Function> = LazyLock::new(|| Function::process(process("shared")));
    for number in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gateway = Gateway::builder("dev").function(["$default"], FUNCTION.clone()).route_response("$default");
            let gateway = gateway.start().await.unwrap();
            let mut client = gateway.connect("").await.unwrap();
            let reply = ask(&mut client, "").await;
            assert!(reply["pid"].is_u64(), "in runtime {number}: {reply}");
        });
    }
}

#[tokio::test]
async fn init_error_fails_the_invocation_immediately() {
    let start = Instant::now();
    let gateway = Gateway::builder("dev")
        .function(["$connect"], Function::process(process("init-error").env("INIT_ERROR", "1")))
        .start()
        .await
        .unwrap();
    assert_eq!(gateway.connect("").await.unwrap_err().status(), Some(502));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn process_has_the_lambda_environment_variables() {
    let folder = std::env::temp_dir();
    let process = process("chat").memory(512).current_dir(&folder).env("TZ", "Europe/Berlin");
    let gateway = behind(process).await;
    let mut client = gateway.connect("").await.unwrap();
    let told = ask(&mut client, "context").await;
    let variables = &told["variables"];
    let variable =
        |name: &str| -> String { variables[name].as_str().unwrap_or_else(|| panic!("{name} is not set")).to_owned() };
    for (name, value) in [
        ("AWS_LAMBDA_FUNCTION_NAME", "chat"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/chat"),
        ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", gateway.endpoint().as_str()),
        ("TZ", "Europe/Berlin"),
        ("LAMBDA_TASK_ROOT", folder.to_str().unwrap()),
    ] {
        assert_eq!(variable(name), value, "{name}");
    }
    assert!(variable("AWS_LAMBDA_LOG_STREAM_NAME").contains("/[$LATEST]"));
    assert_eq!(variable("AWS_REGION"), variable("AWS_DEFAULT_REGION"));
    assert!(!variable("AWS_EXECUTION_ENV").is_empty());
    let same = std::fs::canonicalize(told["folder"].as_str().unwrap()).unwrap();
    assert_eq!(same, std::fs::canonicalize(&folder).unwrap());
    let arn = "arn:aws:lambda:us-east-1:123456789012:function:chat";
    assert_eq!(told["headers"]["lambda-runtime-invoked-function-arn"], arn);
}

#[tokio::test]
async fn invocation_deadline_is_the_function_timeout() {
    let gateway = behind(process("deadline").timeout(Duration::from_secs(7))).await;
    let mut client = gateway.connect("").await.unwrap();
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let told = ask(&mut client, "context").await;
    let after = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let deadline: u128 = told["headers"]["lambda-runtime-deadline-ms"].as_str().unwrap().parse().unwrap();
    assert!((before + 7000..=after + 7001).contains(&deadline), "{before} {deadline} {after}");
}

#[tokio::test]
async fn cleared_environment_is_not_inherited() {
    let [program, arguments @ ..] = &super::child::command()[..] else { unreachable!() };
    let process = lambda_websocket::local::Process::new("bare", program).env_clear().env("IS_CHILD", "1");
    let gateway = behind(arguments.iter().fold(process, |process, argument| process.arg(argument))).await;
    let mut client = gateway.connect("").await.unwrap();
    let told = ask(&mut client, "context").await;
    let variables = told["variables"].as_object().unwrap();
    assert!(variables.contains_key("PATH") && variables.contains_key("AWS_REGION"), "{variables:?}");
    assert!(!variables.contains_key("HOME") && !variables.contains_key("CARGO_MANIFEST_DIR"), "{variables:?}");
}

#[tokio::test]
async fn process_that_never_polls_is_killed_after_init_timeout() {
    let process = process("server").env("NEVER_ASKS", "1").init_timeout(Duration::from_secs(1));
    let gateway = behind(process).await;
    let mut client = gateway.connect("").await.unwrap();
    assert_eq!(ask(&mut client, "").await["message"], "Internal server error");
    let entries = gateway.timeline().entries();
    let why: Vec<String> = entries.iter().map(ToString::to_string).collect();
    let why = why.join("\n");
    assert!(why.contains("the process did not request an invocation within 1.00 seconds"), "{why}");
    assert!(why.contains("its last output: I am a web server, not a function"), "{why}");
}

#[tokio::test]
async fn error_includes_last_process_output() {
    let gateway = behind(process("dies")).await;
    let mut client = gateway.connect("").await.unwrap();
    assert_eq!(ask(&mut client, "die").await["message"], "Internal server error");
    let why: Vec<String> = gateway.timeline().entries().iter().map(ToString::to_string).collect();
    assert!(why.join("\n").contains("its last output: the last words of the function"), "{why:?}");
    assert!(ask(&mut client, "").await["pid"].is_u64(), "and a new one is started");
}

#[tokio::test]
async fn invalid_runtime_api_request_is_refused() {
    let gateway = behind(process("hostile")).await;
    let mut client = gateway.connect("").await.unwrap();
    let first = ask(&mut client, "").await["pid"].clone();
    let refused = ask(&mut client, "wrong id").await["refused"].take();
    assert_eq!(refused[0], 400);
    assert_eq!(refused[1]["errorType"], "InvalidRequestID");
    let refused = ask(&mut client, "two next").await["refused"].take();
    assert_eq!((&refused[0], &refused[1]["errorType"]), (&json!(403), &json!("InvalidStateTransition")));
    assert_eq!(ask(&mut client, "half a body").await["message"], "Internal server error");
    assert_eq!(ask(&mut client, "").await["pid"], first, "none of it ends the process");
}

#[tokio::test]
async fn one_process_runs_per_concurrent_invocation() {
    let gateway = behind(process("parallel").instances(3)).await;
    let mut client = gateway.connect("").await.unwrap();
    for _ in 0..9 {
        client.send_json(&json!({"do": "nap"})).await.unwrap();
    }
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..9 {
        pids.insert(client.next_json().await.unwrap()["pid"].as_u64().unwrap());
    }
    assert_eq!(pids.len(), 3, "{pids:?}");
}

#[tokio::test]
async fn response_over_6_mb_fails_the_invocation_only() {
    let gateway = behind(process("large")).await;
    let mut client = gateway.connect("").await.unwrap();
    let first = ask(&mut client, "").await["pid"].clone();
    assert_eq!(ask(&mut client, "too large").await["message"], "Internal server error");
    let why: Vec<String> = gateway.timeline().entries().iter().map(ToString::to_string).collect();
    assert!(why.join("\n").contains("Function.ResponseSizeTooLarge"), "{why:?}");
    assert_eq!(ask(&mut client, "").await["pid"], first);
}

#[tokio::test]
async fn at_most_1024_invocations_wait_for_a_process() {
    let function = Function::process(process("busy"));
    let event = json!({"body": r#"{"do": "sleep"}"#}).to_string().into_bytes();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1100 {
        let (function, event) = (function.clone(), event.clone());
        calls.spawn(async move { function.call(event, Duration::from_secs(60)).await });
    }
    for _ in 0..50 {
        let error = calls.join_next().await.unwrap().unwrap().unwrap_err().to_string();
        assert_eq!(error, "TooManyRequestsException: too many invocations are queued for the function");
    }
}

/// Returns a function that runs as one started process, and its events for direct calls.
async fn started(name: &str) -> (Function, impl Fn(&str) -> Vec<u8>) {
    let event = |what: &str| json!({"body": json!({"do": what}).to_string()}).to_string().into_bytes();
    let function = Function::process(process(name));
    function.call(event(""), Duration::from_secs(60)).await.unwrap();
    (function, event)
}

#[tokio::test]
async fn dropping_a_finished_invocation_keeps_the_next_running() {
    let (function, event) = started("moves-on").await;
    let limit = Duration::from_secs(60);
    let mut first = Box::pin(function.call(event("nap"), limit));
    let mut second = Box::pin(function.call(event("nap"), limit));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    // The first gets its response meanwhile, which is not polled, and the second one runs.
    tokio::time::sleep(Duration::from_millis(450)).await;
    drop(first);
    second.await.unwrap();
}

#[tokio::test]
async fn dropped_waiting_invocation_starts_no_process() {
    let (function, event) = started("waits").await;
    let limit = Duration::from_secs(60);
    let mut first = Box::pin(function.call(event("nap"), limit));
    let mut second = Box::pin(function.call(event("nap"), limit));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    drop(second);
    let pid = |answer: Vec<u8>| {
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        serde_json::from_str::<serde_json::Value>(answer["body"].as_str().unwrap()).unwrap()["pid"].take()
    };
    let before = pid(first.await.unwrap());
    assert_eq!(pid(function.call(event(""), limit).await.unwrap()), before);
}

#[tokio::test]
async fn init_error_after_initialization_is_ignored() {
    let gateway = behind(process("late")).await;
    let mut client = gateway.connect("").await.unwrap();
    let first = ask(&mut client, "").await["pid"].clone();
    assert_eq!(ask(&mut client, "init error").await["pid"], first);
    assert_eq!(ask(&mut client, "").await["pid"], first);
}
