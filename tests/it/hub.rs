//! Registry and pusher together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream;
use lambda_websocket::Pusher;
use lambda_websocket::event::{ApiId, ConnectionId, Region, Stage};
use lambda_websocket::hub::{Hub, Move};
use lambda_websocket::push::{ConnectionInfo, Endpoint, Payload, Push, PushError, Recorder};
use lambda_websocket::registry::{
    Audience, Connection, ConnectionKey, Consistency, Departure, Group, Joined, Left, Memory, Namespace, Pages,
    Principal, ReadOptions, Registry, RegistryError, Removed,
};
use lambda_websocket::route::StatusCode;
use tokio::time::Instant;

fn namespace() -> Namespace {
    Namespace::new("a1b2c3d4e5/dev").unwrap()
}

fn key(id: &str) -> ConnectionKey {
    ConnectionKey::new(namespace(), ConnectionId::new(id).unwrap())
}

fn group(name: &str) -> Group {
    Group::new(name).unwrap()
}

fn principal(name: &str) -> Principal {
    Principal::new(name).unwrap()
}

/// A connection that was opened this long ago.
fn opened(id: &str, ago: Duration) -> Connection {
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
    let host = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com";
    Connection::new(key(id), api_id, stage, host, SystemTime::now() - ago)
}

const OLD: Duration = Duration::from_secs(600);

/// A hub that announces, over connections `<principal>-<number>`, which are in the lobby.
async fn lobby(ids: &[&str]) -> (Hub, Recorder) {
    let recorder = Recorder::new();
    let hub = Hub::new(Memory::new(), Pusher::new(recorder.clone()));
    for id in ids {
        let name = id.split('-').next().unwrap();
        hub.registry().insert(&opened(id, OLD).with_principal(principal(name))).await.unwrap();
        hub.registry().join(&key(id), &group("lobby")).await.unwrap();
    }
    let hub = hub.announcing(|change| {
        let verb = match change.what {
            Move::Joined => "+",
            Move::Left => "-",
        };
        Some(format!("{verb}{} {}", change.principal, change.group))
    });
    (hub, recorder)
}

/// Who got what, in order of their ids.
fn got(recorder: &Recorder) -> Vec<String> {
    let mut got: Vec<String> = recorder
        .pushes()
        .iter()
        .map(|pushed| format!("{}: {}", pushed.connection_id, pushed.text().trim_matches('"')))
        .collect();
    got.sort();
    got
}

async fn registered(hub: &Hub) -> BTreeSet<String> {
    let mut pages = hub.registry().connections(&namespace().everyone(), ReadOptions::default());
    let mut ids = BTreeSet::new();
    while let Some(page) = futures_util::StreamExt::next(&mut pages).await {
        ids.extend(page.unwrap().iter().map(|connection| connection.id().to_string()));
    }
    ids
}

#[tokio::test]
async fn an_audience_gets_it_except_the_sender() {
    let (hub, recorder) = lobby(&["alice-1", "alice-2", "bob-1"]).await;
    hub.registry().insert(&opened("carol-1", OLD)).await.unwrap();
    let lobby = namespace().group(&group("lobby"));
    let sent = hub.send_to(&lobby, "to the group").unwrap().except(&key("alice-1")).await;
    assert!(sent.is_success() && sent.report.is_complete, "{sent}");
    assert_eq!((sent.report.delivered, sent.pruned.len()), (2, 0));
    hub.send_to(&namespace().principal(&principal("alice")), "to alice").unwrap().await;
    hub.send_to(&namespace().everyone(), "to all").unwrap().except(&key("bob-1")).except(&key("carol-1")).await;
    assert_eq!(
        got(&recorder),
        [
            "alice-1: to alice",
            "alice-1: to all",
            "alice-2: to alice",
            "alice-2: to all",
            "alice-2: to the group",
            "bob-1: to the group"
        ]
    );
    let sent = hub.send_to(&namespace().group(&group("nobody is here")), "hello").unwrap().await;
    assert!(sent.is_success() && sent.report.ids() == 0);
    assert!(matches!(hub.send_to(&lobby, &"x".repeat(200_000)).unwrap_err(), PushError::TooLarge { .. }));
    let elsewhere = Namespace::new("a1b2c3d4e5/prod").unwrap();
    assert_eq!(hub.send_to(&elsewhere.everyone(), "hello").unwrap().await.report.ids(), 0);
}

