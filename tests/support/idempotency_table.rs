//! An in-process DynamoDB table, as far as an idempotency store needs one.
//!
//! It speaks DynamoDB's JSON over HTTP, evaluates the conditions of `PutItem` and `DeleteItem`, and can lose its responses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

type Item = Map<String, Value>;

#[derive(Default)]
struct State {
    /// The partition key's name. `None` until the table is created.
    key: Option<String>,
    items: BTreeMap<String, Item>,
    /// How many more responses to lose.
    to_lose: usize,
    requests: Vec<String>,
}

/// A running table, which ends with its runtime.
#[derive(Clone)]
pub struct IdempotencyTable {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl IdempotencyTable {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let table = Self { address, state: Arc::default() };
        let running = table.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let table = running.clone();
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let service = service_fn(move |request| {
                        let table = table.clone();
                        async move { table.answer(request).await.ok_or(Broken) }
                    });
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        table
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Applies the next requests, and breaks the connection instead of responding.
    pub fn lose_answers(&self, count: usize) {
        self.state().to_lose = count;
    }

    /// Returns the operations that were applied or refused, in order.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    pub fn items(&self) -> Vec<Item> {
        self.state().items.values().cloned().collect()
    }

    /// Expires the lease and the record of every item, as if time had passed.
    pub fn expire(&self) {
        for item in self.state().items.values_mut() {
            item.insert("expiresAt".to_owned(), json!({"N": "1"}));
        }
    }

    /// Replaces a number in every item.
    pub fn change(&self, attribute: &str, number: impl Fn(&str) -> String) {
        for item in self.state().items.values_mut() {
            let changed = number(item[attribute]["N"].as_str().unwrap());
            item.insert(attribute.to_owned(), json!({"N": changed}));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let target = request.headers()["x-amz-target"].to_str().unwrap().to_owned();
        let operation = target.rsplit('.').next().unwrap().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let answer = {
            let mut state = self.state();
            let answer = state.carry_out(&operation, &body);
            state.requests.push(operation);
            if state.to_lose > 0 {
                state.to_lose -= 1;
                return None;
            }
            answer
        };
        let (status, body) = match answer {
            Ok(body) => (StatusCode::OK, body),
            Err(body) => (StatusCode::BAD_REQUEST, body),
        };
        let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
        Some(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
    }
}

impl State {
    fn carry_out(&mut self, operation: &str, request: &Value) -> Result<Value, Value> {
        match operation {
            "CreateTable" if self.key.is_some() => return Err(refusal("ResourceInUseException")),
            "CreateTable" => {
                self.key = Some(request["KeySchema"][0]["AttributeName"].as_str().unwrap().to_owned());
                return Ok(json!({"TableDescription": {"TableName": request["TableName"]}}));
            }
            "UpdateTimeToLive" => {
                return Ok(json!({"TimeToLiveSpecification": request["TimeToLiveSpecification"]}));
            }
            _ => {}
        }
        let Some(key) = self.key.clone() else { return Err(refusal("ResourceNotFoundException")) };
        let (given, put) = match operation {
            "PutItem" => (&request["Item"], request["Item"].as_object().cloned()),
            "DeleteItem" => (&request["Key"], None),
            other => panic!("an idempotency store needs no {other}"),
        };
        let id = given[&key]["S"].as_str().expect("the partition key is a string").to_owned();
        assert!((1..=2048).contains(&id.len()), "DynamoDB takes partition keys of 1 to 2048 bytes");
        let old = self.items.get(&id).cloned();
        if !holds(request, old.as_ref()) {
            let mut refusal = refusal("ConditionalCheckFailedException");
            if request["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD" {
                refusal["Item"] = old.map_or(Value::Null, Value::Object);
            }
            return Err(refusal);
        }
        match put {
            Some(item) => self.items.insert(id, item),
            None => self.items.remove(&id),
        };
        Ok(json!({}))
    }
}

/// Evaluates the condition of a request against the existing item.
fn holds(request: &Value, item: Option<&Item>) -> bool {
    let Some(condition) = request["ConditionExpression"].as_str() else { return true };
    let attribute = |name: &str| {
        let name = request["ExpressionAttributeNames"][name].as_str().unwrap_or(name);
        item.and_then(|item| item.get(name))
    };
    let value = |name: &str| &request["ExpressionAttributeValues"][name];
    let number = |value: &Value| value["N"].as_str().and_then(|number| number.parse::<u64>().ok());
    let term = |term: &str| {
        if let Some(name) = term.strip_prefix("attribute_not_exists(").and_then(|rest| rest.strip_suffix(')')) {
            return attribute(name).is_none();
        }
        let [name, operator, operand] = term.split(' ').collect::<Vec<_>>()[..] else { panic!("{term}") };
        let Some(found) = attribute(name) else { return false };
        match operator {
            "=" => found == value(operand),
            "<=" => number(found).unwrap() <= number(value(operand)).unwrap(),
            _ => panic!("{term}"),
        }
    };
    condition.split(" OR ").any(|any| any.split(" AND ").all(term))
}

fn refusal(code: &str) -> Value {
    json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "refused"})
}

/// The connection is closed without a response.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken off")
    }
}

impl std::error::Error for Broken {}
