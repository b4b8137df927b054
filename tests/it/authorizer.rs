use lambda_websocket::authorizer::{
    Authorization, Authorizer, AuthorizerError, Context, Decision, Denied, InvalidAuthorization, InvalidContext,
    Policy, Request, Resource, RouteArn,
};
use serde_json::{Value, json};

use crate::fixture;

#[cfg(feature = "runtime")]
mod jwks;
mod origin;
#[cfg(all(feature = "local", feature = "sdk"))]
mod rotation;
#[cfg(feature = "tickets")]
mod ticket;
mod token;

const ARN: &str = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/$connect";

fn arn() -> RouteArn {
    ARN.parse().unwrap()
}

fn json(authorization: Authorization) -> Value {
    serde_json::to_value(authorization.respond(&arn()).unwrap()).unwrap()
}

#[test]
fn aut_2_request_has_client_headers_and_query() {
    let request = fixture::request("authorizer");
    assert_eq!(request.method_arn().to_string(), ARN);
    assert_eq!(request.query("Auth"), Some("s3cret-token"));
    assert_eq!(request.header("USER-agent"), Some("Mozilla/5.0"));
    assert_eq!(request.header("connection"), Some("Upgrade"));
    assert_eq!(request.stage_variable("tenant"), Some("blue"));
    assert_eq!(request.stage_variable("none"), None);
    assert_eq!(request.connection_id().as_str(), "Kb7p2d5_vHcCIhw=");
    assert_eq!(request.request_context().source_ip.to_string(), "203.0.113.7");
    assert!(request.request_context().domain_name.starts_with("a1b2c3d4e5."));
    assert_eq!(fixture::request("authorizer_without_query").method_arn().partition(), "aws-cn");
}

#[test]
fn missing_repeated_and_empty_tokens_are_distinguished() {
    let with = |values: Value| {
        let mut json = fixture::json("authorizer");
        json["queryStringParameters"] = json!({"Auth": values.as_array().unwrap().last()});
        json["multiValueQueryStringParameters"] = json!({"Auth": values});
        Request::from_slice(&serde_json::to_vec(&json).unwrap()).unwrap()
    };
    assert_eq!(fixture::request("authorizer_without_query").query("Auth"), None);
    assert_eq!(with(json!([""])).query("Auth"), Some(""));
    let two = with(json!(["first", "second"]));
    assert_eq!(two.query("Auth"), Some("second"));
    assert_eq!(two.query_string().get_all("Auth").collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(with(json!(["a b%+"])).query("Auth"), Some("a b%+"), "the gateway has decoded it: it is not done twice");
}

#[test]
fn wrong_event_type_is_named_in_the_error() {
    for (name, found) in [
        ("connect", "a CONNECT event"),
        ("message", "a MESSAGE event"),
        ("rest_api", "the event of a REST API"),
        ("http_api", "the event of an HTTP API or a function URL"),
        ("rest_authorizer", "the event of a REST API's authorizer"),
        ("http_authorizer", "the event of an HTTP API's authorizer"),
        ("token_authorizer", "the event of a TOKEN authorizer"),
        ("sqs", "a batch of records (SQS, SNS, S3 or a stream)"),
    ] {
        let error = Request::from_slice(&fixture::bytes(name)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("expected the event of a WebSocket API's REQUEST authorizer, found {found}"),
            "{name}"
        );
    }
    let error = Request::from_slice(&fixture::changed("authorizer", "/methodArn", "arn:aws:s3:::bucket")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the event's `methodArn` is not valid: \"arn:aws:s3:::bucket\" is not the ARN of a WebSocket route: expected \
         `execute-api` at byte 8"
    );
}

#[test]
fn aut_4_allow_covers_exactly_the_requested_route() {
    assert_eq!(
        json(Authorization::allow("alice")),
        json!({
            "principalId": "alice",
            "policyDocument": {
                "Version": "2012-10-17",
                "Statement": [{"Action": ["execute-api:Invoke"], "Effect": "Allow", "Resource": [ARN]}],
            },
        })
    );
    let deny = json(Authorization::deny("mallory"));
    assert_eq!(deny["policyDocument"]["Statement"][0]["Effect"], "Deny");
}

#[test]
fn aut_11_absent_members_are_omitted() {
    let everything = Authorization::allow("alice")
        .with_context(&json!({"org": 7, "admin": true, "name": "x", "nothing": null}))
        .unwrap()
        .usage_identifier_key("key");
    let json = json(everything);
    assert_eq!(json["context"], json!({"org": 7, "admin": true, "name": "x", "nothing": null}));
    assert_eq!(json["usageIdentifierKey"], "key");
    let nothing = serde_json::to_string(&Authorization::allow("alice").respond(&arn()).unwrap()).unwrap();
    assert!(!nothing.contains("null") && !nothing.contains("context"), "{nothing}");
}

#[test]
fn aut_8_nested_value_error_names_its_path() {
    for (values, text) in [
        (
            json!({"roles": ["a"]}),
            "roles: arrays are not supported in an authorizer's context: wrap the value in `AsJson` to pass it as a \
             JSON string",
        ),
        (
            json!({"session": {"roles": ["a"]}}),
            "session.roles: arrays are not supported in an authorizer's context: wrap the value in `AsJson` to pass it \
             as a JSON string",
        ),
        (
            json!({"session": {"id": 1}}),
            "session: objects are not supported in an authorizer's context: wrap the value in `AsJson` to pass it as a \
             JSON string",
        ),
        (
            json!({"a": 1, "b": {}, "c": []}),
            "b: objects are not supported in an authorizer's context: wrap the value in `AsJson` to pass it as a JSON \
             string",
        ),
        (
            json!({"deep": {"er": {"and": {"er": []}}}}),
            "deep.er.and.er: arrays are not supported in an authorizer's context: wrap the value in `AsJson` to pass \
             it as a JSON string",
        ),
        (json!([1]), "an authorizer's context must be a struct or a map, found a list"),
        (json!("text"), "an authorizer's context must be a struct or a map, found a string"),
        (json!({"principalId": "x"}), "principalId: API Gateway reserves this key: use another name"),
        (json!({"integrationLatency": 1}), "integrationLatency: API Gateway reserves this key: use another name"),
    ] {
        assert_eq!(Context::new(&values).unwrap_err().to_string(), text);
    }
    assert!(Context::new(&()).unwrap().is_empty());
    assert!(Context::new(&None::<u8>).unwrap().is_empty());
    let Err(Denied::Failed(error)) = Authorization::allow("a").with_context(&json!({"a": []})) else { panic!() };
    assert!(matches!(error.downcast_ref(), Some(InvalidContext::Nested { .. })));
}

#[test]
fn aut_10_response_is_at_most_8_kb() {
    let of_size = |bytes: usize| {
        let empty = serde_json::to_vec(
            &Authorization::allow("a").with_context(&json!({"x": ""})).unwrap().respond(&arn()).unwrap(),
        );
        let fill = bytes - empty.unwrap().len();
        Authorization::allow("a").with_context(&json!({"x": "y".repeat(fill)})).unwrap().respond(&arn())
    };
    assert_eq!(serde_json::to_vec(&of_size(8192).unwrap()).unwrap().len(), 8192);
    let error = of_size(8193).unwrap_err();
    assert_eq!(error, InvalidAuthorization::TooLarge { size: 8193 });
    assert_eq!(error.to_string(), "the authorizer's response has 8193 bytes, more than API Gateway's maximum of 8192");
}

#[test]
fn aut_10_resource_is_at_most_512_characters() {
    assert!(Resource::new(format!("arn:{}", "x".repeat(508))).is_ok());
    let error = Resource::new(format!("arn:{}", "x".repeat(509))).unwrap_err().to_string();
    assert!(error.ends_with("is not valid: expected at most 512 characters"), "{error}");
    assert_eq!(
        Resource::new("a1b2c3d4e5/dev").unwrap_err().to_string(),
        "the resource \"a1b2c3d4e5/dev\" is not valid: expected `*`, or an ARN with `*` and `?` as wildcards"
    );
}

#[test]
fn aut_12_and_4_empty_principal_id_is_refused() {
    assert_eq!(Authorization::allow("").respond(&arn()).unwrap_err().to_string(), "the principal id is empty");
}

#[test]
fn aut_6_policy_that_cannot_match_its_own_route_is_refused() {
    let rest = Resource::new("arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/*/*").unwrap();
    let error = Authorization::allow("alice").with_policy(Policy::new().allow(rest)).respond(&arn()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no statement of the policy matches `{ARN}`, so every connection would be denied: use a pattern of \
             `RouteArn::whole_stage`; the form `…/<stage>/*/*` of REST APIs does not match"
        )
    );
    for resource in [Resource::from(arn()), arn().whole_stage(), arn().whole_api()] {
        let policy = Policy::new().allow(resource);
        assert!(Authorization::allow("alice").with_policy(policy).respond(&arn()).is_ok());
    }
}