#[tokio::test]
async fn con_6_what_is_gone_is_pruned_unless_it_may_not_be_open_yet() {
    let (hub, recorder) = lobby(&["alice-1", "bob-1"]).await;
    hub.registry().insert(&opened("new", Duration::from_secs(5))).await.unwrap();
    for id in ["bob-1", "new"] {
        recorder.hang_up(key(id).id());
    }
    let sent = hub.send_to(&namespace().everyone(), "hello").unwrap().await;
    assert_eq!((sent.report.delivered, sent.report.gone.len()), (1, 2));
    assert_eq!(sent.pruned, [key("bob-1")]);
    assert_eq!(registered(&hub).await, BTreeSet::from(["alice-1".into(), "new".into()]));
    let hub = hub.with_grace(Duration::from_secs(1));
    assert_eq!(hub.send_to(&namespace().everyone(), "hello").unwrap().await.pruned, [key("new")]);
}

#[tokio::test]
async fn who_fails_is_not_pruned() {
    let (hub, recorder) = lobby(&["alice-1"]).await;
    recorder.answer(StatusCode::FORBIDDEN);
    let sent = hub.send_to(&namespace().everyone(), "hello").unwrap().await;
    assert!(!sent.is_success());
    assert_eq!((sent.report.failed.len(), sent.pruned.len()), (1, 0));
    assert_eq!(registered(&hub).await.len(), 1);
}

#[tokio::test]
async fn who_is_pruned_is_announced_and_who_is_found_gone_by_that_too() {
    let (hub, recorder) = lobby(&["alice-1", "bob-1", "carol-1", "carol-2"]).await;
    let kitchen = group("kitchen");
    for id in ["alice-1", "bob-1", "carol-1"] {
        hub.registry().join(&key(id), &kitchen).await.unwrap();
    }
    // Only the kitchen is written to; who is gone there has left the lobby, too, where another turns out to be gone.
    for id in ["bob-1", "carol-1", "carol-2"] {
        recorder.hang_up(key(id).id());
    }
    let sent = hub.send_to(&namespace().group(&kitchen), "dinner").unwrap().await;
    assert_eq!(sent.pruned.len(), 2);
    let got: Vec<String> = got(&recorder).into_iter().collect();
    assert_eq!(
        got,
        [
            "alice-1: -bob kitchen",
            "alice-1: -bob lobby",
            "alice-1: -carol kitchen",
            "alice-1: -carol lobby",
            "alice-1: dinner"
        ]
    );
    assert_eq!(registered(&hub).await, BTreeSet::from(["alice-1".into()]));
}

#[tokio::test]
async fn a_principal_comes_and_goes_once() {
    let (hub, recorder) = lobby(&["alice-1"]).await;
    for id in ["bob-1", "bob-2", "nobody"] {
        let connection = opened(id, OLD);
        let connection = match id {
            "nobody" => connection,
            _ => connection.with_principal(principal("bob")),
        };
        hub.registry().insert(&connection).await.unwrap();
    }
    let lobby = group("lobby");
    for (id, joined) in
        [("bob-1", Joined::First), ("bob-1", Joined::Already), ("bob-2", Joined::Another), ("nobody", Joined::First)]
    {
        assert_eq!(hub.join(&key(id), &lobby).await.unwrap(), joined, "{id}");
    }
    assert_eq!(got(&recorder), ["alice-1: +bob lobby"], "who joins is not told of itself, nor who has no name");
    let mut principals = hub.principals(&namespace(), &lobby);
    let page = futures_util::StreamExt::next(&mut principals).await.unwrap().unwrap();
    assert_eq!(page, ["alice", "bob"]);
    assert_eq!(hub.leave(&key("bob-1"), &lobby).await.unwrap(), Left::Another);
    assert_eq!(got(&recorder).len(), 1);
    let removed = hub.disconnect(&key("bob-2")).await.unwrap().unwrap();
    assert_eq!(removed.groups, [Departure::new(lobby.clone(), Left::Last)]);
    assert_eq!(hub.disconnect(&key("bob-2")).await.unwrap(), None);
    hub.disconnect(&key("nobody")).await.unwrap();
    assert_eq!(got(&recorder)[..2], ["alice-1: +bob lobby", "alice-1: -bob lobby"]);
    assert_eq!(got(&recorder)[2..], ["nobody: -bob lobby"]);
    // Who leaves is not told of itself either, and an empty room hears nothing.
    assert_eq!(hub.leave(&key("alice-1"), &lobby).await.unwrap(), Left::Last);
    assert_eq!(got(&recorder).len(), 3);
}

