//! The output of the example for CloudWatch: metrics in the embedded metric format, and a JSON log.

use serde_json::{Value, json};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::fixture;
use crate::runtime::Function;

/// Returns the rules of the embedded metric format's specification, as a JSON schema.
fn schema() -> Value {
    let name = json!({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": r"\S"});
    let units = [
        "Seconds",
        "Microseconds",
        "Milliseconds",
        "Bytes",
        "Kilobytes",
        "Megabytes",
        "Gigabytes",
        "Terabytes",
        "Bits",
        "Kilobits",
        "Megabits",
        "Gigabits",
        "Terabits",
        "Percent",
        "Count",
        "Bytes/Second",
        "Kilobytes/Second",
        "Megabytes/Second",
        "Gigabytes/Second",
        "Terabytes/Second",
        "Bits/Second",
        "Kilobits/Second",
        "Megabits/Second",
        "Gigabits/Second",
        "Terabits/Second",
        "Count/Second",
        "None",
    ];
    let dimensions = json!({
        "type": "array", "minItems": 1,
        "items": {
            "type": "array", "maxItems": 30, "uniqueItems": true,
            "items": {"type": "string", "minLength": 1, "maxLength": 250, "pattern": r"^[\x20-\x7e]+$"},
        },
    });
    let metrics = json!({
        "type": "array", "minItems": 1, "maxItems": 100,
        "items": {
            "type": "object", "required": ["Name"], "additionalProperties": false,
            "properties": {"Name": name, "Unit": {"enum": units}, "StorageResolution": {"enum": [1, 60]}},
        },
    });
    json!({
        "type": "object", "required": ["_aws"],
        "properties": {"_aws": {
            "type": "object", "required": ["Timestamp", "CloudWatchMetrics"], "additionalProperties": false,
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 1_000_000_000_000_u64},
                "CloudWatchMetrics": {
                    "type": "array", "minItems": 1,
                    "items": {
                        "type": "object", "required": ["Namespace", "Dimensions", "Metrics"], "additionalProperties": false,
                        "properties": {"Namespace": name, "Dimensions": dimensions, "Metrics": metrics},
                    },
                },
            },
        }},
    })
}

/// Checks a rule that a schema cannot express: each dimension has a value, and each metric one value or a list of them.
fn assert_has_its_targets(document: &Value) {
    for directive in document["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
        for dimension in directive["Dimensions"].as_array().unwrap().iter().flat_map(|set| set.as_array().unwrap()) {
            let value = document[dimension.as_str().unwrap()].as_str().unwrap_or_default();
            assert!((1..=1024).contains(&value.len()) && value.is_ascii(), "{dimension} of {document}");
        }
        for metric in directive["Metrics"].as_array().unwrap() {
            let value = &document[metric["Name"].as_str().unwrap()];
            let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
            assert!((1..=100).contains(&values.len()) && values.iter().all(Value::is_number), "{metric} of {document}");
        }
    }
}

#[test]
fn schema_rejects_invalid_embedded_metrics() {
    let directive =
        json!({"Namespace": "chat", "Dimensions": [["route"]], "Metrics": [{"Name": "events", "Unit": "Count"}]});
    let document = |directive: Value| json!({"_aws": {"Timestamp": 1_700_000_000_000_u64, "CloudWatchMetrics": [directive]}, "events": 1, "route": "say"});
    let schema = schema();
    assert!(jsonschema::is_valid(&schema, &document(directive.clone())));
    for (pointer, value) in [
        ("/Namespace", json!("")),
        ("/Dimensions", json!([])),
        ("/Dimensions/0", json!(vec!["d"; 31])),
        ("/Metrics", json!([])),
        ("/Metrics/0/Unit", json!("Second")),
        ("/Metrics/0/Name", json!(7)),
    ] {
        let mut broken = directive.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        assert!(!jsonschema::is_valid(&schema, &document(broken)), "{pointer}");
    }
}

#[tokio::test]
async fn example_writes_valid_embedded_metrics_and_logs() {
    let connections = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&connections).await;
    let function = Function::new("observability")
        .with("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", format!("{}/dev", connections.uri()))
        .with("AWS_REGION", "eu-central-1")
        .with("AWS_ACCESS_KEY_ID", "any")
        .with("AWS_SECRET_ACCESS_KEY", "any");
    let mut event = fixture::json("message");
    event["requestContext"]["routeKey"] = json!("pushtowebsocket");
    event["body"] = json!(r#"{"action":"pushtowebsocket","message":"a token: s3cr3t"}"#);
    let (answer, printed) = function.run(&serde_json::to_vec(&event).unwrap()).await;
    assert_eq!(answer.unwrap()["statusCode"], 200, "{printed}");
    assert!(!printed.contains("s3cr3t"), "{printed}");

    let lines: Vec<Value> = printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let (documents, log): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line.get("_aws").is_some());
    let schema = schema();
    for document in &documents {
        if let Err(error) = jsonschema::validate(&schema, document) {
            panic!("{error}: {document}");
        }
        assert_has_its_targets(document);
    }
    let value = |metric: &str, labels: &[(&str, &str)]| {
        let has_labels = |document: &&&Value| labels.iter().all(|(label, value)| document[*label] == **value);
        documents.iter().filter(has_labels).find_map(|document| document.get(metric)).cloned()
    };
    let route = ("route", "pushtowebsocket");
    assert_eq!(value("websocket_events", &[route, ("code", "ok")]), Some(json!(1)), "{printed}");
    assert_eq!(value("websocket_pushes", &[("operation", "send"), ("outcome", "delivered")]), Some(json!(1)));
    assert_eq!(value("echoed_bytes", &[]), Some(json!(15)));
    assert!(value("websocket_event_duration_seconds", &[route]).is_some());
    let unit =
        documents.iter().flat_map(|document| document["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap());
    let unit = unit.filter(|metric| metric["Name"] == "websocket_event_duration_seconds").map(|metric| &metric["Unit"]);
    assert_eq!(unit.collect::<Vec<_>>(), ["Seconds"]);

    let echoed = log.iter().find(|line| line["message"] == "echoed").unwrap_or_else(|| panic!("{printed}"));
    assert_eq!((&echoed["level"], &echoed["bytes"]), (&json!("INFO"), &json!(15)));
    assert!(echoed["timestamp"].is_string());
    let trace = "5759e988bd862e3fe1be46a994272793";
    assert!(
        log.iter().any(|line| line["message"] == "echoed"
            && line["span"]["name"] == "websocket"
            && line["span"]["trace_id"] == trace
            && line["span"]["request_id"].is_string()),
        "{printed}"
    );
    let spans = printed.lines().filter_map(|line| line.trim().strip_prefix("TraceId"));
    let spans: Vec<&str> = spans.map(|id| id.trim_start_matches([' ', ':'])).collect();
    assert_eq!(spans, [trace; 3], "the route, its own span, and the push are part of Lambda's trace: {printed}");
}
