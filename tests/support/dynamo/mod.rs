//! An in-process DynamoDB: as much of the API as this crate uses, with conditions, transactions, indexes, pages, and
//! capacity units by DynamoDB's rules. It speaks HTTP, so tests use the real client.
//!
//! It never deletes expired items, as DynamoDB may take days to do so.

mod expression;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::expression::{Condition, Given, Item, update};

/// One request, and the capacity units that it consumed.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub operation: String,
    pub write_units: f64,
    pub read_units: f64,
}

#[derive(Default)]
struct Table {
    /// Items by partition and sort key. In a table without a sort key the latter is empty.
    items: BTreeMap<Place, Item>,
    keys: Vec<String>,
    indexes: Vec<Index>,
}

struct Index {
    name: String,
    keys: Vec<String>,
    projected: Vec<String>,
}

#[derive(Default)]
struct State {
    tables: BTreeMap<String, Table>,
    tokens: BTreeSet<String>,
    calls: Vec<Call>,
}

/// A running table service, which ends with its runtime.
#[derive(Clone)]
pub struct Dynamo {
    pub url: String,
    state: Arc<Mutex<State>>,
    /// Lets requests through one at a time, when the test says so.
    gate: Option<Arc<Gate>>,
}

/// Decides when requests run.
struct Gate {
    permits: Semaphore,
    /// The number of requests that have run.
    done: watch::Sender<usize>,
}

/// The partition and sort key of an item.
type Place = (String, String);
/// A refusal: its error code and further members.
type Refusal = (&'static str, Value);

impl Dynamo {
    pub async fn start() -> Self {
        Self::serve(Arc::default(), None).await
    }

    /// Serves the same tables at another address, where each request waits until it is [let through](Self::pass).
    pub async fn gated(&self) -> Self {
        let gate = Gate { permits: Semaphore::new(0), done: watch::Sender::new(0) };
        Self::serve(Arc::clone(&self.state), Some(Arc::new(gate))).await
    }

    /// Lets one request through, and waits until it has run.
    pub async fn pass(&self) {
        let gate = self.gate.as_ref().unwrap();
        let mut done = gate.done.subscribe();
        let before = *done.borrow_and_update();
        gate.permits.add_permits(1);
        done.wait_for(|done| *done > before).await.unwrap();
    }

    async fn serve(state: Arc<Mutex<State>>, gate: Option<Arc<Gate>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dynamo = Self { url: format!("http://{}", listener.local_addr().unwrap()), state, gate };
        let running = dynamo.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let dynamo = running.clone();
                let service = service_fn(move |request| {
                    let dynamo = dynamo.clone();
                    async move { Ok::<_, Infallible>(dynamo.answer(request).await) }
                });
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        dynamo
    }

    /// Returns the requests since the last call, and their units.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let operation = request.headers()["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let outcome = match &self.gate {
            None => {
                // Other requests may run in between, as on a network.
                tokio::task::yield_now().await;
                self.state.lock().unwrap().carry_out(&operation, &body)
            }
            Some(gate) if operation == "BatchGetItem" => self.get_one_by_one(gate, &body).await,
            Some(gate) => self.when_let_through(gate, &operation, &body).await,
        };
        let (status, json) = match outcome {
            Ok(json) => (StatusCode::OK, json),
            Err((code, mut more)) => {
                more["__type"] = json!(format!("com.amazonaws.dynamodb.v20120810#{code}"));
                (StatusCode::BAD_REQUEST, more)
            }
        };
        let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
        response.body(Full::new(Bytes::from(json.to_string()))).unwrap()
    }
}

impl Dynamo {
    async fn when_let_through(&self, gate: &Gate, operation: &str, body: &Value) -> Result<Value, Refusal> {
        gate.permits.acquire().await.unwrap().forget();
        let outcome = self.state.lock().unwrap().carry_out(operation, body);
        gate.done.send_modify(|done| *done += 1);
        outcome
    }

    /// Reads a batch, which is no snapshot: each item is read separately, here the last one first.
    async fn get_one_by_one(&self, gate: &Gate, body: &Value) -> Result<Value, Refusal> {
        let (name, wanted) = body["RequestItems"].as_object().unwrap().iter().next().unwrap();
        let mut found = Vec::new();
        for key in wanted["Keys"].as_array().unwrap().iter().rev() {
            let mut one = json!({"RequestItems": {}});
            one["RequestItems"][name] = json!({"Keys": [key], "ConsistentRead": wanted["ConsistentRead"]});
            let got = self.when_let_through(gate, "BatchGetItem", &one).await?;
            found.extend(got["Responses"][name].as_array().unwrap().iter().cloned());
        }
        let mut responses = json!({});
        responses[name] = json!(found);
        Ok(json!({"Responses": responses, "UnprocessedKeys": {}}))
    }
}