#[tokio::test]
async fn all_connections_of_a_principal_are_closed() {
    let (hub, recorder) = lobby(&["alice-1", "alice-2", "bob-1"]).await;
    hub.registry().insert(&opened("alice-3", Duration::ZERO).with_principal(principal("alice"))).await.unwrap();
    recorder.hang_up(key("alice-2").id());
    recorder.hang_up(key("alice-3").id());
    let closed = hub.close(&namespace().principal(&principal("alice"))).await;
    assert_eq!(
        closed.closed.iter().map(|key| key.id().as_str()).collect::<BTreeSet<_>>(),
        ["alice-1", "alice-2"].into()
    );
    assert!(!closed.is_success(), "one may open yet");
    assert!(matches!(closed.failed[0].error, PushError::Gone { .. }));
    assert!(recorder.closed().contains(key("alice-1").id()));
    assert_eq!(got(&recorder), ["bob-1: -alice lobby"]);
    assert_eq!(registered(&hub).await, BTreeSet::from(["alice-3".into(), "bob-1".into()]));
}

/// A recorder at an endpoint.
#[derive(Debug)]
struct At(Endpoint, Recorder);

#[async_trait]
impl Push for At {
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        self.1.post(connection_id, payload).await
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.1.info(connection_id).await
    }

    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.1.close(connection_id).await
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn con_6_nobody_is_looked_for_at_another_api() {
    let (api_id, other) = (ApiId::new("a1b2c3d4e5").unwrap(), ApiId::new("zzzzzzzzzz").unwrap());
    let (dev, region) = (Stage::new("dev").unwrap(), Region::new("eu-central-1").unwrap());
    let (here, there) = (Recorder::new(), Recorder::new());
    let at = |api_id, recorder: &Recorder| Pusher::new(At(Endpoint::new(api_id, &region, &dev), recorder.clone()));
    let everyone = Namespace::new("chat").unwrap();
    let hub = Hub::new(Memory::new(), at(&api_id, &here)).with_lease(Duration::ZERO);
    for (id, api_id) in [("here", &api_id), ("there", &other)] {
        let key = ConnectionKey::new(everyone.clone(), ConnectionId::new(id).unwrap());
        let connection = Connection::new(key, api_id.clone(), dev.clone(), "ws.example.com", SystemTime::now() - OLD);
        hub.registry().insert(&connection).await.unwrap();
        // At the other's endpoint each seems to be gone.
        let elsewhere = if id == "here" { &there } else { &here };
        elsewhere.hang_up(connection.id());
        assert_eq!(connection.endpoint().unwrap().as_str(), "https://ws.example.com/dev");
    }
    let sent = hub.send_to(&everyone.everyone(), "hello").unwrap().await;
    assert_eq!((sent.report.delivered, sent.pruned.len()), (1, 0));
    let error = &sent.report.failed[0].error;
    assert_eq!(error.to_string(), "the connection there is one of zzzzzzzzzz/dev, for which there is no pusher");
    let swept = hub.sweep(&everyone).await;
    assert_eq!((swept.alive, swept.removed.len(), swept.failed.len()), (1, 0, 1));
    let hub = hub.with_pusher_for(other.clone(), dev.clone(), at(&other, &there));
    let sent = hub.send_to(&everyone.everyone(), "hello").unwrap().await;
    assert_eq!((sent.report.delivered, here.pushes().len(), there.pushes().len()), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn dis_1_a_sweep_finds_what_was_lost_at_its_own_pace() {
    let recorder = Recorder::new();
    let hub = Hub::new(Memory::new(), Pusher::new(recorder.clone()).without_retries())
        .with_sweep_rate(10)
        .with_lease(Duration::from_secs(60));
    for number in 0..40 {
        hub.registry().insert(&opened(&format!("c{number:02}"), OLD)).await.unwrap();
        if number % 4 == 0 {
            recorder.hang_up(key(&format!("c{number:02}")).id());
        }
    }
    hub.registry().insert(&opened("young", Duration::from_secs(40))).await.unwrap();
    let start = Instant::now();
    let swept = hub.sweep(&namespace()).await;
    assert_eq!((swept.alive, swept.removed.len(), swept.failed.len(), swept.is_complete), (30, 10, 0, true), "{swept}");
    assert!((3900..=4200).contains(&start.elapsed().as_millis()), "{:?} for 40 at 10 a second", start.elapsed());
    assert_eq!(recorder.attempts(), 40, "who was heard of within the lease is not asked about");
    assert_eq!(registered(&hub).await.len(), 31);
    hub.sweep(&namespace()).await;
    assert_eq!(recorder.attempts(), 40, "each is asked about once in a lease");
    let hub = hub.with_lease(Duration::ZERO);
    recorder.answer(StatusCode::INTERNAL_SERVER_ERROR);
    let swept = hub.sweep(&namespace()).await;
    assert_eq!((swept.alive, swept.failed.len()), (30, 1), "{swept}");
    assert_eq!(registered(&hub).await.len(), 31, "of whom nothing is known stays");
}

/// A registry whose lists break off, and whose removals fail at first.
#[derive(Debug)]
struct Broken {
    memory: Memory,
    removals_fail: AtomicUsize,
}

fn broken() -> RegistryError {
    RegistryError::Unavailable { source: "broken".into() }
}

#[async_trait]
impl Registry for Broken {
    async fn insert(&self, connection: &Connection) -> Result<bool, RegistryError> {
        self.memory.insert(connection).await
    }

    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Removed>, RegistryError> {
        match self.removals_fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(broken()),
            Err(_) => self.memory.remove(key).await,
        }
    }

    async fn find(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Connection>, RegistryError> {
        self.memory.find(key, consistency).await
    }

    async fn touch(&self, _: &ConnectionKey, _: SystemTime) -> Result<bool, RegistryError> {
        Err(broken())
    }

    async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        self.memory.join(key, group).await
    }

    async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        self.memory.leave(key, group).await
    }

    async fn leave_all(&self, key: &ConnectionKey) -> Result<Vec<Departure>, RegistryError> {
        self.memory.leave_all(key).await
    }

    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
        self.memory.groups(key).await
    }

    async fn disband(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError> {
        self.memory.disband(namespace, group).await
    }

    fn connections(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection> {
        let pages = self.memory.connections(audience, options.with_page_size(2));
        let pages = futures_util::StreamExt::take(pages, 1);
        Box::pin(futures_util::StreamExt::chain(pages, stream::iter([Err(broken())])))
    }

    fn principals(&self, namespace: &Namespace, group: &Group, options: ReadOptions) -> Pages<'_, Principal> {
        self.memory.principals(namespace, group, options)
    }

    fn unseen_since(&self, namespace: &Namespace, _: SystemTime, options: ReadOptions) -> Pages<'_, Connection> {
        self.connections(&namespace.everyone(), options)
    }
}

