//! A function as a process for the tests: the test binary itself, running only the test below.
//!
//! It speaks the Lambda Runtime API over a plain socket and executes the command in the message's `do`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use lambda_websocket::local::{Client, Function, Gateway, Process};
use serde_json::{Value, json};

/// Returns the test binary as a function of this name.
pub fn process(name: &str) -> Process {
    let [program, arguments @ ..] = &command()[..] else { unreachable!() };
    arguments.iter().fold(Process::new(name, program), |process, argument| process.arg(argument)).env("IS_CHILD", "1")
}

/// Returns the same as a shell command, for processes that start it differently.
pub fn command() -> Vec<String> {
    let program = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let arguments = ["--exact", "local::child::runs_as_a_function", "--nocapture", "--test-threads=1"];
    std::iter::once(program).chain(arguments.map(str::to_owned)).collect()
}

/// Returns a shell script as a function, in which `$CHILD` starts the test binary.
pub fn script(name: &str, script: &str) -> Process {
    Process::new(name, "sh").arg("-c").arg(script).env("CHILD", command().join(" ")).env("IS_CHILD", "1")
}

pub async fn behind(process: Process) -> Gateway {
    let function = Function::process(process);
    Gateway::builder("dev").function(["$default"], function).route_response("$default").start().await.unwrap()
}

/// Sends a message with a command for the function, and returns the reply.
pub async fn ask(client: &mut Client, what: &str) -> Value {
    client.send_json(&json!({"do": what})).await.unwrap();
    client.next_json().await.unwrap()
}

/// Returns whether a process runs; `None` where there is no `/proc`.
pub fn runs(pid: &Value) -> Option<bool> {
    std::path::Path::new("/proc/self").exists().then(|| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
    })
}

/// Waits until a process has ended.
pub async fn has_ended(pid: &Value) {
    for _ in 0..1000 {
        if runs(pid) != Some(true) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} still runs");
}

struct Api {
    stream: BufReader<TcpStream>,
}

impl Api {
    fn connect() -> Self {
        let stream = TcpStream::connect(std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap()).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    fn send(&mut self, method: &str, path: &str, length: usize, body: &str) {
        let head =
            format!("{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        self.stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
    }

    /// Reads the status, headers, and body of the next response.
    fn response(&mut self) -> (u16, BTreeMap<String, String>, String) {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            match line.trim().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_owned(), value.to_owned()),
                None => break,
            };
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        (status, headers, String::from_utf8(body).unwrap())
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> (u16, BTreeMap<String, String>, String) {
        self.send(method, path, body.len(), body);
        self.response()
    }
}

#[test]
fn runs_as_a_function() {
    if std::env::var_os("IS_CHILD").is_none() {
        return;
    }
    let mut api = Api::connect();
    if std::env::var_os("INIT_ERROR").is_some() {
        api.call("POST", "init/error", r#"{"errorType": "Config", "errorMessage": "TABLE is not set"}"#);
        std::thread::sleep(Duration::from_secs(600));
    }
    if std::env::var_os("ASKS_ALTHOUGH").is_some() {
        // Both requests in one write, so that the gateway reads the second before it has handled the first.
        let error = r#"{"errorType": "Config", "errorMessage": "TABLE is not set"}"#;
        let head =
            |line: &str, length: usize| format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let report = head("POST /2018-06-01/runtime/init/error", error.len());
        let next = head("GET /2018-06-01/runtime/invocation/next", 0);
        api.stream.get_mut().write_all(format!("{report}{error}{next}").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }
    if std::env::var_os("NEVER_ASKS").is_some() {
        eprintln!("I am a web server, not a function");
        std::thread::sleep(Duration::from_secs(600));
    }
    loop {
        let (_, headers, event) = api.call("GET", "invocation/next", "");
        let id = headers["lambda-runtime-aws-request-id"].clone();
        let event: Value = serde_json::from_str(&event).unwrap();
        let message: Value =
            event["body"].as_str().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
        let mut told = json!({"pid": std::process::id(), "number": message["number"]});
        match message["do"].as_str().unwrap_or_default() {
            "sleep" => std::thread::sleep(Duration::from_secs(60)),
            "nap" => std::thread::sleep(Duration::from_millis(300)),
            "die" => {
                eprintln!("the last words of the function");
                std::process::exit(3)
            }
            "latin-1" => std::io::stdout().write_all(b"latin-1: \xe9\n").unwrap(),
            "init error" => {
                drop(api.call("POST", "init/error", r#"{"errorType": "Late", "errorMessage": "too late"}"#))
            }
            "too large" => told["padding"] = json!("x".repeat(6 * 1024 * 1024)),
            "context" => {
                told["variables"] = std::env::vars().filter(|(name, _)| name != "CHILD").collect();
                told["headers"] = json!(headers);
                told["folder"] = json!(std::env::current_dir().unwrap());
            }
            "wrong id" => {
                let (status, _, body) = api.call("POST", "invocation/another/response", r#"{"statusCode":200}"#);
                told["refused"] = json!([status, serde_json::from_str::<Value>(&body).unwrap_or_default()]);
            }
            "two next" => {
                let (status, _, body) = Api::connect().call("GET", "invocation/next", "");
                told["refused"] = json!([status, serde_json::from_str::<Value>(&body).unwrap_or_default()]);
            }
            "half a body" => {
                let mut other = Api::connect();
                other.send("POST", &format!("invocation/{id}/response"), 1000, r#"{"statusCode":200}"#);
                // Waits until the gateway has detected it.
                other.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
                let _ = other.stream.read_to_end(&mut Vec::new());
            }
            _ => {}
        }
        let body = json!({"statusCode": 200, "body": told.to_string()}).to_string();
        api.call("POST", &format!("invocation/{id}/response"), &body);
    }
}