fn given(request: &Value) -> Given<'_> {
    Given { names: &request["ExpressionAttributeNames"], values: &request["ExpressionAttributeValues"] }
}

/// Returns whether the request's condition holds for the existing item.
fn condition_holds(request: &Value, item: Option<&Item>) -> bool {
    let condition = request["ConditionExpression"].as_str();
    condition.is_none_or(|condition| Condition::new(condition).holds(&given(request), item.unwrap_or(&Item::new())))
}

fn size_of(value: &Value) -> usize {
    match value {
        Value::Object(typed) => {
            let (kind, value) = typed.iter().next().unwrap();
            match (kind.as_str(), value) {
                ("S", Value::String(text)) => text.len(),
                ("N", Value::String(digits)) => digits.len().div_ceil(2) + 1,
                ("BOOL" | "NULL", _) => 1,
                ("SS", Value::Array(all)) => all.iter().map(|text| text.as_str().unwrap().len()).sum(),
                ("M", Value::Object(members)) => 3 + size(members) + members.len(),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other}"),
    }
}

fn size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of(value)).sum()
}

fn write_units(before: Option<&Item>, after: Option<&Item>) -> f64 {
    let largest = [before, after].into_iter().flatten().map(size).max().unwrap_or_default();
    largest.div_ceil(1024).max(1) as f64
}

fn read_units(bytes: usize, is_consistent: bool) -> f64 {
    bytes.div_ceil(4096).max(1) as f64 * if is_consistent { 1.0 } else { 0.5 }
}

impl Table {
    fn key(&self, item: &Item) -> Place {
        let text =
            |name: Option<&String>| name.map(|name| item[name]["S"].as_str().unwrap().to_owned()).unwrap_or_default();
        (text(self.keys.first()), text(self.keys.get(1)))
    }

    /// Returns the write units of the indexes.
    fn index_units(&self, before: Option<&Item>, after: Option<&Item>) -> f64 {
        let units = self.indexes.iter().map(|index| {
            let seen = |item: Option<&Item>| {
                let item = item?;
                let seen: Item = item
                    .iter()
                    .filter(|(name, _)| {
                        index.keys.contains(name) || index.projected.contains(name) || self.keys.contains(name)
                    })
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                index.keys.iter().all(|key| seen.contains_key(key)).then_some(seen)
            };
            let key = |item: &Item| index.keys.iter().map(|key| item[key].clone()).collect::<Vec<_>>();
            match (seen(before), seen(after)) {
                (Some(before), Some(after)) if before == after => 0.0,
                (Some(before), Some(after)) if key(&before) != key(&after) => {
                    write_units(Some(&before), None) + write_units(None, Some(&after))
                }
                (None, None) => 0.0,
                (before, after) => write_units(before.as_ref(), after.as_ref()),
            }
        });
        units.sum()
    }

    /// Returns the item after a write, or an error if its condition does not hold.
    fn written(&self, kind: &str, request: &Value) -> Result<(Place, Option<Item>), Option<Item>> {
        let key = self.key(request[if kind == "Put" { "Item" } else { "Key" }].as_object().unwrap());
        let before = self.items.get(&key);
        if !condition_holds(request, before) {
            return Err(before.cloned());
        }
        Ok((
            key,
            match kind {
                "Put" => Some(request["Item"].as_object().unwrap().clone()),
                "Delete" | "ConditionCheck" => None,
                "Update" => {
                    let before = before.cloned().unwrap_or_else(|| request["Key"].as_object().unwrap().clone());
                    Some(update(request["UpdateExpression"].as_str().unwrap(), &given(request), &before))
                }
                other => panic!("{other}"),
            },
        ))
    }

    fn put_in_place(&mut self, key: Place, item: Option<Item>) -> Option<Item> {
        match item {
            Some(item) => self.items.insert(key, item),
            None => self.items.remove(&key),
        }
    }
}

impl State {
    fn count(&mut self, operation: &str, write_units: f64, read_units: f64) {
        self.calls.push(Call { operation: operation.to_owned(), write_units, read_units });
    }

