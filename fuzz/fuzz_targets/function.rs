//! Responses of functions: the authorizer, `$connect`, and a route with a route response.
#![no_main]

use std::sync::{LazyLock, Mutex};

use lambda_websocket::local::{Function, Gateway};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

#[derive(Default)]
struct Answers {
    authorizer: Vec<u8>,
    connect: Vec<u8>,
    message: Vec<u8>,
}

static ANSWERS: Mutex<Option<Answers>> = Mutex::new(None);

static GATEWAY: LazyLock<(Runtime, Gateway)> = LazyLock::new(|| {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = |choose: fn(&Answers) -> &Vec<u8>| {
        Function::new(move |_, _| {
            let answer = ANSWERS.lock().expect("nobody panicked").as_ref().map(|answers| choose(answers).clone());
            async move { Ok(answer.unwrap_or_default()) }
        })
    };
    let barrier = Function::new(|_, _| async { Ok(br#"{"statusCode":200,"body":"barrier"}"#.to_vec()) });
    let none: [&str; 0] = [];
    let gateway = Gateway::builder("dev")
        .authorizer_function(answer(|answers| &answers.authorizer), none)
        .function(["$connect"], answer(|answers| &answers.connect))
        .function(["$default"], answer(|answers| &answers.message))
        .route_response("$default")
        .function(["barrier"], barrier)
        .route_response("barrier")
        .start();
    let gateway = runtime.block_on(gateway).expect("it starts");
    (runtime, gateway)
});

/// Adds the start and the end of a valid response, so that the fuzzer need not find them.
fn dressed(bytes: &[u8], kind: u8, good: &str) -> Vec<u8> {
    match kind % 3 {
        0 => bytes.to_vec(),
        1 => good.as_bytes().to_vec(),
        _ => [good.trim_end_matches('}').as_bytes(), b",", bytes, b"}"].concat(),
    }
}

fuzz_target!(|input: ([u8; 3], &[u8], &[u8], &[u8])| {
    let (kinds, authorizer, connect, message) = input;
    const ALLOW: &str = r#"{"principalId":"a","policyDocument":{"Version":"2012-10-17","Statement":[{"Action":"*","Effect":"Allow","Resource":"*"}]}}"#;
    const OK: &str = r#"{"statusCode":200,"body":"x"}"#;
    let (runtime, gateway) = &*GATEWAY;
    *ANSWERS.lock().expect("nobody panicked") = Some(Answers {
        authorizer: dressed(authorizer, kinds[0], ALLOW),
        connect: dressed(connect, kinds[1], OK),
        message: dressed(message, kinds[2], OK),
    });
    runtime.block_on(async {
        match gateway.connect("").await {
            Err(error) => assert!(error.status().is_some(), "{error}"),
            Ok(mut client) => {
                client.send_text("x").await.expect("it leaves");
                client.send_text(r#"{"action":"barrier"}"#).await.expect("it leaves");
                let mut before = 0;
                while client.next_text().await.expect("the barrier comes") != "barrier" {
                    before += 1;
                }
                assert!(before <= 1, "one message has at most one answer");
                client.close(1000, "").await.expect("it closes");
            }
        }
    });
});
