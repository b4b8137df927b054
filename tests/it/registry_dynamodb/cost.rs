//! The cost of the registry: sequential requests, and capacity units by DynamoDB's rules. The table in the documentation of
//! `registry::DynamoDb` has the same numbers.

use futures_util::StreamExt as _;
use lambda_websocket::registry::{
    ConnectionData, ConnectionKey, Consistency, DynamoDb, Joined, Left, ReadOptions, Registry, Slice,
};

use super::{connection, group, namespace};
use crate::dynamo::{Call, Dynamo};

/// Sums up requests, write units, and read units.
fn total(calls: &[Call]) -> (usize, f64, f64) {
    calls.iter().fold((0, 0.0, 0.0), |sum, call| (sum.0 + 1, sum.1 + call.write_units, sum.2 + call.read_units))
}

/// Returns dollars per million, at the list price of on-demand capacity in us-east-1.
fn dollars((_, writes, reads): (usize, f64, f64)) -> f64 {
    0.625 * writes + 0.125 * reads
}

async fn table() -> (Dynamo, DynamoDb) {
    let dynamo = Dynamo::start().await;
    let table = DynamoDb::with_endpoint_url("costs", &dynamo.url).await;
    table.create_table().await.unwrap();
    (dynamo, table)
}

#[tokio::test]
async fn calls_cost_the_documented_capacity_units() {
    let (dynamo, table) = table().await;
    let (one, two) = (connection("one", "alice"), connection("two", "alice"));
    let (one_key, two_key) = (one.key().clone(), two.key().clone());
    let room = group(0);
    // After each call: requests, write units, read units.
    let mut found = Vec::new();
    macro_rules! costs {
        ($($name:literal, $call:expr => $expected:expr;)*) => {$(
            dynamo.take_calls();
            let _ = $call.await.unwrap();
            let (calls, expected) = (dynamo.take_calls(), $expected);
            let sum = total(&calls);
            let names: Vec<&str> = calls.iter().map(|call| call.operation.as_str()).collect();
            println!("{:32} {} requests, {} write units, {} read units: {}", $name, sum.0, sum.1, sum.2, names.join(", "));
            found.push(($name, sum, expected));
        )*};
    }
    costs! {
        "insert", table.insert(&one) => (1, 2.0, 0.0);
        "find", table.find(&one_key, Consistency::Eventual) => (1, 0.0, 0.5);
        "find consistently", table.find(&one_key, Consistency::Strong) => (1, 0.0, 1.0);
        "join", table.join(&one_key, &room) => (2, 4.0, 2.0);
        "insert a second tab", table.insert(&two) => (1, 2.0, 0.0);
        "join from a second tab", table.join(&two_key, &room) => (2, 4.0, 2.0);
        "join again", table.join(&two_key, &room) => (1, 0.0, 2.0);
        "set data in a group", table.set_data(&two_key, Some(&ConnectionData::new("away").unwrap())) => (2, 5.0, 1.0);
        "leave from a second tab", table.leave(&two_key, &room) => (2, 4.0, 2.0);
        "leave", table.leave(&one_key, &room) => (2, 4.0, 2.0);
        "join three groups", table.join_all(&one_key, &[group(1), group(2), group(3)]) => (2, 8.0, 4.0);
        "join three from a second tab", table.join_all(&two_key, &[group(1), group(2), group(3)]) => (2, 8.0, 4.0);
        // Concurrently, one request closes the connection and one queries its siblings; then one runs for each group.
        "remove a second tab", table.remove(&two_key) => (5, 5.0, 0.5);
        "remove", table.remove(&one_key) => (5, 5.0, 0.5);
        "remove again", table.remove(&one_key) => (2, 1.0, 0.5);
        "insert into two groups", table.insert_into(&connection("new", "bob"), &[group(1), group(2)]) => (3, 7.0, 3.0);
    }
    for (name, found, expected) in found {
        assert_eq!(found, expected, "{name}");
    }
    let none = ConnectionKey::new(namespace(), connection("none", "x").id().clone());
    assert_eq!(table.leave(&none, &room).await.unwrap(), Left::NotMember);
}

#[tokio::test]
async fn million_sessions_cost_less_than_six_dollars() {
    let (dynamo, table) = table().await;
    dynamo.take_calls();
    let one = connection("L0SM9cOFvHcCIhw=", "alice");
    assert!(table.insert(&one).await.unwrap().is_registered());
    assert_eq!(table.join(one.key(), &group(0)).await.unwrap(), Joined::First);
    assert_eq!(table.remove(one.key()).await.unwrap().unwrap().groups[0].left, Left::Last);
    let session = total(&dynamo.take_calls());
    println!("a session: {session:?}, ${:.2} a million", dollars(session));
    assert_eq!((session.1, session.2), (9.0, 2.5));
    assert!(dollars(session) <= 6.0);
}

#[tokio::test]
async fn reading_a_group_and_sweeping_cost_only_reads() {
    let (dynamo, table) = table().await;
    for number in 0..1000 {
        let id = format!("L0SM9cO{number:08}=");
        let connection = connection(&id, &format!("user-{number}"));
        assert!(table.insert_into(&connection, &[group(0)]).await.unwrap().is_registered());
    }
    dynamo.take_calls();
    assert_eq!(table.count(&namespace().group(&group(0)), ReadOptions::default()).await.unwrap(), 1000);
    let list = total(&dynamo.take_calls());
    println!("a list of 1000: {list:?}");
    assert!(list.1 == 0.0 && list.2 <= 32.0, "{list:?}");
    // A sweep reads every member once in a period, one slice at a time.
    let mut members = 0;
    for index in 0..64 {
        let mut pages = table.slice(&namespace(), Slice::new(index, 64), ReadOptions::default());
        while let Some(page) = pages.next().await {
            members += page.unwrap().len();
        }
    }
    let sweep = total(&dynamo.take_calls());
    // Six periods per hour, for a million connections: a thousand times as many.
    let hour = dollars(sweep) * 6.0 * 1000.0 / 1e6;
    println!("a sweep of 1000: {sweep:?}, ${hour:.2} for a million connection-hours");
    assert_eq!((members, sweep.1), (1000, 0.0));
    assert!(hour <= 1.0, "{hour}");
}