    fn table(&mut self, request: &Value) -> Result<&mut Table, Refusal> {
        let missing = ("ResourceNotFoundException", json!({"message": "no such table"}));
        self.tables.get_mut(request["TableName"].as_str().unwrap()).ok_or(missing)
    }

    fn carry_out(&mut self, operation: &str, request: &Value) -> Result<Value, Refusal> {
        match operation {
            "CreateTable" => {
                let keys = |schema: &Value| {
                    let key = |key: &Value| key["AttributeName"].as_str().unwrap().to_owned();
                    schema["KeySchema"].as_array().unwrap().iter().map(key).collect::<Vec<_>>()
                };
                let name = request["TableName"].as_str().unwrap().to_owned();
                if self.tables.contains_key(&name) {
                    return Err(("ResourceInUseException", json!({"message": "it exists"})));
                }
                let indexes = request["GlobalSecondaryIndexes"].as_array().cloned().unwrap_or_default();
                let indexes = indexes.iter().map(|index| Index {
                    name: index["IndexName"].as_str().unwrap().to_owned(),
                    keys: keys(index),
                    projected: serde_json::from_value(index["Projection"]["NonKeyAttributes"].clone()).unwrap(),
                });
                let table = Table { items: BTreeMap::new(), keys: keys(request), indexes: indexes.collect() };
                self.tables.insert(name, table);
                Ok(json!({"TableDescription": {"TableStatus": "ACTIVE"}}))
            }
            "DescribeTable" => self.table(request).map(|_| json!({"Table": {"TableStatus": "ACTIVE"}})),
            "UpdateTimeToLive" => Ok(json!({})),
            "GetItem" => {
                let is_consistent = request["ConsistentRead"] == true;
                let table = self.table(request)?;
                let item = table.items.get(&table.key(request["Key"].as_object().unwrap())).cloned();
                self.count(operation, 0.0, read_units(item.as_ref().map_or(0, size), is_consistent));
                Ok(item.map_or(json!({}), |item| json!({"Item": item})))
            }
            "BatchGetItem" => self.get_many(operation, request),
            "PutItem" | "UpdateItem" | "DeleteItem" => self.write(operation, request),
            "TransactWriteItems" => self.transact(operation, request),
            "Query" | "Scan" => self.query(operation, request),
            other => panic!("{other} is not known here"),
        }
    }