#[tokio::test]
async fn what_the_registry_could_not_do_is_said() {
    let registry = Arc::new(Broken { memory: Memory::new(), removals_fail: AtomicUsize::new(1) });
    let recorder = Recorder::new();
    let hub = Hub::new(Arc::clone(&registry), Pusher::new(recorder.clone()));
    for id in ["a", "b", "c"] {
        registry.insert(&opened(id, OLD)).await.unwrap();
    }
    recorder.hang_up(key("a").id());
    let sent = hub.send_to(&namespace().everyone(), "hello").unwrap().await;
    assert!(matches!(sent.unread, Some(RegistryError::Unavailable { .. })));
    assert!(!sent.is_success() && !sent.report.is_complete);
    assert_eq!((sent.report.delivered, sent.report.gone.len(), sent.pruned.len()), (1, 1, 0));
    assert!(
        sent.to_string().ends_with("0 pruned; not all were read: the registry cannot be reached, or failed"),
        "{sent}"
    );
    let sent = hub.send_to(&namespace().everyone(), "hello").unwrap().await;
    assert_eq!(sent.pruned, [key("a")], "the next who pushes to it removes it");
    let closed = hub.close(&namespace().everyone()).await;
    assert!(closed.unread.is_some() && closed.closed.len() == 2);
    let swept = hub.sweep(&namespace()).await;
    assert!(swept.unread.is_some() && !swept.is_complete, "{swept}");
}

#[cfg(feature = "local")]
mod behind_the_gateway {
    use lambda_websocket::authorizer::{Authorization, Request};
    use lambda_websocket::hub::{OnConnect, OnDisconnect};
    use lambda_websocket::local::{Fault, Gateway, When};
    use lambda_websocket::{Connect, Message, Router};
    use serde_json::json;

    use super::*;

    async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
        for _ in 0..500 {
            if is_so().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within five seconds: {what}");
    }

    fn routes(hub: &Hub, on_connect: OnConnect) -> Router {
        let hub = hub.clone();
        Router::new().route(on_connect).route(OnDisconnect::new(hub.clone())).on("join", move |event: Message| {
            let hub = hub.clone();
            async move {
                hub.join(&ConnectionKey::of(event.request_context()), &group("lobby")).await?;
                hub.send_to(&ConnectionKey::of(event.request_context()).group(&group("lobby")), "hello")?.await;
                Ok(())
            }
        })
    }

