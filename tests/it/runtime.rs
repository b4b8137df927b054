//! The functions as Lambda runs them: a process that talks to the Lambda Runtime API.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_runtime::LambdaEvent;
use lambda_websocket::{Message, Response, Router};
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt as _};
use wiremock::matchers::{method, path, path_regex};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::fixture;

#[cfg(feature = "direct")]
mod concurrent;

pub const TRACE: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
const INVOCATION: &str = "8476a536-e9f4-11e8-9739-2dfe598c3fcd";

/// An example, and its environment variables.
pub struct Function {
    name: &'static str,
    environment: Vec<(&'static str, String)>,
}

/// Kills the process when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Function {
    pub fn new(name: &'static str) -> Self {
        Self { name, environment: Vec::new() }
    }

    #[cfg(feature = "sdk")]
    pub fn with(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((variable, value.into()));
        self
    }

    fn command(&self) -> Command {
        // The test binary is in `deps`, and the examples are next to that directory.
        let test = std::env::current_exe().unwrap();
        let folder: PathBuf = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
        let binary = folder.join(self.name);
        assert!(
            binary.exists(),
            "the example {} is not built: `cargo test` builds it, `cargo test --test it` alone does not",
            self.name
        );
        let mut command = Command::new(binary);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    /// Runs the function until it has responded to this event.
    pub async fn answer(&self, event: &[u8]) -> Result<Value, Value> {
        self.run(event).await.0
    }

    /// Runs the function until it has responded to this event. Also returns its output.
    pub async fn run(&self, event: &[u8]) -> (Result<Value, Value>, String) {
        let api = MockServer::start().await;
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(30);
        let next = ResponseTemplate::new(200)
            .insert_header("lambda-runtime-aws-request-id", INVOCATION)
            .insert_header("lambda-runtime-deadline-ms", deadline.as_millis().to_string())
            .insert_header("lambda-runtime-trace-id", TRACE)
            .insert_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:123456789012:function:f")
            .set_body_raw(event, "application/json");
        let polled = "/2018-06-01/runtime/invocation/next";
        Mock::given(path(polled)).respond_with(next).up_to_n_times(1).mount(&api).await;
        let never = ResponseTemplate::new(200).set_delay(Duration::from_secs(600));
        Mock::given(path(polled)).respond_with(never).mount(&api).await;
        Mock::given(method("POST"))
            .and(path_regex("^/2018-06-01/runtime/invocation/.*/(response|error)$"))
            .respond_with(ResponseTemplate::new(202))
            .mount(&api)
            .await;
        let mut running = Running(
            self.command()
                .env("AWS_LAMBDA_RUNTIME_API", api.address().to_string())
                .env("AWS_LAMBDA_FUNCTION_NAME", self.name)
                .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
                .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
                .spawn()
                .unwrap(),
        );
        let answered = async {
            loop {
                let requests = api.received_requests().await.unwrap();
                if let Some(answer) = requests.iter().find(|request| request.method.as_str() == "POST") {
                    let body = serde_json::from_slice(&answer.body).unwrap();
                    let invocation = answer.url.path().split('/').nth(4).unwrap();
                    assert_eq!(invocation, INVOCATION);
                    break if answer.url.path().ends_with("/response") { Ok(body) } else { Err(body) };
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), answered).await.expect("the function answers");
        let mut printed = String::new();
        running.0.kill().unwrap();
        running.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (answer, printed)
    }

    /// Returns the output of a function that cannot start.
    fn fails(&self) -> String {
        let output = self.command().output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }
}

#[cfg(all(feature = "local", feature = "sdk"))]
mod examples {
    use super::*;
    use crate::local::{KEY, example};

    fn key() -> String {
        String::from_utf8(KEY.to_vec()).unwrap()
    }

    fn authorizer() -> Function {
        Function::new("authorizer").with("JWT_KEY", key())
    }

    fn asking(token: &str) -> Vec<u8> {
        let mut json = fixture::json("authorizer");
        json["queryStringParameters"] = json!({"Auth": token});
        json["multiValueQueryStringParameters"] = json!({"Auth": [token]});
        serde_json::to_vec(&json).unwrap()
    }

    #[tokio::test]
    async fn authorizer_returns_a_policy() {
        let token = example::token(KEY, Duration::from_secs(60)).unwrap();
        let mut answer = authorizer().answer(&asking(&token)).await.unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let expires_at = answer["context"]["authorizationExpiresAt"].take().as_u64().unwrap();
        assert!((now + 30..=now + 60).contains(&expires_at), "{expires_at}");
        let arn = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/$connect";
        assert_eq!(
            answer,
            json!({
                "principalId": "alice",
                "policyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [{"Action": ["execute-api:Invoke"], "Effect": "Allow", "Resource": [arn]}],
                },
                "context": {"org": 7, "authorizationExpiresAt": null},
            })
        );
        let denied = authorizer().answer(&asking("nonsense")).await.unwrap();
        assert_eq!(denied["policyDocument"]["Statement"][0]["Effect"], "Deny");
    }

    #[tokio::test]
    async fn aut_7_authorizer_fails_with_exactly_unauthorized() {
        let error = authorizer().answer(&fixture::bytes("authorizer_without_query")).await.unwrap_err();
        assert_eq!(error, json!({"errorType": "Unauthorized", "errorMessage": "Unauthorized"}));
    }

    #[test]
    fn authorizer_does_not_start_without_a_key() {
        for key in ["", "short"] {
            let text = Function::new("authorizer").with("JWT_KEY", key).fails();
            let length = key.len();
            let expected = format!(
                "Error: JWT_KEY must be set to the key that tokens are signed with, at least 32 bytes; it has {length}\n"
            );
            assert_eq!(text, expected);
        }
    }
}

#[tokio::test]
async fn on_connect_and_on_disconnect_respond() {
    let answer = Function::new("on_connect").answer(&fixture::bytes("connect")).await.unwrap();
    assert_eq!(answer, json!({"statusCode": 200}));
    let answer = Function::new("on_disconnect").answer(&fixture::bytes("disconnect")).await.unwrap();
    assert_eq!(answer, json!({"statusCode": 200}));
}

#[tokio::test]
async fn wrong_event_type_fails_the_invocation_with_a_reason() {
    let error = Function::new("on_connect").answer(&fixture::bytes("rest_api")).await.unwrap_err();
    let text = error["errorMessage"].as_str().unwrap();
    assert!(text.contains("expected the event of a WebSocket route, found the event of a REST API"), "{text}");
}

#[cfg(feature = "sdk")]
#[tokio::test]
async fn push_to_websocket_pushes_to_the_connection() {
    let gateway = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/dev/@connections/Kb7p2d5_vHcCIhw%3D"))
        .respond_with(ResponseTemplate::new(200))
        .expect(1)
        .mount(&gateway)
        .await;
    let function = Function::new("push_to_websocket")
        .with("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", format!("{}/dev", gateway.uri()))
        .with("AWS_REGION", "eu-central-1")
        .with("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .with("AWS_SECRET_ACCESS_KEY", "secret");
    assert_eq!(function.answer(&fixture::bytes("message")).await.unwrap(), json!({"statusCode": 200}));
    let pushed = &gateway.received_requests().await.unwrap()[0];
    assert_eq!(pushed.body_json::<Value>().unwrap(), json!({"echoed": "hello"}));
}

#[cfg(feature = "sdk")]
#[test]
fn missing_endpoint_error_names_the_variables() {
    let text = Function::new("push_to_websocket").with("AWS_REGION", "eu-central-1").fails();
    assert_eq!(
        text,
        "Error: the environment has no endpoint: set API_GATEWAY_ID, AWS_REGION and STAGE (API_GATEWAY_ID, STAGE \
         missing), or AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI\n"
    );
}

#[test]
fn starting_outside_lambda_explains_the_error() {
    let text = Function::new("on_connect").fails();
    assert!(text.starts_with("Error: this is a Lambda function, and Lambda did not start it: AWS_LAMBDA_"), "{text}");
}

#[tokio::test]
async fn tower_layers_wrap_a_router() {
    let router = Router::new().on("$default", |_: Message| async {
        std::future::pending::<()>().await;
        Ok(())
    });
    let service = ServiceBuilder::new().timeout(Duration::from_millis(1)).service(router);
    let event = LambdaEvent::new(fixture::event("message"), lambda_runtime::Context::default());
    let error = service.oneshot(event).await.unwrap_err();
    assert_eq!(error.to_string(), "request timed out");

    let mapped = ServiceBuilder::new()
        .map_response(|response: Response| response.header("x-mapped", "yes"))
        .service(Router::new());
    let event = LambdaEvent::new(fixture::event("connect"), lambda_runtime::Context::default());
    let response = mapped.oneshot(event).await.unwrap();
    assert_eq!(response.headers().get("x-mapped").unwrap(), "yes");
}

/// `lambda_runtime::run_concurrent` requires this of a service.
#[test]
fn services_can_run_concurrently() {
    fn concurrent<S: Clone + Send + Sync + 'static>(_: S) {}
    concurrent(Router::new());
    concurrent(lambda_websocket::authorizer::Authorizer::new(|_| async {
        Ok(lambda_websocket::authorizer::Authorization::allow("alice"))
    }));
}

/// `run` accepts a layered router: this compiles, and fails because it does not run on Lambda.
#[tokio::test]
async fn run_accepts_a_layered_router() {
    let service = ServiceBuilder::new().timeout(Duration::from_secs(1)).service(Router::new());
    let error = lambda_websocket::run(service).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "this is a Lambda function, and Lambda did not start it: AWS_LAMBDA_RUNTIME_API is not set; on your own machine \
         run it with `cargo lambda watch`, or put it behind `lambda_websocket::local::Gateway`"
    );
}

#[test]
fn an_error_has_a_stable_type() {
    use lambda_runtime::Diagnostic;
    use lambda_websocket::authorizer::AuthorizerError;
    use lambda_websocket::route::Error;

    let error: Diagnostic = Error::message("outer").with_source("x".parse::<u8>().unwrap_err()).into();
    assert_eq!(error.error_type, "lambda_websocket::Error");
    assert_eq!(error.error_message, "outer: invalid digit found in string");
    let error: Diagnostic = AuthorizerError::Unauthorized.into();
    assert_eq!((error.error_type.as_str(), error.error_message.as_str()), ("Unauthorized", "Unauthorized"));
}
