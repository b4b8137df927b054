//! The example functions under third-party Lambda emulators, and signatures that moto checks.
//! `tests/interop/emulators` installs these and runs the tests.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lambda_websocket::local::{Function, Gateway, GatewayBuilder};
use serde_json::json;
use tokio::net::TcpStream;

use crate::function::{ask, built};
use crate::local::{KEY, example};

const FUNCTIONS: [&str; 4] = ["authorizer", "on_connect", "on_disconnect", "push_to_websocket"];

/// A process that is ended with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // `cargo lambda watch` ends its children on SIGTERM, but not on SIGKILL.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        for _ in 0..100 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn tool(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run tests/interop/emulators"))
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sets the environment variables of the functions, and removes those that `cargo test` sets.
fn with_environment(command: &mut Command, gateway: &GatewayBuilder) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_TARGET_DIR") {
        command.env_remove(name);
    }
    command
        .env("JWT_KEY", String::from_utf8(KEY.to_vec()).unwrap())
        .env("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", gateway.endpoint().unwrap().to_string())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .stdin(Stdio::null());
}

pub async fn until_it_listens(port: u16) {
    for _ in 0..600 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing listens on port {port}");
}

/// A service that runs at this address until the test ends.
pub struct Service {
    pub url: String,
    _process: Running,
}

async fn service(mut command: Command, port: u16) -> Service {
    let process = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until_it_listens(port).await;
    Service { url: format!("http://127.0.0.1:{port}"), _process: process }
}

/// Starts AWS's DynamoDB Local.
pub async fn dynamodb_local() -> Service {
    let port = free_port();
    let mut local = Command::new("java");
    local.args(["-jar", "DynamoDBLocal.jar", "-inMemory", "-disableTelemetry", "-port", &port.to_string()]);
    local.current_dir(tool("DYNAMODB_LOCAL"));
    service(local, port).await
}

/// Starts MiniStack, a third-party emulator of AWS.
pub async fn ministack() -> Service {
    let port = free_port();
    let mut ministack = Command::new(tool("MINISTACK"));
    ministack.env("GATEWAY_PORT", port.to_string()).current_dir(std::env::temp_dir());
    service(ministack, port).await
}

/// Runs the four functions, each at its Invoke endpoint: checks the authorizer and that a push arrives.
async fn drive(gateway: GatewayBuilder, at: impl Fn(&str) -> Function) {
    let gateway = gateway
        .authorizer_function(at("authorizer"), ["route.request.querystring.Auth"])
        .function(["$connect"], at("on_connect"))
        .function(["$disconnect"], at("on_disconnect"))
        .function(["pushtowebsocket"], at("push_to_websocket"))
        .start()
        .await
        .unwrap();
    assert_eq!(gateway.connect("").await.unwrap_err().status(), Some(401));
    assert_eq!(gateway.connect("?Auth=").await.unwrap_err().status(), Some(401));
    assert_eq!(gateway.connect("?Auth=bad").await.unwrap_err().status(), Some(403));
    let token = example::token(KEY, Duration::from_secs(60)).unwrap();
    let twice = format!("?Auth={token}&Auth={token}");
    assert_eq!(gateway.connect(&twice).await.unwrap_err().status(), Some(401), "the function says so");
    let mut client = gateway.connect(&format!("?Auth={token}")).await.unwrap().with_timeout(Duration::from_secs(20));
    for message in ["hello", "again"] {
        let answer = ask(&mut client, json!({"action": "pushtowebsocket", "message": message})).await;
        assert_eq!(answer, json!({"echoed": message}));
    }
    client.close(1000, "bye").await.unwrap();
    gateway.shutdown().await;
}

