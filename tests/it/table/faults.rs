//! Writers that are killed, requests that fail, and what is left then.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use lambda_websocket::Pusher;
use lambda_websocket::hub::Hub;
use lambda_websocket::push::Recorder;
use lambda_websocket::registry::{Consistency, Joined, Left, Registry, RegistryError};

use super::{Table, connection, group, key, namespace};
use crate::emulators::dynamodb_local;
use crate::proxy::{Fate, Proxy};

type Change = for<'a> fn(&'a dyn Registry) -> Pin<Box<dyn Future<Output = Result<(), RegistryError>> + Send + 'a>>;

/// Every change there is, and how many connections there are after it.
const CHANGES: [(&str, Change, usize); 12] = [
    ("insert", |table| Box::pin(async { table.insert(&connection("new", "alice")).await.map(drop) }), 34),
    ("join as the first", |table| Box::pin(async { table.join(&key("lone"), &group(77)).await.map(drop) }), 33),
    ("join as another", |table| Box::pin(async { table.join(&key("lone"), &group(1)).await.map(drop) }), 33),
    ("leave as the last", |table| Box::pin(async { table.leave(&key("other-3"), &group(1)).await.map(drop) }), 33),
    ("leave as another", |table| Box::pin(async { table.leave(&key("social"), &group(1)).await.map(drop) }), 33),
    ("leave three groups", |table| Box::pin(async { table.leave_all(&key("social")).await.map(drop) }), 33),
    ("leave forty groups", |table| Box::pin(async { table.leave_all(&key("busy")).await.map(drop) }), 33),
    ("remove", |table| Box::pin(async { table.remove(&key("lone")).await.map(drop) }), 32),
    ("remove from three groups", |table| Box::pin(async { table.remove(&key("social")).await.map(drop) }), 32),
    ("remove from forty groups", |table| Box::pin(async { table.remove(&key("busy")).await.map(drop) }), 32),
    ("disband", |table| Box::pin(async { table.disband(&namespace(), &group(1)).await.map(drop) }), 33),
    ("touch", |table| Box::pin(async { table.touch(&key("busy"), SystemTime::now()).await.map(drop) }), 33),
];

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/peers/emulators"]
async fn a_writer_that_is_killed_leaves_nothing_half_done() {
    let local = dynamodb_local().await;
    let proxy = Proxy::start(local.url.trim_start_matches("http://").parse().unwrap()).await;
    let (mut kills, mut tables) = (0, 0..);
    for (name, change, after) in CHANGES {
        for fate in [Fate::DiesBefore, Fate::DiesAfter] {
            for number in 0.. {
                let table = Table::new(&proxy, &local.url, &format!("kill-{}", tables.next().unwrap())).await;
                table.populate().await;
                assert_eq!(table.check("at first").await, 33);
                table.proxy.plan(move |request, _| if request == number { fate } else { Fate::Passes });
                let is_done = tokio::select! {
                    done = change(&table.through) => { done.unwrap(); true }
                    () = table.proxy.death() => false,
                };
                table.proxy.plan(|_, _| Fate::Passes);
                let when = format!("{name}: {fate:?} request {number}");
                let left = table.check(&when).await;
                if is_done {
                    assert_eq!(left, after, "{name}");
                    break;
                }
                kills += 1;
                // Somebody does it again, and it is done.
                change(&table.direct).await.unwrap();
                assert_eq!(table.check(&format!("{when}, then again")).await, after, "{when}");
            }
        }
    }
    println!("{kills} writers killed");
    assert!(kills >= 40, "{kills} kills");
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/peers/emulators"]
async fn a_sweep_finds_whatever_was_left() {
    let local = dynamodb_local().await;
    let proxy = Proxy::start(local.url.trim_start_matches("http://").parse().unwrap()).await;
    let mut sweeps = 0;
    for (name, change, _) in CHANGES {
        for fate in [Fate::DiesBefore, Fate::DiesAfter] {
            let table = Table::new(&proxy, &local.url, &format!("sweep-{sweeps}")).await;
            table.populate().await;
            table.proxy.plan(move |request, _| if request == 1 { fate } else { Fate::Passes });
            tokio::select! {
                done = change(&table.through) => done.unwrap(),
                () = table.proxy.death() => {}
            }
            let left = table.check(name).await;
            // All of them are gone, and nobody was told.
            let recorder = Recorder::new();
            for id in ["lone", "social", "busy", "new"]
                .map(str::to_owned)
                .into_iter()
                .chain((0..30).map(|number| format!("other-{number}")))
            {
                recorder.hang_up(key(&id).id());
            }
            // The one who sweeps is killed, too; the next goes on.
            let hub = Hub::new(table.through.clone(), Pusher::new(recorder.clone()))
                .with_sweep_rate(1000)
                .with_lease(Duration::ZERO);
            let chat = namespace();
            table.proxy.plan(move |request, _| if request == 10 { fate } else { Fate::Passes });
            tokio::select! {
                swept = hub.sweep(&chat) => panic!("{swept}"),
                () = table.proxy.death() => {}
            }
            table.proxy.plan(|_, _| Fate::Passes);
            table.check("a sweep was killed").await;
            let swept = hub.sweep(&namespace()).await;
            assert!(swept.is_complete && swept.failed.is_empty() && swept.removed.len() <= left, "{swept}");
            assert_eq!(table.check("swept").await, 0, "{name}: {fate:?}");
            sweeps += 1;
        }
    }
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/peers/emulators"]
async fn what_passes_is_retried_until_the_deadline() {
    let local = dynamodb_local().await;
    let proxy = Proxy::start(local.url.trim_start_matches("http://").parse().unwrap()).await;
    for (number, (name, change, after)) in CHANGES.into_iter().enumerate() {
        for fate in [Fate::Throttled, Fate::Fails, Fate::BreaksAfter] {
            let table = Table::new(&proxy, &local.url, &format!("retry-{number}-{fate:?}")).await;
            table.populate().await;
            table.proxy.plan(move |request, _| if request % 2 == 0 { fate } else { Fate::Passes });
            change(&table.through).await.unwrap_or_else(|error| panic!("{name}: {fate:?}: {error}"));
            table.proxy.plan(|_, _| Fate::Passes);
            assert_eq!(table.check(&format!("{name}: {fate:?}")).await, after);
        }
    }
    let table = Table::new(&proxy, &local.url, "late").await;
    table.populate().await;
    // The answer is lost and the transaction is repeated: it happens once, and is told as what it was.
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
    // A batch that is not done at once.
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
