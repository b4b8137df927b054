//! The hub: registry and pusher together.

mod joining;
mod reports;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream;
use lambda_websocket::Pusher;
use lambda_websocket::event::{ApiId, ConnectionId, Region, Stage};
use lambda_websocket::hub::{Hub, Presence, PresenceEvent};
use lambda_websocket::push::{ConnectionInfo, Endpoint, Payload, Push, PushError, Recorder};
use lambda_websocket::registry::{
    Arrivals, Audience, Connection, ConnectionData, ConnectionKey, Consistency, Departures, Group, InMemory, Inserted,
    Joined, Left, Namespace, Pages, Principal, ReadOptions, Registry, RegistryError,
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

/// Returns a connection that was opened this long ago.
fn opened(id: &str, ago: Duration) -> Connection {
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
    let host = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com";
    Connection::new(key(id), api_id, stage, host, SystemTime::now() - ago)
}

const OLD: Duration = Duration::from_secs(600);

/// Returns a hub that announces presence, with connections `<principal>-<number>` in the group `lobby`.
async fn lobby(ids: &[&str]) -> (Hub, Recorder) {
    let recorder = Recorder::new();
    let hub = Hub::builder(InMemory::new(), Pusher::new(recorder.clone()))
        .announcing(|events| Some(message(events)))
        .allowing_all_joins()
        .build();
    for id in ids {
        let name = id.split('-').next().unwrap();
        insert(&hub, &opened(id, OLD).with_principal(principal(name))).await;
        let _ = hub.registry().join(&key(id), &group("lobby")).await.unwrap();
    }
    (hub, recorder)
}

async fn insert(hub: &Hub, connection: &Connection) {
    assert_eq!(hub.registry().insert(connection).await.unwrap(), Inserted::New { groups: Vec::new() });
}

/// Formats presence events, such as `+ann -bob lobby`.
fn message(events: &[PresenceEvent]) -> String {
    let mut words: Vec<String> = events
        .iter()
        .map(|event| format!("{}{}", if event.kind == Presence::Joined { "+" } else { "-" }, event.principal))
        .collect();
    words.sort();
    format!("{} {}", words.join(" "), events[0].group)
}

/// Returns the messages that each connection received, in order of their ids.
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
async fn audience_receives_message_except_the_sender() {
    let (hub, recorder) = lobby(&["alice-1", "alice-2", "bob-1"]).await;
    insert(&hub, &opened("carol-1", OLD)).await;
    let lobby = namespace().group(&group("lobby"));
    let sent = hub.send_to(&lobby, "to the group").except(&key("alice-1")).await.unwrap();
    assert!(sent.is_success() && sent.report.is_complete, "{sent}");
    assert_eq!((sent.report.delivered, sent.pruned.len()), (2, 0));
    assert!(hub.send_to(&namespace().principal(&principal("alice")), "to alice").await.unwrap().is_success());
    let sent =
        hub.send_to(&namespace().everyone(), "to all").except(&key("bob-1")).except(&key("carol-1")).await.unwrap();
    assert_eq!(sent.report.delivered, 2);
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
    let sent = hub.send_to(&namespace().group(&group("nobody is here")), "hello").await.unwrap();
    assert!(sent.is_success() && sent.report.ids() == 0);
    assert!(matches!(hub.send_to(&lobby, &"x".repeat(200_000)).await.unwrap_err(), PushError::TooLarge { .. }));
    let elsewhere = Namespace::new("a1b2c3d4e5/prod").unwrap();
    assert_eq!(hub.send_to(&elsewhere.everyone(), "hello").await.unwrap().report.ids(), 0);
}

#[tokio::test]
async fn con_6_stale_connection_is_pruned_unless_it_may_be_opening() {
    let (hub, recorder) = lobby(&["alice-1", "bob-1"]).await;
    insert(&hub, &opened("new", Duration::from_secs(5))).await;
    for id in ["bob-1", "new"] {
        recorder.hang_up(key(id).id());
    }
    let sent = hub.send_to(&namespace().everyone(), "hello").await.unwrap();
    assert_eq!((sent.report.delivered, sent.report.gone.len()), (1, 2));
    assert_eq!(sent.pruned, [key("bob-1")]);
    assert_eq!(registered(&hub).await, BTreeSet::from(["alice-1".into(), "new".into()]));
    let hub =
        Hub::builder(Arc::clone(hub.registry()), Pusher::new(recorder)).with_grace(Duration::from_secs(1)).build();
    assert_eq!(hub.send_to(&namespace().everyone(), "hello").await.unwrap().pruned, [key("new")]);
}

#[tokio::test]
async fn failed_push_does_not_prune() {
    let (hub, recorder) = lobby(&["alice-1"]).await;
    recorder.answer(StatusCode::FORBIDDEN);
    let sent = hub.send_to(&namespace().everyone(), "hello").await.unwrap();
    assert!(!sent.is_success());
    assert_eq!((sent.report.failed.len(), sent.pruned.len()), (1, 0));
    assert_eq!(registered(&hub).await.len(), 1);
}

#[tokio::test]
async fn pruned_principal_is_announced_once_per_group_within_budget() {
    let (hub, recorder) = lobby(&["alice-1", "bob-1", "carol-1", "carol-2"]).await;
    let kitchen = group("kitchen");
    for id in ["alice-1", "bob-1", "carol-1"] {
        assert_eq!(hub.registry().join(&key(id), &kitchen).await.unwrap(), Joined::First);
    }
    for id in ["bob-1", "carol-1"] {
        recorder.hang_up(key(id).id());
    }
    let sent = hub.send_to(&namespace().group(&kitchen), "dinner").await.unwrap();
    assert_eq!(sent.pruned.len(), 2);
    // Carol has another connection in the lobby. The announcement there fits the budget, and one message covers all events.
    assert_eq!(
        got(&recorder),
        ["alice-1: -bob -carol kitchen", "alice-1: -bob lobby", "alice-1: dinner", "carol-2: -bob lobby"]
    );
    assert_eq!(recorder.attempts(), 3 + 3, "twice the recipients");
    assert_eq!(registered(&hub).await, BTreeSet::from(["alice-1".into(), "carol-2".into()]));
}

#[tokio::test]
async fn announcements_over_budget_wait_for_the_next_group_message() {
    let mut ids = vec!["alice-1".to_owned(), "bob-1".to_owned()];
    ids.extend((0..20).map(|number| format!("user{number}-1")));
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (hub, recorder) = lobby(&ids).await;
    let kitchen = group("kitchen");
    for id in ["alice-1", "bob-1"] {
        assert_eq!(hub.registry().join(&key(id), &kitchen).await.unwrap(), Joined::First);
    }
    recorder.hang_up(key("bob-1").id());
    assert_eq!(hub.send_to(&namespace().group(&kitchen), "dinner").await.unwrap().pruned.len(), 1);
    assert_eq!(got(&recorder), ["alice-1: -bob kitchen", "alice-1: dinner"], "the lobby has 21 connections");
    let lobby = namespace().group(&group("lobby"));
    assert_eq!(hub.send_to(&lobby, "hello").await.unwrap().report.delivered, 21);
    assert_eq!(got(&recorder).iter().filter(|got| got.ends_with("-bob lobby")).count(), 21);
    // Pending events can also be announced without a message.
    assert_eq!(hub.registry().join(&key("user0-1"), &kitchen).await.unwrap(), Joined::First);
    recorder.hang_up(key("user0-1").id());
    assert_eq!(hub.send_to(&namespace().group(&kitchen), "dinner").await.unwrap().pruned.len(), 1);
    hub.announce(Vec::new()).await;
    assert_eq!(got(&recorder).iter().filter(|got| got.ends_with("-user0 lobby")).count(), 20);
}

/// A recorder that responds after this delay.
#[derive(Debug)]
struct Delayed(Recorder, Duration);

#[async_trait]
impl Push for Delayed {
    async fn post(&self, id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        tokio::time::sleep(self.1).await;
        self.0.post(id, payload).await
    }

    async fn info(&self, id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.0.info(id).await
    }

    async fn close(&self, id: &ConnectionId) -> Result<(), PushError> {
        self.0.close(id).await
    }
}

/// However many members are stale, a send costs at most twice its recipients, and every departure is announced.
#[tokio::test(start_paused = true)]
async fn stale_members_do_not_multiply_pushes() {
    let recorder = Recorder::new();
    let told = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let hub = Hub::builder(InMemory::new(), Pusher::new(Delayed(recorder.clone(), Duration::from_millis(15))))
        .announcing({
            let told = Arc::clone(&told);
            move |events: &[PresenceEvent]| {
                told.lock().unwrap().extend(events.iter().map(|event| event.principal.to_string()));
                Some(message(events))
            }
        })
        .build();
    let room = group("room");
    for number in 0..2000 {
        let connection = opened(&format!("c{number}"), OLD).with_principal(principal(&format!("p{number}")));
        insert(&hub, &connection).await;
        assert_eq!(hub.registry().join(connection.key(), &room).await.unwrap(), Joined::First);
        if number % 20 == 0 {
            recorder.hang_up(connection.id());
        }
    }
    let start = Instant::now();
    let sent = hub.send_to(&namespace().group(&room), "hello").await.unwrap();
    println!("{} pushes in {:?} of the clock: {sent}", recorder.attempts(), start.elapsed());
    assert_eq!((sent.report.delivered, sent.pruned.len()), (1900, 100));
    assert!(recorder.attempts() <= 4000, "{} pushes", recorder.attempts());
    assert_eq!(told.lock().unwrap().len(), 100, "all departures are told");
}

#[tokio::test]
async fn presence_events_can_be_queued_and_announced_elsewhere() {
    let (hub, recorder) = lobby(&["alice-1", "bob-1"]).await;
    let queue = Arc::new(std::sync::Mutex::new(Vec::new()));
    let here = Hub::builder(Arc::clone(hub.registry()), Pusher::new(recorder.clone()))
        .announcing_through({
            let queue = Arc::clone(&queue);
            move |events| {
                let queue = Arc::clone(&queue);
                async move {
                    queue.lock().unwrap().push(serde_json::to_string(&events)?);
                    Ok(())
                }
            }
        })
        .build();
    here.disconnect(&key("bob-1")).await.unwrap();
    assert_eq!(got(&recorder), [] as [&str; 0]);
    let queued = std::mem::take(&mut *queue.lock().unwrap());
    let events: Vec<PresenceEvent> = serde_json::from_str(&queued[0]).unwrap();
    assert_eq!((events.len(), events[0].kind), (1, Presence::Left));
    hub.announce(events).await;
    assert_eq!(got(&recorder), ["alice-1: -bob lobby"]);
}

/// A leave message followed by closing the tab: the hub handles both concurrently.
#[tokio::test]
async fn leave_followed_by_close_is_announced() {
    #[derive(Debug)]
    struct ClosesMeanwhile(InMemory);

    #[async_trait]
    impl Registry for ClosesMeanwhile {
        async fn insert_into(&self, connection: &Connection, groups: &[Group]) -> Result<Inserted, RegistryError> {
            self.0.insert_into(connection, groups).await
        }
        async fn remove(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
            self.0.remove(key).await
        }
        async fn find(&self, key: &ConnectionKey, how: Consistency) -> Result<Option<Connection>, RegistryError> {
            self.0.find(key, how).await
        }
        async fn join_all(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Arrivals>, RegistryError> {
            self.0.join_all(key, groups).await
        }
        async fn leave_groups(
            &self,
            key: &ConnectionKey,
            groups: &[Group],
        ) -> Result<Option<Departures>, RegistryError> {
            let left = self.0.leave_groups(key, groups).await;
            self.0.remove(key).await?;
            left
        }
        async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
            self.0.groups(key).await
        }
        async fn set_data(
            &self,
            key: &ConnectionKey,
            data: Option<&ConnectionData>,
        ) -> Result<Option<Connection>, RegistryError> {
            self.0.set_data(key, data).await
        }
        async fn disband(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError> {
            self.0.disband(namespace, group).await
        }
        fn connections(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection> {
            self.0.connections(audience, options)
        }
        fn principals(&self, namespace: &Namespace, group: &Group, options: ReadOptions) -> Pages<'_, Principal> {
            self.0.principals(namespace, group, options)
        }
    }

    let recorder = Recorder::new();
    let hub = Hub::builder(ClosesMeanwhile(InMemory::new()), Pusher::new(recorder.clone()))
        .announcing(|events| Some(message(events)))
        .build();
    for name in ["alice", "bob"] {
        let connection = opened(name, OLD).with_principal(principal(name));
        assert!(hub.connect(&connection, &[group("lobby")]).await.unwrap().is_registered());
    }
    assert_eq!(hub.leave(&key("bob"), &group("lobby")).await.unwrap(), Left::Last);
    assert_eq!(got(&recorder), ["alice: +bob lobby", "alice: -bob lobby"]);
}

#[tokio::test]
async fn principal_joins_and_leaves_once() {
    let (hub, recorder) = lobby(&["alice-1"]).await;
    for id in ["bob-1", "bob-2", "nobody"] {
        let connection = opened(id, OLD);
        let connection = match id {
            "nobody" => connection,
            _ => connection.with_principal(principal("bob")),
        };
        insert(&hub, &connection).await;
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
    assert_eq!((&removed.groups[0].group, removed.groups[0].left), (&lobby, Left::Last));
    assert_eq!(hub.disconnect(&key("bob-2")).await.unwrap(), None);
    hub.disconnect(&key("nobody")).await.unwrap();
    assert_eq!(got(&recorder), ["alice-1: +bob lobby", "alice-1: -bob lobby", "nobody: -bob lobby"]);
    // A principal is not notified of its own leave either, and an empty group gets no messages.
    assert_eq!(hub.leave(&key("alice-1"), &lobby).await.unwrap(), Left::Last);
    assert_eq!(got(&recorder).len(), 3);
}

#[tokio::test]
async fn all_connections_of_a_principal_are_closed() {
    let (hub, recorder) = lobby(&["alice-1", "alice-2", "bob-1"]).await;
    insert(&hub, &opened("alice-3", Duration::ZERO).with_principal(principal("alice"))).await;
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

/// A recorder with an endpoint.
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
async fn con_6_connections_of_another_api_need_their_own_pusher() {
    let (api_id, other) = (ApiId::new("a1b2c3d4e5").unwrap(), ApiId::new("zzzzzzzzzz").unwrap());
    let (dev, region) = (Stage::new("dev").unwrap(), Region::new("eu-central-1").unwrap());
    let (here, there) = (Recorder::new(), Recorder::new());
    let at = |api_id, recorder: &Recorder| Pusher::new(At(Endpoint::new(api_id, &region, &dev), recorder.clone()));
    let everyone = Namespace::new("chat").unwrap();
    let hub = Hub::builder(InMemory::new(), at(&api_id, &here)).with_sweep_period(Duration::ZERO).build();
    for (id, api_id) in [("here", &api_id), ("there", &other)] {
        let key = ConnectionKey::new(everyone.clone(), ConnectionId::new(id).unwrap());
        let connection = Connection::new(key, api_id.clone(), dev.clone(), "ws.example.com", SystemTime::now() - OLD);
        insert(&hub, &connection).await;
        // At the other API's endpoint each connection appears to be stale.
        let elsewhere = if id == "here" { &there } else { &here };
        elsewhere.hang_up(connection.id());
        assert_eq!(connection.endpoint().unwrap().as_str(), "https://ws.example.com/dev");
    }
    let sent = hub.send_to(&everyone.everyone(), "hello").await.unwrap();
    assert_eq!((sent.report.delivered, sent.pruned.len()), (1, 0));
    let error = &sent.report.failed[0].error;
    assert_eq!(error.to_string(), "no pusher for zzzzzzzzzz/dev, the API and stage of the connection there");
    let swept = hub.sweep(&everyone).await;
    assert_eq!((swept.alive, swept.removed.len(), swept.failed.len()), (1, 0, 1));
    let hub = Hub::builder(Arc::clone(hub.registry()), at(&api_id, &here))
        .with_pusher_for(other.clone(), dev.clone(), at(&other, &there))
        .build();
    let sent = hub.send_to(&everyone.everyone(), "hello").await.unwrap();
    assert_eq!((sent.report.delivered, here.pushes().len(), there.pushes().len()), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn dis_1_sweep_removes_stale_connections_at_its_rate() {
    let recorder = Recorder::new();
    let hub = Hub::builder(InMemory::new(), Pusher::new(recorder.clone()).without_retries())
        .with_sweep_rate(10)
        .with_sweep_period(Duration::ZERO)
        .build();
    for number in 0..40 {
        insert(&hub, &opened(&format!("c{number:02}"), OLD)).await;
        if number % 4 == 0 {
            recorder.hang_up(key(&format!("c{number:02}")).id());
        }
    }
    let start = Instant::now();
    let swept = hub.sweep(&namespace()).await;
    assert_eq!((swept.alive, swept.removed.len(), swept.failed.len(), swept.is_complete), (30, 10, 0, true), "{swept}");
    assert!((3800..=4200).contains(&start.elapsed().as_millis()), "{:?} for 40 at 10 a second", start.elapsed());
    assert_eq!((recorder.attempts(), registered(&hub).await.len()), (40, 30));
    recorder.answer(StatusCode::INTERNAL_SERVER_ERROR);
    let swept = hub.sweep(&namespace()).await;
    assert_eq!((swept.alive, swept.failed.len()), (29, 1), "{swept}");
    assert_eq!(registered(&hub).await.len(), 30, "a connection whose state is unknown stays");
}

/// CON-6: pushes to a connection whose `$connect` has not returned get 410, too.
#[tokio::test(start_paused = true)]
async fn con_6_sweep_keeps_connections_that_may_be_opening() {
    let recorder = Recorder::new();
    let hub = Hub::builder(InMemory::new(), Pusher::new(recorder.clone())).with_sweep_period(Duration::ZERO).build();
    insert(&hub, &opened("young", Duration::from_secs(20))).await;
    recorder.hang_up(key("young").id());
    assert_eq!(hub.sweep(&namespace()).await.removed, []);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(hub.sweep(&namespace()).await.removed, [key("young")]);
}

/// A transport with either all connections open or none, which counts its calls.
#[derive(Debug, Clone, Default)]
struct Counting {
    asked: Arc<std::sync::Mutex<std::collections::HashMap<ConnectionId, Vec<Duration>>>>,
    since: Option<Instant>,
}

#[async_trait]
impl Push for Counting {
    async fn post(&self, _: &ConnectionId, _: &Payload) -> Result<(), PushError> {
        Ok(())
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        let at = self.since.map(|since| since.elapsed()).unwrap_or_default();
        self.asked.lock().unwrap().entry(connection_id.clone()).or_default().push(at);
        Ok(ConnectionInfo::new(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH))
    }

    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        Ok(())
    }
}

async fn sweeps(connections: usize, rate: u32, period: Duration, sweeps: u32, is_frozen: bool) -> Counting {
    let counting = Counting { since: Some(Instant::now()), ..Counting::default() };
    let memory = InMemory::new();
    let hub = || {
        Hub::builder(memory.clone(), Pusher::new(counting.clone()))
            .with_sweep_rate(rate)
            .with_sweep_period(period)
            .build()
    };
    for number in 0..connections {
        let connection = opened(&format!("c{number}"), OLD).with_expiry(SystemTime::now() + 100 * OLD);
        assert!(memory.insert(&connection).await.unwrap().is_registered());
    }
    let (mut warm, start) = (hub(), Instant::now());
    for minute in 0..sweeps {
        tokio::time::sleep_until(start + minute * Duration::from_secs(60)).await;
        if is_frozen {
            // Each sweep is a cold start without any state.
            warm = hub();
        }
        let report = warm.sweep(&namespace()).await;
        assert!(report.removed.is_empty() && report.unread.is_none(), "{report}");
    }
    counting
}

/// Checks that sweeps query every connection within a period plus an interval, whatever state the sweeper keeps.
async fn everybody_is_asked_about(connections: usize, rate: u32, period: Duration, is_frozen: bool) {
    let rounds = 3;
    let minutes = u32::try_from(rounds * period.as_secs() / 60).unwrap();
    let counting = sweeps(connections, rate, period, minutes + 1, is_frozen).await;
    let asked = counting.asked.lock().unwrap();
    assert_eq!(asked.len(), connections, "each was asked about");
    let most = asked.values().map(Vec::len).max().unwrap();
    let longest = asked.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0])).max().unwrap();
    println!("{connections} connections: at most {most} times in {rounds} periods, at most {longest:?} apart");
    assert!(longest <= period + Duration::from_secs(70), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn sweep_covers_every_connection_within_its_period() {
    everybody_is_asked_about(20_000, 1000, Duration::from_secs(600), false).await;
    everybody_is_asked_about(2_000, 1000, Duration::from_secs(600), true).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes a minute: run it in a release build"]
async fn sweep_covers_a_million_connections_within_its_period() {
    everybody_is_asked_about(1_000_000, 1000, Duration::from_secs(1800), false).await;
}

/// When the rate is too low for the period, a sweep takes longer and still covers every connection.
#[tokio::test(start_paused = true)]
async fn slow_sweep_still_covers_every_connection() {
    let counting = sweeps(3_000, 10, Duration::from_secs(120), 12, false).await;
    assert_eq!(counting.asked.lock().unwrap().len(), 3_000);
}

/// Through a wrong custom domain every connection appears to be stale.
#[tokio::test(start_paused = true)]
async fn wrong_endpoint_removes_no_connection() {
    let wrong = Recorder::new();
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
    let domain = Endpoint::custom_domain("ws.example.com", "staging").unwrap();
    for endpoint in [domain.clone(), domain.for_api(api_id, stage)] {
        let hub = Hub::builder(InMemory::new(), Pusher::new(At(endpoint, wrong.clone())))
            .with_sweep_period(Duration::ZERO)
            .build();
        for number in 0..100 {
            insert(&hub, &opened(&format!("c{number}"), OLD)).await;
            wrong.hang_up(key(&format!("c{number}")).id());
        }
        let sent = hub.send_to(&namespace().everyone(), "hello").await.unwrap();
        assert_eq!((sent.report.gone.len(), sent.pruned.len(), sent.withheld), (100, 0, 100), "{sent}");
        let swept = hub.sweep(&namespace()).await;
        assert_eq!((swept.removed.len(), swept.withheld), (0, 100), "{swept}");
        assert!(!hub.close(&namespace().everyone()).await.is_success());
        assert_eq!(registered(&hub).await.len(), 100);
    }
}

/// The hub trusts a custom domain once it has reached a connection of its API.
#[tokio::test(start_paused = true)]
async fn endpoint_that_reaches_connections_is_trusted() {
    let recorder = Recorder::new();
    let domain = Endpoint::custom_domain("ws.example.com", "chat").unwrap();
    let hub = Hub::new(InMemory::new(), Pusher::new(At(domain, recorder.clone())));
    for id in ["alive", "stale"] {
        insert(&hub, &opened(id, OLD)).await;
    }
    recorder.hang_up(key("stale").id());
    let sent = hub.send_to(&namespace().everyone(), "hello").await.unwrap();
    assert_eq!((sent.pruned, sent.withheld), (vec![key("stale")], 0));
}

#[tokio::test(start_paused = true)]
async fn implausible_share_of_410_removes_no_connection() {
    let recorder = Recorder::new();
    let hub = Hub::builder(InMemory::new(), Pusher::new(recorder.clone())).with_sweep_period(Duration::ZERO).build();
    for number in 0..100 {
        insert(&hub, &opened(&format!("c{number}"), OLD)).await;
        if number < 60 {
            recorder.hang_up(key(&format!("c{number}")).id());
        }
    }
    let sent = hub.send_to(&namespace().everyone(), "hello").await.unwrap();
    assert!(sent.withheld >= 20, "{sent}");
    assert!(registered(&hub).await.len() >= 60, "{sent}");
}

/// Stale connections are removed during the broadcast, even if it stops at its deadline.
#[tokio::test(start_paused = true)]
async fn stale_connections_are_removed_after_the_deadline() {
    let recorder = Recorder::new();
    let pusher = Pusher::new(Delayed(recorder.clone(), Duration::from_millis(100)))
        .with_timeout(Duration::from_secs(1))
        .with_concurrency(10);
    let hub = Hub::new(InMemory::new(), pusher);
    for number in 0..1000 {
        insert(&hub, &opened(&format!("c{number}"), OLD)).await;
        if number % 4 == 0 {
            recorder.hang_up(key(&format!("c{number}")).id());
        }
    }
    let sent = hub.send_to(&namespace().everyone(), "hello").await.unwrap();
    assert!(!sent.report.not_tried.is_empty() && !sent.report.gone.is_empty(), "{sent}");
    assert_eq!(sent.pruned.len(), sent.report.gone.len(), "{sent}");
}

/// A registry whose listings end with an error, and whose first removals fail.
#[derive(Debug)]
struct Broken {
    memory: InMemory,
    removals_fail: AtomicUsize,
}

fn broken() -> RegistryError {
    RegistryError::Unavailable { source: "broken".into() }
}

#[async_trait]
impl Registry for Broken {
    async fn insert_into(&self, connection: &Connection, groups: &[Group]) -> Result<Inserted, RegistryError> {
        self.memory.insert_into(connection, groups).await
    }

    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        match self.removals_fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(broken()),
            Err(_) => self.memory.remove(key).await,
        }
    }

    async fn find(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Connection>, RegistryError> {
        self.memory.find(key, consistency).await
    }

    async fn join_all(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Arrivals>, RegistryError> {
        self.memory.join_all(key, groups).await
    }

    async fn leave_groups(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Departures>, RegistryError> {
        self.memory.leave_groups(key, groups).await
    }

    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
        self.memory.groups(key).await
    }

    async fn set_data(
        &self,
        key: &ConnectionKey,
        data: Option<&ConnectionData>,
    ) -> Result<Option<Connection>, RegistryError> {
        self.memory.set_data(key, data).await
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
}

#[tokio::test]
async fn registry_failures_are_reported() {
    let registry = Arc::new(Broken { memory: InMemory::new(), removals_fail: AtomicUsize::new(1) });
    let recorder = Recorder::new();
    let hub = Hub::new(Arc::clone(&registry), Pusher::new(recorder.clone()));
    for id in ["a", "b", "c"] {
        assert!(registry.insert(&opened(id, OLD)).await.unwrap().is_registered());
    }
    recorder.hang_up(key("a").id());
    let sent = hub.send_to(&namespace().everyone(), "hello").await.unwrap();
    assert!(matches!(sent.unread, Some(RegistryError::Unavailable { .. })));
    assert!(!sent.is_success() && !sent.report.is_complete);
    assert_eq!((sent.report.delivered, sent.report.gone.len(), sent.pruned.len()), (1, 1, 0));
    assert!(
        sent.to_string()
            .ends_with("0 pruned; not all connections were read: the registry cannot be reached, or failed"),
        "{sent}"
    );
    let sent = hub.send_to(&namespace().everyone(), "hello").await.unwrap();
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
                let me = hub.key(event.request_context());
                assert_eq!(hub.join(&me, &group("lobby")).await?, Joined::First);
                assert!(hub.send_to(&me.group(&group("lobby")), "hello").await?.is_success());
                Ok(())
            }
        })
    }

    #[tokio::test]
    async fn evt_14_lifecycle_routes_register_the_authorized_principal() {
        let builder = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
        let hub = Hub::builder(InMemory::new(), builder.pusher()).allowing_all_joins().build();
        let gateway = builder
            .authorizer(
                |request: Request| async move {
                    let name = request.query("Auth").unwrap_or_default().to_owned();
                    Authorization::allow(name).with_context(&json!({"org": 7, "admin": true}))
                },
                ["route.request.querystring.Auth"],
            )
            .router(routes(&hub, OnConnect::new(hub.clone()).with_subprotocol("chat.v1").with_authorizer_context()))
            .start()
            .await
            .unwrap();
        let mut client = gateway.connect("?Auth=alice").await.unwrap();
        client.send_json(&json!({"action": "join"})).await.unwrap();
        assert_eq!(client.next_json().await.unwrap(), "hello");
        // The namespace is the gateway's own API and stage.
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
    async fn dis_1_sweep_detects_lost_disconnect() {
        let builder = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
        let hub = Hub::builder(InMemory::new(), builder.pusher())
            .allowing_all_joins()
            .with_sweep_period(Duration::ZERO)
            .with_grace(Duration::ZERO)
            .announcing(|events| {
                let left = events.iter().find(|event| event.kind == Presence::Left)?;
                Some(json!({"left": left.principal}))
            })
            .build();
        let on_connect =
            OnConnect::new(hub.clone()).with_data(|event: &Connect| Ok(event.query("room").map(str::to_owned)));
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
        // Waits until the gateway has detected it.
        until("bob is found gone", async || {
            let swept = hub.sweep(&namespace).await;
            swept.alive == 1 && swept.removed.len() == 1
        })
        .await;
        assert_eq!(alice.next_json().await.unwrap(), json!({"left": "bob"}));
    }
}

/// `tokio::spawn` requires `Send` futures.
#[test]
fn hub_futures_are_send() {
    fn is_send<T: Send>(_: T) {}
    let hub = Hub::new(InMemory::new(), Pusher::new(Recorder::new()));
    let (namespace, group, key) = (namespace(), group("lobby"), key("one"));
    is_send(hub.sweep(&namespace));
    is_send(hub.join(&key, &group));
    is_send(hub.leave(&key, &group));
    is_send(hub.disconnect(&key));
    is_send(hub.close(&namespace.everyone()));
    is_send(hub.principals(&namespace, &group));
    is_send(hub.send_to(&namespace.everyone(), "hello").into_future());
}