#[tokio::test]
#[ignore = "needs cargo-lambda: run tests/interop/emulators"]
async fn the_four_functions_run_under_cargo_lambda_watch() {
    let gateway = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
    let port = free_port();
    let mut watch = Command::new(tool("CARGO_LAMBDA"));
    watch.args(["lambda", "watch", "--ignore-changes", "-A", "127.0.0.1", "-P", &port.to_string()]);
    watch.current_dir(tool("FUNCTIONS"));
    with_environment(&mut watch, &gateway);
    let _watch = Running(watch.spawn().unwrap());
    until_it_listens(port).await;
    drive(gateway, |name| Function::endpoint(&format!("http://127.0.0.1:{port}"), name).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs cargo-lambda: run tests/interop/emulators"]
async fn concurrent_invocations_under_cargo_lambda_watch_are_isolated() {
    const CLIENTS: usize = 64;
    const ROUNDS: usize = 5;
    for concurrency in [1, CLIENTS] {
        let gateway = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
        let port = free_port();
        let mut watch = Command::new(tool("CARGO_LAMBDA"));
        watch.args(["lambda", "watch", "--ignore-changes", "-A", "127.0.0.1", "-P", &port.to_string()]);
        watch.args(["--concurrency", &concurrency.to_string()]).current_dir(tool("FUNCTIONS"));
        with_environment(&mut watch, &gateway);
        let _watch = Running(watch.spawn().unwrap());
        until_it_listens(port).await;
        let function = Function::endpoint(&format!("http://127.0.0.1:{port}"), "push_to_websocket").unwrap();
        let gateway = gateway.function(["pushtowebsocket"], function).start().await.unwrap();
        let connect = || async { gateway.connect("").await.unwrap().with_timeout(Duration::from_secs(60)) };
        // The first invocation starts the function.
        assert_eq!(
            ask(&mut connect().await, json!({"action": "pushtowebsocket", "message": "first"})).await["echoed"],
            "first"
        );
        let start = std::time::Instant::now();
        let mut talks = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let mut connected = connect().await;
            talks.spawn(async move {
                for round in 0..ROUNDS {
                    let (id, message) = (format!("{client}-{round}"), format!("{client} says {round}"));
                    let asked = json!({"action": "pushtowebsocket", "message": message, "id": id});
                    assert_eq!(ask(&mut connected, asked).await, json!({"id": id, "result": {"echoed": message}}));
                }
            });
        }
        while let Some(talked) = talks.join_next().await {
            talked.unwrap();
        }
        println!("{} invocations with a concurrency of {concurrency}: {:?}", CLIENTS * ROUNDS, start.elapsed());
        gateway.shutdown().await;
    }
}

#[tokio::test]
#[ignore = "needs AWS's runtime interface emulator: run tests/interop/emulators"]
async fn the_four_functions_run_under_the_runtime_interface_emulator() {
    let gateway = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
    let mut running = Vec::new();
    for name in FUNCTIONS {
        let (port, api) = (free_port(), free_port());
        let mut emulator = Command::new(tool("LAMBDA_RIE"));
        emulator
            .args(["--runtime-interface-emulator-address", &format!("127.0.0.1:{port}")])
            .args(["--runtime-api-address", &format!("127.0.0.1:{api}")])
            .arg(built(name))
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST");
        with_environment(&mut emulator, &gateway);
        running.push((name, port, Running(emulator.spawn().unwrap())));
        until_it_listens(port).await;
    }
    drive(gateway, |name| {
        let port = running.iter().find(|(running, ..)| *running == name).unwrap().1;
        // The emulator serves one function, under this name.
        Function::endpoint(&format!("http://127.0.0.1:{port}"), "function").unwrap().one_at_a_time()
    })
    .await;
}

#[cfg(feature = "direct")]
#[tokio::test]
#[ignore = "needs moto: run tests/interop/emulators"]
async fn mgt_8_signatures_match_botocore() {
    use std::io::{BufRead as _, BufReader};

    use aws_credential_types::Credentials;
    use lambda_websocket::Pusher;
    use lambda_websocket::event::{ConnectionId, Region};
    use lambda_websocket::push::{Direct, Endpoint, PushError, Sdk};

    let mut moto = Command::new(tool("PYTHON"));
    moto.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/moto.py"))
        .args([tool("MOTO_SERVER"), free_port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut moto = Running(moto.spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(moto.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let [id, secret, endpoint] = ready.split_whitespace().collect::<Vec<_>>()[..] else { panic!("moto: {ready:?}") };
    let region = Region::new("us-east-1").unwrap();
    let endpoint = endpoint.parse::<Endpoint>().unwrap().with_region(region.clone());
    let transports = |secret: &str| {
        let credentials = Credentials::new(id, secret, None, None, "test");
        let sdk = Sdk::with_static_credentials(&endpoint, &region, id, secret);
        [Pusher::new(Direct::new(&endpoint, credentials).unwrap()), Pusher::new(sdk)]
    };
    for text in ["AAAAAAAAAAAAAAA=", "L0SM9-OF_HcCIhw="] {
        let connection = ConnectionId::new(text).unwrap();
        for pusher in transports(secret) {
            pusher.send_text(&connection, "signed").await.unwrap();
        }
        for pusher in transports("wrong") {
            let error = pusher.send_text(&connection, "signed").await.unwrap_err();
            assert!(matches!(error, PushError::Forbidden { .. }), "{error}");
        }
    }
}
