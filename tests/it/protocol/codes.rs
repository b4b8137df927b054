//! Error codes and correlation ids.

use lambda_websocket::event::{CorrelationId, RequestId};
use lambda_websocket::route::{Error, ErrorCode, StatusCode};

#[test]
fn statuses_map_to_error_codes() {
    for (status, code, of_code) in [
        (400, "invalid_message", 400),
        (401, "unauthorized", 401),
        (402, "payment_required", 402),
        (403, "forbidden", 403),
        (404, "not_found", 404),
        (408, "timeout", 408),
        (409, "conflict", 409),
        (413, "too_large", 413),
        (418, "im_a_teapot", 418),
        (422, "unprocessable_entity", 422),
        (429, "too_many_requests", 429),
        (499, "status_499", 499),
        (500, "internal", 500),
        (501, "not_implemented", 501),
        (503, "unavailable", 503),
        (504, "timeout", 504),
        (301, "moved_permanently", 301),
        // A success status would accept the client.
        (200, "internal", 500),
    ] {
        let found = ErrorCode::from(StatusCode::from_u16(status).unwrap());
        assert_eq!((found.as_str(), found.status().as_u16()), (code, of_code));
        assert!(ErrorCode::try_from(found.as_str()).is_ok(), "{code}");
    }
    assert_eq!(ErrorCode::new("x").with_status(StatusCode::NO_CONTENT).status(), 500);
    assert_eq!(ErrorCode::UNKNOWN_ACTION.status(), 404);
    assert_ne!(ErrorCode::UNKNOWN_ACTION, ErrorCode::NOT_FOUND);
}

#[test]
fn custom_error_code_is_validated() {
    const SOLD_OUT: ErrorCode = ErrorCode::new("shop.sold-out_2");
    assert_eq!(format!("{SOLD_OUT} {SOLD_OUT:?}"), "shop.sold-out_2 ErrorCode(shop.sold-out_2, 400)");
    for illegal in ["", "Sold", "sold out", "é", &"x".repeat(65)] {
        let error = ErrorCode::try_from(illegal).unwrap_err().to_string();
        assert!(error.ends_with("is not valid: expected 1 to 64 of `a-z 0-9 _ . -`"), "{error}");
    }
    assert!(ErrorCode::try_from(&*"x".repeat(64)).is_ok());
    assert!(std::panic::catch_unwind(|| ErrorCode::new("Sold")).is_err());
}

#[test]
fn unserializable_details_are_an_internal_error() {
    let keys_of_json_are_texts = std::collections::BTreeMap::from([(vec![1], 1)]);
    let error = Error::client(ErrorCode::CONFLICT, "taken").with_details(&keys_of_json_are_texts);
    assert_eq!((error.code(), error.client_text()), (&ErrorCode::INTERNAL, None));
    assert!(error.to_string().starts_with("the details of an error failed to serialize as JSON: "), "{error}");
}

#[test]
fn string_and_number_ids_are_distinct() {
    let id = |json: &str| CorrelationId::from_json(json).unwrap();
    assert_ne!(id("7"), id("\"7\""));
    assert_ne!(id("1e3"), id("1000"));
    assert_eq!(CorrelationId::new("a\"b").unwrap().as_json(), r#""a\"b""#);
    assert_eq!(CorrelationId::from(7), id("7"));
    for json in ["7", "-7", "1e3", r#""a""#, r#""""#, r#""\u0041""#] {
        assert_eq!(serde_json::to_string(&id(json)).unwrap(), json);
        let back: CorrelationId = serde_json::from_str(json).unwrap();
        let value = |id: &CorrelationId| serde_json::to_value(id).unwrap();
        assert_eq!(value(&back), value(&id(json)));
    }
    for json in ["", " 7", "7 ", "true", "null", "[]", "{}", "7,", "\"", "01", "+1", "\"a\" ", "nonsense", "-"] {
        assert!(CorrelationId::from_json(json).is_err(), "{json}");
        assert!(!json.is_empty() || serde_json::from_str::<CorrelationId>(json).is_err());
    }
    assert!(CorrelationId::new("x".repeat(62)).is_ok());
    let long = CorrelationId::new("x".repeat(63)).unwrap_err().to_string();
    assert!(long.ends_with("is not valid: expected a JSON string or number of at most 64 bytes"), "{long}");
    // A request id may be longer than a client's own id.
    let request_id = RequestId::new("\"".repeat(128)).unwrap();
    assert_eq!(CorrelationId::from(&request_id).as_json().len(), 258);
}