#[test]
fn policy_cannot_override_deny() {
    let policy = Policy::new().allow(arn().whole_stage());
    assert_eq!(
        Authorization::deny("mallory").with_policy(policy).respond(&arn()).unwrap_err().to_string(),
        format!("the authorization denies, but its policy allows `{ARN}`")
    );
    let explicit = Policy::new().allow(arn().whole_api()).deny(arn().whole_stage());
    let response = Authorization::allow("alice").with_policy(explicit).respond(&arn()).unwrap();
    assert_eq!(response.policy_document().evaluate(&arn()), Decision::Deny);
}

async fn outcome(result: fn() -> Result<Authorization, Denied>) -> Result<Value, AuthorizerError> {
    let authorizer = Authorizer::new(move |_: Request| async move { result() });
    let response = authorizer.handle(fixture::request("authorizer")).await?;
    Ok(serde_json::to_value(response).unwrap())
}

#[tokio::test]
async fn aut_7_forbidden_denies_and_unauthorized_fails() {
    let forbidden = outcome(|| Err(Denied::Forbidden)).await.unwrap();
    assert_eq!(forbidden["policyDocument"]["Statement"][0]["Effect"], "Deny");
    assert_eq!(forbidden["policyDocument"]["Statement"][0]["Resource"][0], ARN);
    assert_eq!(forbidden["principalId"], "anonymous");

    let unauthorized = outcome(|| Err(Denied::Unauthorized)).await.unwrap_err();
    assert!(matches!(unauthorized, AuthorizerError::Unauthorized));
    assert_eq!(unauthorized.to_string(), "Unauthorized");

    let failed = outcome(|| Ok("x".parse::<u8>().map(|_| Authorization::allow("a"))?)).await.unwrap_err();
    assert_eq!(failed.to_string(), "the authorizer failed: invalid digit found in string");

    let disguised = outcome(|| Err(std::io::Error::other("Unauthorized").into())).await.unwrap_err();
    assert_ne!(disguised.to_string(), "Unauthorized", "a failure must not become a 401");

    let invalid = outcome(|| Ok(Authorization::allow(""))).await.unwrap_err();
    assert_eq!(invalid.to_string(), "the authorizer failed: the principal id is empty");
}
