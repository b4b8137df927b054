//! Join policies.

use std::sync::Mutex;

use lambda_websocket::hub::{HubBuilder, JoinDecision, JoinError, OnDisconnect};
use lambda_websocket::{Message, Router};

use super::*;

fn builder() -> (HubBuilder, Recorder) {
    let recorder = Recorder::new();
    (Hub::builder(InMemory::new(), Pusher::new(recorder.clone())), recorder)
}

async fn connect(hub: &Hub, id: &str) {
    let name = id.split('-').next().unwrap();
    insert(hub, &opened(id, OLD).with_principal(principal(name))).await;
}

async fn groups(hub: &Hub, id: &str) -> Vec<Group> {
    hub.registry().groups(&key(id)).await.unwrap()
}

#[tokio::test]
async fn joins_are_refused_without_a_policy() {
    let hub = builder().0.build();
    connect(&hub, "alice-1").await;
    let error = hub.join(&key("alice-1"), &group("lobby")).await.unwrap_err();
    assert!(matches!(error, JoinError::NoPolicy));
    assert_eq!(
        error.to_string(),
        "the hub has no policy for joining groups: set `HubBuilder::allowing_joins`, or `allowing_all_joins` for \
         public rooms; for a group that the application itself chooses, call `Hub::add_to_group`"
    );
    assert!(matches!(hub.join_all(&key("alice-1"), &[group("lobby")]).await, Err(JoinError::NoPolicy)));
    assert_eq!(groups(&hub, "alice-1").await, [] as [Group; 0]);
    // The application itself can add connections without a policy.
    assert_eq!(hub.add_to_group(&key("alice-1"), &group("lobby")).await.unwrap(), Joined::First);
    let added = hub.add_to_groups(&key("alice-1"), &[group("kitchen")]).await.unwrap().unwrap();
    assert_eq!(added.groups.len(), 1);
    assert_eq!(groups(&hub, "alice-1").await, ["kitchen", "lobby"]);
}

#[tokio::test]
async fn policy_decides_by_principal_and_group() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (builder, recorder) = builder();
    let hub = builder
        .announcing(|events| Some(message(events)))
        .allowing_joins({
            let asked = Arc::clone(&asked);
            move |request| {
                let asked = Arc::clone(&asked);
                async move {
                    tokio::task::yield_now().await;
                    let name = request.principal.map_or_else(|| "nobody".to_owned(), |name| name.to_string());
                    asked.lock().unwrap().push(format!("{} {name} {}", request.key.id(), request.group));
                    Ok(JoinDecision::allow_if(request.group == "lobby" || request.group.as_str().contains(&name)))
                }
            }
        })
        .build();
    connect(&hub, "alice-1").await;
    connect(&hub, "bob-1").await;
    assert_eq!(hub.join(&key("alice-1"), &group("lobby")).await.unwrap(), Joined::First);
    let error = hub.join(&key("alice-1"), &group("of bob")).await.unwrap_err();
    assert!(matches!(&error, JoinError::NotAllowed { group } if group == "of bob"));
    assert_eq!(error.to_string(), "the client may not join this group", "it is not quoted");
    // `join_all` joins all groups or none.
    let all = [group("lobby"), group("of alice"), group("of bob")];
    assert!(matches!(hub.join_all(&key("bob-1"), &all).await, Err(JoinError::NotAllowed { .. })));
    assert_eq!(groups(&hub, "bob-1").await, [] as [Group; 0]);
    assert_eq!(groups(&hub, "alice-1").await, ["lobby"]);
    assert_eq!(recorder.pushes().len(), 0, "nothing has happened that is to be announced");
    // If the key has no principal, the registry provides it; the policy is not called for unknown connections.
    let named = key("bob-1").with_principal(principal("bob"));
    assert!(hub.join_all(&named, &all[..1]).await.unwrap().is_some());
    assert_eq!(got(&recorder), ["alice-1: +bob lobby"]);
    assert_eq!(hub.join(&key("carol-1"), &group("lobby")).await.unwrap(), Joined::NotConnected);
    assert_eq!(
        *asked.lock().unwrap(),
        ["alice-1 alice lobby", "alice-1 alice of bob", "bob-1 bob lobby", "bob-1 bob of alice", "bob-1 bob lobby"]
    );
}

#[tokio::test]
async fn failing_policy_refuses_joins() {
    let hub = builder().0.allowing_joins(|_| async { Err("the table of members is closed".into()) }).build();
    connect(&hub, "alice-1").await;
    let error = hub.join(&key("alice-1"), &group("lobby")).await.unwrap_err();
    assert!(matches!(error, JoinError::Policy { .. }));
    assert_eq!(format!("{error:?}"), "the policy for joining groups failed: the table of members is closed");
    assert_eq!(groups(&hub, "alice-1").await, [] as [Group; 0]);
}

/// A message route and `$disconnect`, each with its own clone of the hub.
#[tokio::test]
async fn hub_clones_announce_joins_and_leaves() {
    let (builder, recorder) = builder();
    let hub = builder.announcing(|events| Some(message(events))).allowing_all_joins().build();
    let joining = hub.clone();
    let router = Router::new().route(OnDisconnect::new(hub.clone())).on("$default", move |event: Message| {
        let hub = joining.clone();
        async move {
            assert!(hub.join(&hub.key(event.request_context()), &group("lobby")).await?.is_member());
            Ok(())
        }
    });
    let event = crate::fixture::event;
    for (id, name) in [("Kb7p2d5_vHcCIhw=", "alice"), ("witness", "bob")] {
        insert(&hub, &opened(id, OLD).with_principal(principal(name))).await;
    }
    assert!(hub.registry().join(&key("witness"), &group("lobby")).await.unwrap().is_member());
    router.handle(event("message")).await.unwrap();
    router.handle(event("disconnect")).await.unwrap();
    assert_eq!(got(&recorder), ["witness: +alice lobby", "witness: -alice lobby"]);
}