    #[tokio::test]
    async fn evt_14_the_routes_register_who_the_authorizer_let_in() {
        let builder = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
        let hub = Hub::new(Memory::new(), builder.pusher());
        let gateway = builder
            .authorizer(
                |request: Request| async move {
                    let name = request.query("Auth").unwrap_or_default().to_owned();
                    Authorization::allow(name).with_context(&json!({"org": 7, "admin": true}))
                },
                ["route.request.querystring.Auth"],
            )
            .router(routes(&hub, OnConnect::new(hub.registry().clone()).with_subprotocol("chat.v1")))
            .start()
            .await
            .unwrap();
        let mut client = gateway.connect("?Auth=alice").await.unwrap();
        client.send_json(&json!({"action": "join"})).await.unwrap();
        assert_eq!(client.next_json().await.unwrap(), "hello");
        // The gateway's own API and stage are the namespace.
        let (api_id, found) = {
            let context = gateway.connect_with("?Auth=bob", &[("Sec-WebSocket-Protocol", "chat.v1")]).await.unwrap();
            assert_eq!(context.subprotocol(), Some("chat.v1"));
            let mut found = Vec::new();
            let namespace = Namespace::new("local/dev").unwrap();
            let mut pages = hub.registry().connections(&namespace.everyone(), ReadOptions::default());
            while let Some(page) = futures_util::StreamExt::next(&mut pages).await {
                found.extend(page.unwrap());
            }
            (namespace, found)
        };
        assert_eq!(found.len(), 2, "{found:?}");
        let alice = found.iter().find(|connection| connection.principal().unwrap() == "alice").unwrap();
        assert_eq!(alice.data::<serde_json::Value>().unwrap(), Some(json!({"org": "7", "admin": "true"})));
        assert_eq!(alice.endpoint().unwrap().as_str(), gateway.endpoint().as_str());
        client.close(1000, "bye").await.unwrap();
        until("both are removed", async || {
            let mut pages = hub.registry().connections(&api_id.everyone(), ReadOptions::default());
            futures_util::StreamExt::next(&mut pages).await.is_none()
        })
        .await;
    }

    #[tokio::test]
    async fn dis_1_a_lost_disconnect_is_noticed_by_a_sweep() {
        let builder = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
        let hub = Hub::new(Memory::new(), builder.pusher())
            .with_lease(Duration::ZERO)
            .with_grace(Duration::ZERO)
            .announcing(|change| Some(json!({"left": change.principal})).filter(|_| change.what == Move::Left));
        let on_connect = OnConnect::new(hub.registry().clone())
            .with_data(|event: &Connect| Ok(event.query("room").map(str::to_owned)));
        let gateway = builder
            .authorizer(
                |request: Request| async move { Ok(Authorization::allow(request.query("Auth").unwrap_or_default())) },
                ["route.request.querystring.Auth"],
            )
            .router(routes(&hub, on_connect))
            .start()
            .await
            .unwrap();
        gateway.inject(Fault::DisconnectLost, When::Sometimes(1.0));
        let mut clients = Vec::new();
        for name in ["alice", "bob"] {
            let mut client = gateway.connect(&format!("?Auth={name}&room=lobby")).await.unwrap();
            client.send_json(&json!({"action": "join"})).await.unwrap();
            assert_eq!(client.next_json().await.unwrap(), "hello");
            clients.push(client);
        }
        let mut alice = clients.remove(0);
        assert_eq!(alice.next_json().await.unwrap(), "hello");
        drop(clients);
        let namespace = Namespace::new("local/dev").unwrap();
        // As soon as the gateway has noticed.
        until("bob is found gone", async || {
            let swept = hub.sweep(&namespace).await;
            swept.alive == 1 && swept.removed.len() == 1
        })
        .await;
        assert_eq!(alice.next_json().await.unwrap(), json!({"left": "bob"}));
    }
}

/// What a task can be spawned with.
#[test]
fn everything_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    let hub = Hub::new(Memory::new(), Pusher::new(Recorder::new()));
    let (namespace, group, key) = (namespace(), group("lobby"), key("one"));
    is_send(hub.sweep(&namespace));
    is_send(hub.join(&key, &group));
    is_send(hub.leave(&key, &group));
    is_send(hub.disconnect(&key));
    is_send(hub.close(&namespace.everyone()));
    is_send(hub.principals(&namespace, &group));
    is_send(hub.send_to(&namespace.everyone(), "hello").unwrap().into_future());
}
