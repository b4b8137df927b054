//! Killed writers, failed requests, and the state that they leave.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use lambda_websocket::Pusher;
use lambda_websocket::hub::Hub;
use lambda_websocket::push::Recorder;
use lambda_websocket::registry::{ConnectionData, Consistency, Joined, Left, Registry, RegistryError};

use super::{Table, connection, group, key, namespace};
use crate::dynamo::Dynamo;
use crate::emulators::dynamodb_local;
use crate::proxy::{Fate, Proxy};

type Change = for<'a> fn(&'a dyn Registry) -> Pin<Box<dyn Future<Output = Result<(), RegistryError>> + Send + 'a>>;

/// All changes, and the number of connections after each.
const CHANGES: [(&str, Change, usize); 14] = [
    ("insert", |table| Box::pin(async { table.insert(&connection("new", "alice")).await.map(drop) }), 14),
    (
        "insert into two groups",
        |table| {
            Box::pin(async { table.insert_into(&connection("new", "alice"), &[group(1), group(77)]).await.map(drop) })
        },
        14,
    ),
    ("join as the first", |table| Box::pin(async { table.join(&key("lone"), &group(77)).await.map(drop) }), 13),
    ("join as another", |table| Box::pin(async { table.join(&key("lone"), &group(1)).await.map(drop) }), 13),
    ("leave as the last", |table| Box::pin(async { table.leave(&key("other-3"), &group(1)).await.map(drop) }), 13),
    ("leave as another", |table| Box::pin(async { table.leave(&key("social"), &group(1)).await.map(drop) }), 13),
    ("leave three groups", |table| Box::pin(async { table.leave_all(&key("social")).await.map(drop) }), 13),
    ("leave twenty groups", |table| Box::pin(async { table.leave_all(&key("busy")).await.map(drop) }), 13),
    ("remove", |table| Box::pin(async { table.remove(&key("lone")).await.map(drop) }), 12),
    ("remove from three groups", |table| Box::pin(async { table.remove(&key("social")).await.map(drop) }), 12),
    ("remove from twenty groups", |table| Box::pin(async { table.remove(&key("busy")).await.map(drop) }), 12),
    ("disband", |table| Box::pin(async { table.disband(&namespace(), &group(1)).await.map(drop) }), 13),
    (
        "set data",
        |table| {
            Box::pin(async {
                let data = ConnectionData::new("away").unwrap();
                table.set_data(&key("social"), Some(&data)).await.map(drop)
            })
        },
        13,
    ),
    ("clear data", |table| Box::pin(async { table.set_data(&key("busy"), None).await.map(drop) }), 13),
];

/// Returns a registry on the same table a minute later, when an interrupted removal may be resumed.
fn later(table: &Table) -> lambda_websocket::registry::DynamoDb {
    table.direct.clone().with_clock(|| SystemTime::now() + Duration::from_secs(60))
}

