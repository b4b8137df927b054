//! Tests of the rules, without sockets and without waiting.

mod concurrency;
mod connecting;
mod events;
mod faults;
mod lifetime;
mod messages;
mod random;

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::super::function::FunctionError;
use super::management::Delivery;
use super::*;
use crate::quotas;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn at(seconds: u64) -> SystemTime {
    // 2023-11-14T22:13:20Z plus these seconds.
    START + Duration::from_secs(1_700_000_000 + seconds)
}

fn integration(function: FunctionId, has_route_response: bool) -> Integration {
    Integration { function, has_route_response, timeout: quotas::INTEGRATION_TIMEOUT }
}

/// Function 0 is the authorizer, 1 `$connect`, 2 `$disconnect`, 3 `join`, 4 `ask` (with a
/// route response).
fn api() -> Api {
    let route = |key: &str, function, has_route_response| {
        (RouteKey::new(key).unwrap(), integration(function, has_route_response))
    };
    Api {
        api_id: ApiId::new("a1b2c3d4e5").unwrap(),
        region: Region::new("eu-central-1").unwrap(),
        stages: BTreeMap::from([
            (Stage::new("dev").unwrap(), vec![("tenant".to_owned(), "blue".to_owned())]),
            (Stage::new("prod").unwrap(), Vec::new()),
        ]),
        selection: RouteSelection::default(),
        routes: BTreeMap::from([
            route("$connect", 1, false),
            route("$disconnect", 2, false),
            route("join", 3, false),
            route("ask", 4, true),
        ]),
        authorizer: Some(Authorizer {
            function: 0,
            identity_sources: vec!["route.request.querystring.Auth".parse().unwrap()],
        }),
        idle_timeout: quotas::IDLE_TIMEOUT,
        lifetime: quotas::CONNECTION_LIFETIME,
        connections: None,
        requests: None,
        concurrency: quotas::CONCURRENT_EXECUTIONS,
        function_concurrency: BTreeMap::new(),
        is_interleaved: false,
    }
}

fn handshake(query: &[(&str, &str)]) -> Handshake {
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    Handshake {
        headers: owned(&[
            ("Host", "127.0.0.1:3001"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("User-Agent", "test"),
            ("Sec-WebSocket-Protocol", "b, a"),
        ]),
        query: owned(query),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        source_port: 50_000,
        port: 3001,
    }
}

struct Test {
    machine: Machine,
    id: ConnectionId,
    effects: Vec<Effect>,
}

impl Test {
    fn upgrade(api: Api, query: &[(&str, &str)]) -> Self {
        let mut machine = Machine::new(api, 1);
        let (id, effects) = machine.upgrade(at(0), Stage::new("dev").unwrap(), handshake(query));
        Self { machine, id, effects }
    }

    /// Creates a test with an open connection.
    fn open() -> Self {
        let mut test = Self::upgrade(api(), &[("Auth", "token")]);
        test.answer(at(0), allow(json!({"org": 7, "admin": true, "nothing": null})));
        test.answer(at(0), json!({"statusCode": 200}));
        assert!(matches!(test.effects.as_slice(), [Effect::Accept { subprotocol: None, .. }]));
        test
    }

    /// Returns the only running call, its function, and its event.
    fn call(&self) -> (CallId, FunctionId, Value) {
        match self.effects.as_slice() {
            [Effect::Invoke { call, function, payload, .. }] => {
                (*call, *function, serde_json::from_slice(payload).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, now: SystemTime, answer: Value) {
        let (call, _, _) = self.call();
        self.effects = self.machine.answered(now, call, Ok(serde_json::to_vec(&answer).unwrap()));
    }

    fn fail(&mut self, now: SystemTime, message: &str) {
        let (call, _, _) = self.call();
        self.effects = self.machine.answered(now, call, Err(FunctionError::new("Error", message)));
    }

    fn message(&mut self, now: SystemTime, body: &str) {
        self.effects = self.machine.message(now, &self.id.clone(), body);
    }

    /// Returns the status and the error type with which the upgrade was refused.
    fn refused(&self) -> (u16, Option<&'static str>) {
        match self.effects.as_slice() {
            [Effect::Refuse { refusal, .. }] => (refusal.status, refusal.error_type),
            other => panic!("{other:?}"),
        }
    }

    fn sent(&self) -> &str {
        match self.effects.as_slice() {
            [Effect::Send { text, .. }] => text,
            other => panic!("{other:?}"),
        }
    }
}

fn allow(context: Value) -> Value {
    json!({
        "principalId": "alice",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{
                "Action": "execute-api:Invoke",
                "Effect": "Allow",
                "Resource": "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/$connect",
            }],
        },
        "context": context,
    })
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

const CONTEXT: [&str; 13] = [
    "apiId",
    "connectedAt",
    "connectionId",
    "domainName",
    "eventType",
    "extendedRequestId",
    "identity",
    "messageDirection",
    "requestId",
    "requestTime",
    "requestTimeEpoch",
    "routeKey",
    "stage",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut all: Vec<&str> = CONTEXT.iter().chain(more).copied().collect();
    all.sort_unstable();
    all
}