    fn get_many(&mut self, operation: &str, request: &Value) -> Result<Value, Refusal> {
        let (mut responses, mut units) = (json!({}), 0.0);
        for (name, wanted) in request["RequestItems"].as_object().unwrap() {
            let is_consistent = wanted["ConsistentRead"] == true;
            let table = self.table(&json!({"TableName": name}))?;
            let keys = wanted["Keys"].as_array().unwrap();
            assert!((1..=100).contains(&keys.len()), "{} keys in a batch", keys.len());
            let keys: Vec<_> = keys.iter().map(|key| table.key(key.as_object().unwrap())).collect();
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "a key is there twice");
            let mut found = Vec::new();
            for key in keys {
                let item = table.items.get(&key).cloned();
                units += read_units(item.as_ref().map_or(0, size), is_consistent);
                found.extend(item);
            }
            responses[name] = json!(found);
        }
        self.count(operation, 0.0, units);
        Ok(json!({"Responses": responses, "UnprocessedKeys": {}}))
    }

    fn write(&mut self, operation: &str, request: &Value) -> Result<Value, Refusal> {
        let table = self.table(request)?;
        let written = table.written(operation.trim_end_matches("Item"), request);
        let (key, after) = match written {
            Ok(written) => written,
            Err(before) => {
                self.count(operation, write_units(before.as_ref(), None), 0.0);
                let mut said = json!({"message": "The conditional request failed"});
                if let Some(before) = before.filter(|_| request["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD") {
                    said["Item"] = json!(before);
                }
                return Err(("ConditionalCheckFailedException", said));
            }
        };
        let before = table.put_in_place(key, after.clone());
        let units = write_units(before.as_ref(), after.as_ref()) + table.index_units(before.as_ref(), after.as_ref());
        self.count(operation, units, 0.0);
        Ok(match (request["ReturnValues"].as_str(), before) {
            (Some("ALL_OLD"), Some(before)) => json!({"Attributes": before}),
            _ => json!({}),
        })
    }

    fn transact(&mut self, operation: &str, request: &Value) -> Result<Value, Refusal> {
        let token = request["ClientRequestToken"].as_str().unwrap().to_owned();
        if self.tokens.contains(&token) {
            return Ok(json!({}));
        }
        let writes = request["TransactItems"].as_array().unwrap();
        assert!((1..=100).contains(&writes.len()), "{} writes in a transaction", writes.len());
        let (mut changes, mut reasons) = (Vec::new(), Vec::new());
        let mut places = BTreeSet::new();
        for write in writes {
            let (kind, write) = write.as_object().unwrap().iter().next().unwrap();
            let table = self.table(write)?;
            let place = table.key(write[if kind == "Put" { "Item" } else { "Key" }].as_object().unwrap());
            assert!(places.insert(place.clone()), "{place:?} is in one transaction twice");
            match table.written(kind, write) {
                Ok(change) => {
                    changes.push((write["TableName"].as_str().unwrap().to_owned(), change));
                    reasons.push(json!({"Code": "None"}));
                }
                Err(_) => reasons.push(json!({"Code": "ConditionalCheckFailed", "Message": "…"})),
            }
        }
        if changes.len() < writes.len() {
            self.count(operation, 2.0 * writes.len() as f64, 0.0);
            return Err(("TransactionCanceledException", json!({"Message": "…", "CancellationReasons": reasons})));
        }
        let mut units = 0.0;
        for (table, (key, after)) in changes {
            let table = self.table(&json!({"TableName": table}))?;
            let before = table.put_in_place(key, after.clone());
            units += 2.0 * write_units(before.as_ref(), after.as_ref());
            units += table.index_units(before.as_ref(), after.as_ref());
        }
        self.tokens.insert(token);
        self.count(operation, units, 0.0);
        Ok(json!({}))
    }

    fn query(&mut self, operation: &str, request: &Value) -> Result<Value, Refusal> {
        let is_consistent = request["ConsistentRead"] == true;
        let limit = request["Limit"].as_u64().map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
        let table = self.table(request)?;
        let index = request["IndexName"].as_str();
        assert!(index.is_none() || !is_consistent, "an index is not read consistently");
        let sort = match index {
            None => table.keys.clone(),
            Some(name) => {
                let index = table.indexes.iter().find(|index| index.name == name);
                index.ok_or(("ValidationException", json!({"message": "no such index"})))?.keys.clone()
            }
        };
        let order = |item: &Item| {
            let text = |name: &String| item[name]["S"].as_str().unwrap().to_owned();
            (sort.iter().map(text).collect::<Vec<_>>(), table.key(item))
        };
        let shown = |item: &Item, index: Option<&str>| match index {
            None => item.clone(),
            Some(name) => {
                let index = table.indexes.iter().find(|index| index.name == name).unwrap();
                let is_shown = |name: &&String| {
                    index.keys.contains(name) || index.projected.contains(name) || table.keys.contains(name)
                };
                item.keys().filter(is_shown).map(|name| (name.clone(), item[name].clone())).collect()
            }
        };
        let wanted = request["KeyConditionExpression"].as_str().map(Condition::new);
        // Every query of this crate names its partition like this.
        let partition = wanted.as_ref().map(|_| &request["ExpressionAttributeValues"][":key"]);
        let mut items: Vec<&Item> = table
            .items
            .values()
            .filter(|item| partition.is_none_or(|partition| item.get(&sort[0]) == Some(partition)))
            .filter(|item| sort.iter().all(|key| item.contains_key(key)))
            .filter(|item| wanted.as_ref().is_none_or(|wanted| wanted.holds(&given(request), item)))
            .collect();
        items.sort_by_cached_key(|item| order(item));
        if let Some(start) = request["ExclusiveStartKey"].as_object() {
            let start = order(start);
            items.retain(|item| order(item) > start);
        }
        let filter = request["FilterExpression"].as_str().map(Condition::new);
        let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
        for (number, item) in items.iter().enumerate() {
            if number == limit || bytes > 1024 * 1024 {
                let keys = table.keys.iter().chain(&sort);
                let previous = items[number - 1];
                last = Some(keys.map(|key| (key.clone(), previous[key].clone())).collect::<Item>());
                break;
            }
            bytes += size(item);
            if filter.as_ref().is_none_or(|filter| filter.holds(&given(request), item)) {
                page.push(shown(item, request["IndexName"].as_str()));
            }
        }
        let mut answer = json!({"Count": page.len(), "ScannedCount": page.len()});
        if request["Select"] != "COUNT" {
            answer["Items"] = json!(page);
        }
        if let Some(last) = last {
            answer["LastEvaluatedKey"] = json!(last);
        }
        self.count(operation, 0.0, read_units(bytes, is_consistent));
        Ok(answer)
    }
}
