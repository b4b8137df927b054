use std::time::{Duration, SystemTime};

use lambda_websocket::authorizer::{
    Authorization, ConditionKeys, Decision, Effect, Policy, Resource, RouteArn, Statement,
};
use proptest::prelude::*;
use serde_json::json;

const ARN: &str = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/$connect";

fn arn() -> RouteArn {
    ARN.parse().unwrap()
}

fn read(json: &serde_json::Value) -> Result<Policy, String> {
    serde_json::from_value(json.clone()).map_err(|error| error.to_string())
}

fn statement(effect: &str, action: serde_json::Value, resource: serde_json::Value) -> serde_json::Value {
    json!({"Effect": effect, "Action": action, "Resource": resource})
}

#[test]
fn aut_5_and_6_policies_are_evaluated_like_iam() {
    let prefix = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5";
    for (resource, decision) in [
        (ARN.to_owned(), Decision::Allow),
        (format!("{prefix}/dev/*"), Decision::Allow),
        (format!("{prefix}/*"), Decision::Allow),
        (format!("{prefix}/*/$connect"), Decision::Allow),
        (format!("{prefix}/d?v/$connect"), Decision::Allow),
        ("arn:aws:execute-api:*".to_owned(), Decision::Allow),
        ("arn:*:execute-api:*:*:*/dev/$connect".to_owned(), Decision::Allow),
        ("*".to_owned(), Decision::Allow),
        (format!("{prefix}/dev/*/*"), Decision::ImplicitDeny),
        (format!("{prefix}/prod/*"), Decision::ImplicitDeny),
        (format!("{prefix}/dev"), Decision::ImplicitDeny),
        (format!("{prefix}/DEV/*"), Decision::ImplicitDeny),
        (format!("{prefix}/d??v/*"), Decision::ImplicitDeny),
    ] {
        let policy = Policy::new().allow(Resource::new(resource.as_str()).unwrap());
        assert_eq!(policy.evaluate(&arn()), decision, "{resource}");
    }
    assert_eq!(Policy::new().evaluate(&arn()), Decision::ImplicitDeny);
    assert_eq!(Policy::new().deny(arn()).allow(arn()).evaluate(&arn()), Decision::Deny);
    assert_eq!(Policy::new().allow(arn()).deny(arn().whole_api()).evaluate(&arn()), Decision::Deny);
}

#[test]
fn aut_5_single_value_equals_one_element_list() {
    for (action, resource, decision) in [
        (json!("execute-api:Invoke"), json!(ARN), Decision::Allow),
        (json!(["execute-api:Invoke"]), json!([ARN]), Decision::Allow),
        (json!("EXECUTE-API:invoke"), json!(ARN), Decision::Allow),
        (json!("execute-api:*"), json!(ARN), Decision::Allow),
        (json!("*"), json!("*"), Decision::Allow),
        (json!(["s3:GetObject", "execute-api:Invoke"]), json!(["arn:x", ARN]), Decision::Allow),
        (json!("execute-api:ManageConnections"), json!("*"), Decision::ImplicitDeny),
        (json!([]), json!("*"), Decision::ImplicitDeny),
        (json!("*"), json!([]), Decision::ImplicitDeny),
    ] {
        let one = statement("Allow", action.clone(), resource.clone());
        for statements in [json!([one.clone()]), one] {
            let policy = read(&json!({"Version": "2012-10-17", "Statement": statements})).unwrap();
            assert_eq!(policy.evaluate(&arn()), decision, "{action} {resource}");
        }
    }
}

