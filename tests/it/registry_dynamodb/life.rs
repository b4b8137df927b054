//! Random operations while time passes: the table and the memory registry agree after every step.

use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use lambda_websocket::event::ConnectionId;
use lambda_websocket::registry::conformance::Clock;
use lambda_websocket::registry::{
    Connection, ConnectionData, ConnectionKey, DynamoDb, Group, InMemory, Namespace, Principal, ReadOptions, Registry,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{connection, group};
use crate::dynamo::Dynamo;
use crate::emulators::dynamodb_local;

fn key(chat: &Namespace, number: usize) -> ConnectionKey {
    ConnectionKey::new(chat.clone(), ConnectionId::new(format!("c{number}")).unwrap())
}

/// Returns a connection of one of three principals, or of none, that expires within half an hour.
fn new(chat: &Namespace, number: usize, now: SystemTime, minutes: u64) -> Connection {
    let any = connection("any", "any");
    let (api_id, stage) = (any.api_id().clone(), any.stage().clone());
    let new = Connection::new(key(chat, number), api_id, stage, "ws.example.com", now)
        .with_expiry(now + Duration::from_secs(60 * minutes));
    match number {
        7 => new,
        _ => new.with_principal(Principal::new(format!("p{}", number % 3)).unwrap()),
    }
}

/// Runs one random call, and returns its result.
async fn step(registry: &dyn Registry, chat: &Namespace, random: &mut SmallRng, now: SystemTime) -> String {
    let (number, room) = (random.random_range(0..8), group(random.random_range(0..3)));
    // A key may have the principal, a wrong one, or none.
    let mut name = key(chat, number);
    match random.random_range(0..4) {
        0 => {}
        1 => name = name.with_principal(Principal::new("wrong").unwrap()),
        _ => name = new(chat, number, now, 1).key().clone(),
    }
    let rooms: Vec<Group> = (0..random.random_range(0..3)).map(group).collect();
    let minutes = random.random_range(1..30);
    let answer = match random.random_range(0..16) {
        0..4 => {
            let inserted = registry.insert_into(&new(chat, number, now, minutes), &rooms).await.unwrap();
            format!("insert into {rooms:?}: {}", without_versions(&format!("{inserted:?}")))
        }
        4..8 => format!("join {room}: {:?}", registry.join(&name, &room).await.unwrap()),
        8 => {
            let arrivals = registry.join_all(&name, &rooms).await.unwrap();
            format!("join {rooms:?}: {}", without_versions(&format!("{:?}", arrivals.map(|arrivals| arrivals.groups))))
        }
        9 => format!("leave {room}: {:?}", registry.leave(&name, &room).await.unwrap()),
        10 => {
            let left = registry.leave_all(&name).await.unwrap();
            format!("leave all: {}", without_versions(&format!("{:?}", left.map(|left| left.groups))))
        }
        11 | 12 => {
            let removed = registry.remove(&name).await.unwrap();
            format!("remove: {}", without_versions(&format!("{:?}", removed.map(|removed| removed.groups))))
        }
        13 => {
            let data = ConnectionData::new(&minutes).unwrap();
            let changed = registry.set_data(&name, Some(&data).filter(|_| minutes % 3 > 0)).await.unwrap();
            format!("set data: {:?}", changed.map(|changed| changed.data::<u64>().unwrap()))
        }
        14 if random.random_bool(0.3) => format!("disband {room}: {}", registry.disband(chat, &room).await.unwrap()),
        _ => format!("groups: {:?}", registry.groups(&name).await.unwrap()),
    };
    format!("c{number} {answer}")
}

/// Versions differ between registries, so they are left out.
fn without_versions(text: &str) -> String {
    let mut parts = text.split("version: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

/// Returns everything that a registry lists.
async fn there(registry: &dyn Registry, chat: &Namespace) -> String {
    let options = ReadOptions::default().consistent();
    let mut there: Vec<String> = Vec::new();
    let mut audiences = vec![("everyone".to_owned(), chat.everyone())];
    for number in 0..3 {
        audiences.push((group(number).to_string(), chat.group(&group(number))));
        let principal = Principal::new(format!("p{number}")).unwrap();
        audiences.push((principal.to_string(), chat.principal(&principal)));
        let principals = registry.principals(chat, &group(number), options);
        let principals: Vec<_> = principals.flat_map(|page| stream::iter(page.unwrap())).collect().await;
        there.extend(principals.iter().map(|principal| format!("{} {principal}", group(number))));
    }
    for (name, audience) in audiences {
        let members = registry.connections(&audience, options);
        let members: Vec<_> = members.flat_map(|page| stream::iter(page.unwrap())).collect().await;
        there.extend(
            members
                .iter()
                .map(|member| format!("{name}: {} {:?} {:?}", member.id(), member.principal(), member.data_json())),
        );
    }
    there.sort();
    there.join(", ")
}

async fn agree(url: &str, seeds: u64) {
    let clock = Clock::new();
    let now = || {
        let clock = clock.clone();
        move || clock.now()
    };
    let table = DynamoDb::with_endpoint_url("lives", url).await.with_clock(now());
    table.create_table().await.unwrap();
    for seed in 0..seeds {
        let memory = InMemory::with_clock(now());
        let chat = Namespace::new(format!("chat.{seed}")).unwrap();
        let mut random = SmallRng::seed_from_u64(seed);
        for number in 0..120 {
            // Connections expire without notice, as if their `$disconnect` was lost; tombstones do, too.
            if random.random_bool(0.2) {
                clock.advance(Duration::from_secs(random.random_range(1..600)));
            }
            let mut same = random.clone();
            let expected = step(&memory, &chat, &mut random, clock.now()).await;
            let found = step(&table, &chat, &mut same, clock.now()).await;
            assert_eq!(found, expected, "seed {seed}, step {number}");
            if number % 5 == 0 {
                let (expected, found) = (there(&memory, &chat).await, there(&table, &chat).await);
                assert_eq!(found, expected, "seed {seed}, after step {number}");
            }
        }
    }
}

#[tokio::test]
async fn table_and_memory_agree_while_time_passes() {
    agree(&Dynamo::start().await.url, 20).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/interop/emulators"]
async fn table_and_memory_agree_while_time_passes_on_dynamodb_local() {
    agree(&dynamodb_local().await.url, 30).await;
}