#[tokio::test]
async fn killed_writer_leaves_no_partial_state() {
    killed_writers(&Dynamo::start().await.url).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/interop/emulators"]
async fn killed_writer_leaves_no_partial_state_on_dynamodb_local() {
    killed_writers(&dynamodb_local().await.url).await;
}

async fn killed_writers(url: &str) {
    let proxy = Proxy::start(url.trim_start_matches("http://").parse().unwrap()).await;
    let (mut kills, mut tables) = (0, 0..);
    for (name, change, after) in CHANGES {
        for fate in [Fate::DiesBefore, Fate::DiesAfter] {
            for number in 0.. {
                let table = Table::new(&proxy, url, &format!("kill-{}", tables.next().unwrap())).await;
                table.populate().await;
                assert_eq!(table.check("at first", false).await, 13);
                table.proxy.plan(move |request, _| if request == number { fate } else { Fate::Passes });
                let is_done = tokio::select! {
                    done = change(&table.through) => { done.unwrap(); true }
                    () = table.proxy.death() => false,
                };
                table.proxy.plan(|_, _| Fate::Passes);
                let when = format!("{name}: {fate:?} request {number}");
                let left = table.check(&when, name.starts_with("remove from") && !is_done).await;
                if is_done {
                    assert_eq!(left, after, "{name}");
                    break;
                }
                kills += 1;
                // Repeating the change completes it.
                let later = later(&table);
                change(&later).await.unwrap();
                assert_eq!(table.check(&format!("{when}, then again"), false).await, after, "{when}");
            }
        }
    }
    println!("{kills} writers killed");
    assert!(kills >= 50, "{kills} kills");
}

/// Each departure of an interrupted removal is reported to one of the callers that resume it.
#[tokio::test]
async fn interrupted_removal_resumes_and_reports_the_rest() {
    let dynamo = Dynamo::start().await;
    let proxy = Proxy::start(dynamo.url.trim_start_matches("http://").parse().unwrap()).await;
    for number in 1..6 {
        let table = Table::new(&proxy, &dynamo.url, &format!("removal-{number}")).await;
        table.populate().await;
        table.proxy.plan(move |request, _| if request >= number { Fate::DiesBefore } else { Fate::Passes });
        let busy = key("busy");
        tokio::select! {
            removed = table.through.remove(&busy) => panic!("{removed:?}"),
            () = table.proxy.death() => {}
        }
        table.proxy.plan(|_, _| Fate::Passes);
        assert_eq!(table.direct.find(&key("busy"), Consistency::Strong).await.unwrap(), None);
        assert_eq!(table.direct.join(&key("busy"), &group(50)).await.unwrap(), Joined::NotConnected);
        let early = table.direct.remove(&key("busy")).await.unwrap();
        assert_eq!(early, None, "whoever began is left alone at first");
        // A minute later, or after the tombstone has expired.
        let wait = Duration::from_secs(if number % 2 == 0 { 60 } else { 1200 });
        let later = table.direct.clone().with_clock(move || SystemTime::now() + wait);
        let (one, other) = futures_util::future::join(later.remove(&busy), later.remove(&busy)).await;
        let done: Vec<usize> =
            [one.unwrap(), other.unwrap()].into_iter().flatten().map(|removed| removed.groups.len()).collect();
        println!("{number} requests passed: {done:?} of 20 departures were left");
        assert!(done.len() == 1 && (1..=20).contains(&done[0]), "of two that continue, one does: {done:?}");
        assert_eq!(later.remove(&busy).await.unwrap(), None, "nothing is told twice");
        assert_eq!(table.check("continued", false).await, 12);
    }
}

#[tokio::test]
async fn sweep_completes_interrupted_removals() {
    sweeps(&Dynamo::start().await.url).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/interop/emulators"]
async fn sweep_completes_interrupted_removals_on_dynamodb_local() {
    sweeps(&dynamodb_local().await.url).await;
}

async fn sweeps(url: &str) {
    let proxy = Proxy::start(url.trim_start_matches("http://").parse().unwrap()).await;
    let mut sweeps = 0;
    for (name, change, _) in CHANGES {
        for fate in [Fate::DiesBefore, Fate::DiesAfter] {
            let table = Table::new(&proxy, url, &format!("sweep-{sweeps}")).await;
            table.populate().await;
            // Other connections are open, so that the share of stale ones is plausible.
            for number in 0..40 {
                let connection = connection(&format!("open-{number}"), &format!("open{number}"));
                assert!(table.direct.insert(&connection).await.unwrap().is_registered());
            }
            table.proxy.plan(move |request, _| if request == 1 { fate } else { Fate::Passes });
            tokio::select! {
                done = change(&table.through) => done.unwrap(),
                () = table.proxy.death() => {}
            }
            let left = table.check(name, true).await;
            // All connections of `populate` are closed without a `$disconnect`.
            let recorder = Recorder::new();
            for id in ["lone", "social", "busy", "new"]
                .map(str::to_owned)
                .into_iter()
                .chain((0..10).map(|number| format!("other-{number}")))
            {
                recorder.hang_up(key(&id).id());
            }
            // The sweeper is killed, too; the next one resumes.
            let hub = Hub::builder(table.through.clone(), Pusher::new(recorder.clone()))
                .with_sweep_rate(1000)
                .with_sweep_period(Duration::ZERO)
                .build();
            let chat = namespace();
            table.proxy.plan(move |request, _| if request == 40 { fate } else { Fate::Passes });
            tokio::select! {
                swept = hub.sweep(&chat) => panic!("{swept}"),
                () = table.proxy.death() => {}
            }
            table.proxy.plan(|_, _| Fate::Passes);
            table.check("a sweep was killed", true).await;
            let swept = hub.sweep(&namespace()).await;
            assert!(swept.is_complete && swept.failed.is_empty() && swept.removed.len() <= left, "{swept}");
            assert_eq!(table.check("swept", true).await, 40, "{name}: {fate:?}");
            sweeps += 1;
        }
    }
}

#[tokio::test]
async fn transient_failures_are_retried_until_the_deadline() {
    retries(&Dynamo::start().await.url).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/interop/emulators"]
async fn transient_failures_are_retried_until_the_deadline_on_dynamodb_local() {
    retries(&dynamodb_local().await.url).await;
}

async fn retries(url: &str) {
    let proxy = Proxy::start(url.trim_start_matches("http://").parse().unwrap()).await;
    for (number, (name, change, after)) in CHANGES.into_iter().enumerate() {
        for fate in [Fate::Throttled, Fate::Fails, Fate::BreaksAfter] {
            let table = Table::new(&proxy, url, &format!("retry-{number}-{fate:?}")).await;
            table.populate().await;
            table.proxy.plan(move |request, _| if request % 2 == 0 { fate } else { Fate::Passes });
            change(&table.through).await.unwrap_or_else(|error| panic!("{name}: {fate:?}: {error}"));
            table.proxy.plan(|_, _| Fate::Passes);
            assert_eq!(table.check(&format!("{name}: {fate:?}"), false).await, after);
        }
    }
    let table = Table::new(&proxy, url, "late").await;
    table.populate().await;
    // The response is lost and the transaction is repeated: it is applied once, and returns its first outcome.
    table.proxy.plan(|number, operation| match operation {
        "TransactWriteItems" if number < 4 => Fate::BreaksAfter,
        _ => Fate::Passes,
    });
    assert_eq!(table.through.join(&key("lone"), &group(60)).await.unwrap(), Joined::First);
    table.proxy.plan(|number, operation| match operation {
        "TransactWriteItems" if number < 4 => Fate::BreaksAfter,
        _ => Fate::Passes,
    });
    assert_eq!(table.through.leave(&key("lone"), &group(60)).await.unwrap(), Left::Last);
    // The same holds for a removal, which is not a transaction.
    table.proxy.plan(|number, _| if number % 2 == 0 { Fate::BreaksAfter } else { Fate::Passes });
    let removed = table.through.remove(&key("social")).await.unwrap().expect("this writer removes it");
    let left: Vec<Left> = removed.groups.iter().map(|departure| departure.left).collect();
    assert_eq!(left, [Left::Another; 3]);
    let removed = table.through.remove(&key("other-7")).await.unwrap().expect("this writer removes it");
    let left: Vec<Left> = removed.groups.iter().map(|departure| departure.left).collect();
    assert_eq!(left, [Left::Last]);
    // A batch with unprocessed items.
    table.proxy.plan(|number, operation| match operation {
        "BatchGetItem" if number < 5 => Fate::Unprocessed,
        _ => Fate::Passes,
    });
    assert_eq!(table.through.join(&key("lone"), &group(1)).await.unwrap(), Joined::Another);
    assert!(table.proxy.consumed().contains_key("BatchGetItem"), "it looked");
    for fate in [Fate::Throttled, Fate::Fails, Fate::DiesBefore] {
        table.proxy.plan(move |_, _| fate);
        let start = std::time::Instant::now();
        let limit = Duration::from_millis(600);
        let late = table.through.clone().with_timeout(limit);
        let error = late.find(&key("lone"), Consistency::Eventual).await.unwrap_err();
        assert!(start.elapsed() <= limit + Duration::from_millis(100), "{fate:?}: {:?}", start.elapsed());
        let is_right = match fate {
            Fate::Throttled => matches!(error, RegistryError::Throttled { .. }),
            Fate::Fails => matches!(error, RegistryError::Unavailable { .. }),
            _ => matches!(error, RegistryError::TimedOut { .. }),
        };
        assert!(is_right && error.is_retryable(), "{fate:?}: {error:?}");
    }
}