#[test]
fn unsupported_policy_elements_are_refused() {
    let with = |member: &str, value: serde_json::Value| {
        let mut one = statement("Allow", json!("*"), json!("*"));
        one[member] = value;
        read(&json!({"Version": "2012-10-17", "Statement": [one]}))
    };
    for (member, value) in [("NotAction", json!("s3:*")), ("NotResource", json!("*")), ("Principal", json!("*"))] {
        let error = with(member, value).unwrap_err();
        assert!(error.starts_with(&format!("unknown field `{member}`")), "{error}");
    }
    assert!(with("Condition", json!(null)).unwrap_err().starts_with("invalid type: null, expected a map"), "AUT-11");
    assert!(with("Sid", json!("first")).is_ok());
    let cases = [
        (json!({"Action": "*", "Resource": "*"}), "missing field `Effect`"),
        (json!({"Effect": "allow", "Action": "*", "Resource": "*"}), "unknown variant `allow`"),
        (json!({"Effect": "Allow", "Resource": "*"}), "missing field `Action`"),
        (json!({"Effect": "Allow", "Action": "*"}), "missing field `Resource`"),
        (json!({"Effect": "Allow", "Action": 7, "Resource": "*"}), "invalid type: integer `7`"),
    ];
    for (one, text) in cases {
        let error = read(&json!({"Version": "2012-10-17", "Statement": [one]})).unwrap_err();
        assert!(error.starts_with(text), "{error}");
    }
    assert!(read(&json!({"Statement": []})).unwrap_err().starts_with("missing field `Version`"));
    assert!(read(&json!({"Version": "2024-01-01", "Statement": []})).is_err());
}

/// Returns the decision of a policy with this condition, for an office worker at noon.
fn decided(effect: &str, condition: &serde_json::Value) -> Decision {
    let mut one = statement(effect, json!("*"), json!("*"));
    one["Condition"] = condition.clone();
    let policy = read(&json!({"Version": "2012-10-17", "Statement": [one]})).unwrap();
    let again: Policy = serde_json::from_str(&serde_json::to_string(&policy).unwrap()).unwrap();
    assert_eq!(again, policy, "{condition}");
    // 2026-06-01T12:00:00Z
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_315_200);
    let keys = ConditionKeys::new()
        .with_source_ip("203.0.113.7".parse().unwrap())
        .with_user_agent("Mozilla/5.0 (X11)")
        .with_time(noon)
        .with_secure_transport(true);
    policy.evaluate_for(&arn(), &keys)
}

#[test]
fn aut_13_a_condition_decides_whether_a_statement_applies() {
    for (condition, holds) in [
        (json!({}), true),
        (json!({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}), true),
        (json!({"IpAddress": {"AWS:sourceip": ["198.51.100.0/24", "203.0.113.7"]}}), true),
        (json!({"IpAddress": {"aws:SourceIp": "203.0.113.8/32"}}), false),
        (json!({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}), true),
        (json!({"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}), false),
        (json!({"NotIpAddress": {"aws:SourceIp": ["203.0.113.0/24", "198.51.100.0/24"]}}), false),
        (json!({"NotIpAddress": {"aws:SourceIp": "198.51.100.0/24"}}), true),
        (json!({"StringEquals": {"aws:UserAgent": "Mozilla/5.0 (X11)"}}), true),
        (json!({"StringEquals": {"aws:UserAgent": "mozilla/5.0 (x11)"}}), false),
        (json!({"StringEqualsIgnoreCase": {"aws:UserAgent": "mozilla/5.0 (x11)"}}), true),
        (json!({"StringLike": {"aws:UserAgent": ["curl*", "Mozilla/?.?*"]}}), true),
        (json!({"StringNotLike": {"aws:UserAgent": ["curl*", "Mozilla/*"]}}), false),
        (json!({"Bool": {"aws:SecureTransport": true}}), true),
        (json!({"Bool": {"aws:SecureTransport": "false"}}), false),
        (json!({"DateGreaterThan": {"aws:CurrentTime": "2026-06-01T11:59:59Z"}}), true),
        (json!({"DateLessThan": {"aws:CurrentTime": "2026-06-01T12:00:00Z"}}), false),
        (json!({"DateLessThanEquals": {"aws:CurrentTime": "2026-06-01T14:00:00+02:00"}}), true),
        (json!({"DateGreaterThan": {"aws:CurrentTime": "2026-06-01"}}), true),
        (json!({"NumericLessThan": {"aws:EpochTime": 1_780_315_201}}), true),
        (json!({"DateEquals": {"aws:EpochTime": "1780315200"}}), true),
        // All conditions have to hold.
        (json!({"Bool": {"aws:SecureTransport": "true"}, "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), false),
        // A missing key matches nothing.
        (json!({"StringLike": {"aws:Referer": "*"}}), false),
        (json!({"StringNotLike": {"aws:Referer": "*"}}), true),
        (json!({"StringLikeIfExists": {"aws:Referer": "https://example.com/*"}}), true),
        (json!({"StringLikeIfExists": {"aws:UserAgent": "curl*"}}), false),
        (json!({"Null": {"aws:Referer": "true"}}), true),
        (json!({"Null": {"aws:Referer": "false"}}), false),
        (json!({"Null": {"aws:UserAgent": "false"}}), true),
        (json!({"ForAllValues:StringLike": {"aws:Referer": "x"}}), true),
        (json!({"ForAnyValue:StringLike": {"aws:Referer": "x"}}), false),
        (json!({"ForAnyValue:StringLike": {"aws:UserAgent": "Mozilla*"}}), true),
    ] {
        let allow = if holds { Decision::Allow } else { Decision::ImplicitDeny };
        assert_eq!(decided("Allow", &condition), allow, "{condition}");
        let deny = if holds { Decision::Deny } else { Decision::ImplicitDeny };
        assert_eq!(decided("Deny", &condition), deny, "{condition}");
    }
}

#[test]
fn aut_13_an_authorization_may_have_a_policy_with_a_condition() {
    let policy = |resource: Resource| {
        let statement = Statement::new(Effect::Allow, [resource]);
        Policy::new().statement(statement.when("IpAddress", "aws:SourceIp", ["203.0.113.0/24"]))
    };
    let respond = |policy| Authorization::allow("alice").with_policy(policy).respond(&arn());
    let response = serde_json::to_value(respond(policy(arn().whole_stage())).unwrap()).unwrap();
    let condition = &response["policyDocument"]["Statement"][0]["Condition"];
    assert_eq!(*condition, json!({"IpAddress": {"aws:SourceIp": ["203.0.113.0/24"]}}));
    let other = Resource::new("arn:aws:execute-api:eu-central-1:123456789012:another/*").unwrap();
    assert!(respond(policy(other)).is_err(), "it can never allow its own route");
}

#[test]
fn aut_13_unknown_condition_denies() {
    for condition in [
        json!({"StringAlmostEquals": {"aws:UserAgent": "x"}}),
        json!({"ForSome:StringEquals": {"aws:UserAgent": "x"}}),
        json!({"StringEquals": {"aws:PrincipalTag/team": "blue"}}),
        json!({"IpAddress": {"aws:SourceIp": "the office"}}),
        json!({"IpAddress": {"aws:SourceIp": "203.0.113.0/33"}}),
        json!({"DateLessThan": {"aws:CurrentTime": "tomorrow"}}),
    ] {
        assert_eq!(decided("Allow", &condition), Decision::ImplicitDeny, "{condition}");
        assert_eq!(decided("Deny", &condition), Decision::Deny, "{condition}");
    }
}

#[test]
fn an_arn_of_any_partition_is_read() {
    for partition in ["aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-eusc"] {
        let text = format!("arn:{partition}:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/chat/join");
        let arn: RouteArn = text.parse().unwrap();
        assert_eq!(arn.partition(), partition);
        assert_eq!(arn.route_key().as_str(), "chat/join");
        assert_eq!(arn.account(), "123456789012");
        assert_eq!(arn.to_string(), text);
        assert_eq!(
            arn.whole_api().as_str(),
            format!("arn:{partition}:execute-api:eu-central-1:123456789012:a1b2c3d4e5/*")
        );
    }
}

#[test]
fn malformed_arn_error_names_the_part() {
    for (text, expected, position) in [
        ("", "`arn`", 0),
        ("urn:aws:x", "`arn`", 0),
        ("arn:gcp:execute-api:r:1:a/b/c", "a partition such as `aws`", 4),
        ("arn:aws:s3:::bucket", "`execute-api`", 8),
        ("arn:aws:execute-api::123456789012:a/dev/x", "a region", 20),
        ("arn:aws:execute-api:eu-west-1:me:a/dev/x", "an account id of at most 12 digits", 30),
        ("arn:aws:execute-api:eu-west-1:1:*/dev/x", "an API id", 32),
        ("arn:aws:execute-api:eu-west-1:1:a", "an API id", 32),
        ("arn:aws:execute-api:eu-west-1:1:a/d*/x", "a stage", 34),
        ("arn:aws:execute-api:eu-west-1:1:a/dev", "a stage", 34),
        ("arn:aws:execute-api:eu-west-1:1:a/dev/", "a route key", 38),
        ("arn:aws:execute-api:eu-west-1:1:a/dev/$x", "a route key", 38),
    ] {
        let error = text.parse::<RouteArn>().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{text:?} is not the ARN of a WebSocket route: expected {expected} at byte {position}")
        );
        assert_eq!(error.position(), position);
    }
    let long = format!("{ARN}{}", "x".repeat(1600)).parse::<RouteArn>().unwrap_err();
    assert!(long.to_string().contains("expected at most 1600 bytes"));
}

/// A naive, exponential matcher, written from the definition and independent of the crate.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((&'*', rest)), None) => naive(rest, text),
        (Some((&'*', rest)), Some((_, tail))) => naive(rest, text) || naive(pattern, tail),
        (Some((&'?', rest)), Some((_, tail))) => naive(rest, tail),
        (Some((p, rest)), Some((t, tail))) if p == t => naive(rest, tail),
        _ => false,
    }
}

fn resource() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        Just(ARN.to_owned()),
        // Wildcards anywhere in the ARN itself, so that patterns match often enough to be useful.
        proptest::collection::vec((0..ARN.len(), 0..ARN.len(), prop_oneof![Just("*"), Just("?")]), 0..4).prop_map(
            |cuts| {
                let mut text = ARN.to_owned();
                for (start, length, wildcard) in cuts {
                    let start = start.clamp(4, text.len());
                    let end = (start + length % 9).min(text.len());
                    text.replace_range(start..end, wildcard);
                }
                text
            }
        ),
        "arn:[a-z:/*?$é]{0,30}",
    ]
}

proptest! {
    #[test]
    fn policy_round_trip_agrees_with_a_naive_matcher(
        statements in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(resource(), 1..3)),
            0..4,
        ),
    ) {
        let mut policy = Policy::new();
        for (allow, resources) in &statements {
            let effect = if *allow { Effect::Allow } else { Effect::Deny };
            let resources: Vec<Resource> = resources.iter().map(|text| Resource::new(text.as_str()).unwrap()).collect();
            policy = policy.statement(Statement::new(effect, resources));
        }
        let text: Vec<char> = ARN.chars().collect();
        let matches = |allow: bool| {
            statements.iter().any(|(effect, resources)| {
                *effect == allow
                    && resources.iter().any(|pattern| naive(&pattern.chars().collect::<Vec<_>>(), &text))
            })
        };
        let expected = match (matches(false), matches(true)) {
            (true, _) => Decision::Deny,
            (false, true) => Decision::Allow,
            (false, false) => Decision::ImplicitDeny,
        };
        let json = serde_json::to_string(&policy).unwrap();
        let read: Policy = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read, &policy);
        prop_assert_eq!(read.evaluate(&arn()), expected);
    }

    #[test]
    fn arn_round_trips(
        partition in "aws(-[a-z]{1,6}){0,2}",
        region in "[a-z]{2}-[a-z]{4,9}-[0-9]",
        account in "[0-9]{12}",
        api in "[a-z0-9]{10}",
        stage in "[A-Za-z0-9_-]{1,20}",
        key in "[a-zA-Z0-9/:_. -]{1,20}",
    ) {
        let text = format!("arn:{partition}:execute-api:{region}:{account}:{api}/{stage}/{key}");
        let arn: RouteArn = text.parse().unwrap();
        prop_assert_eq!(arn.to_string(), text);
        let exactly = Policy::new().allow(&arn);
        let whole_stage = Policy::new().allow(arn.whole_stage());
        prop_assert_eq!(exactly.evaluate(&arn), Decision::Allow);
        prop_assert_eq!(whole_stage.evaluate(&arn), Decision::Allow);
    }

    #[test]
    fn parsing_never_panics(text in ".{0,80}") {
        let _ = text.parse::<RouteArn>();
        let _ = serde_json::from_str::<Policy>(&text);
    }
}
