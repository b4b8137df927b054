//! Tickets: each opens one connection to one stage within a minute.

use std::time::Duration;

use lambda_websocket::Keys;
use lambda_websocket::authorizer::ticket::{InMemory, NotIssued, TicketStore, Tickets};
use lambda_websocket::authorizer::{Authorization, Denied, InvalidContext, Request};
use lambda_websocket::event::{ApiId, Stage};
use serde_json::json;

use crate::fixture;

fn keys() -> Keys {
    Keys::new("2026", [7; 32]).unwrap()
}

fn of_stage(keys: Keys, stage: &str, store: impl TicketStore + 'static) -> Tickets {
    Tickets::new(keys, ApiId::new("a1b2c3d4e5").unwrap(), Stage::new(stage).unwrap(), store)
}

fn tickets() -> Tickets {
    of_stage(keys(), "dev", InMemory::new())
}

/// Returns the handshake of a connection to the stage `dev` of the API `a1b2c3d4e5`.
fn handshake(connection: &str) -> Request {
    let id = format!("/requestContext/connectionId {connection}");
    let (pointer, value) = id.split_once(' ').unwrap();
    Request::from_slice(&fixture::changed("authorizer", pointer, value)).unwrap()
}

async fn redeem(tickets: &Tickets, connection: &str, ticket: &str) -> Result<Authorization, Denied> {
    tickets.redeem(&handshake(connection), ticket).await
}

async fn is_forbidden(tickets: &Tickets, connection: &str, ticket: &str) -> bool {
    match redeem(tickets, connection, ticket).await {
        Ok(_) => false,
        Err(Denied::Forbidden) => true,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_ticket_opens_one_connection_with_its_context() {
    let tickets = tickets();
    let ticket = tickets.issue("alice", &json!({"org": 7})).unwrap();
    let request = handshake("a=");
    let response = redeem(&tickets, "a=", ticket.as_str()).await.unwrap().respond(request.method_arn()).unwrap();
    assert_eq!(response.principal_id(), "alice");
    assert_eq!(response.context().iter().collect::<Vec<_>>(), [("org", &json!(7))]);
    assert!(is_forbidden(&tickets, "b=", ticket.as_str()).await, "it was used");
    assert!(!is_forbidden(&tickets, "a=", ticket.as_str()).await, "API Gateway may repeat a handshake");
    assert!(is_forbidden(&tickets.clone(), "b=", ticket.as_str()).await, "clones share the store");
    assert!(ticket.as_str().len() < 300, "{}", ticket.as_str().len());
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(ticket.as_str().bytes().all(is_legal), "a subprotocol has no other characters");
}

#[tokio::test(start_paused = true)]
async fn concurrent_redemptions_open_one_connection() {
    let tickets = tickets();
    let ticket = tickets.issue("alice", &()).unwrap();
    let attempts = (0..64).map(|n| {
        let (tickets, ticket) = (tickets.clone(), ticket.clone());
        tokio::spawn(async move { is_forbidden(&tickets, &format!("{n}="), ticket.as_str()).await })
    });
    let mut connected = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        connected += usize::from(!attempt.await.unwrap());
    }
    assert_eq!(connected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_expires_after_a_minute() {
    let tickets = tickets();
    let issue = || tickets.issue("alice", &()).unwrap();
    let (early, late) = (issue(), issue());
    tokio::time::advance(Duration::from_secs(58)).await;
    assert!(!is_forbidden(&tickets, "a=", early.as_str()).await);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(is_forbidden(&tickets, "b=", late.as_str()).await);
    let short = tickets.clone().with_lifetime(Duration::from_secs(5)).issue("alice", &()).unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert!(is_forbidden(&tickets, "c=", short.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn ticket_is_valid_for_its_api_and_stage_only() {
    let tickets = tickets();
    for (api, stage) in [("a1b2c3d4e5", "prod"), ("z1b2c3d4e5", "dev")] {
        let other = Tickets::new(keys(), ApiId::new(api).unwrap(), Stage::new(stage).unwrap(), InMemory::new());
        let ticket = other.issue("alice", &()).unwrap();
        assert!(is_forbidden(&tickets, "a=", ticket.as_str()).await, "{api} {stage}");
        assert!(is_forbidden(&other, "a=", ticket.as_str()).await, "the handshake is of another stage");
        let ticket = tickets.issue("alice", &()).unwrap();
        assert!(
            is_forbidden(&other, "a=", ticket.as_str()).await,
            "{api} {stage}: another one's tickets are not its own"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn ticket_with_any_flipped_bit_is_refused() {
    let tickets = tickets();
    let ticket = tickets.issue("alice", &json!({"org": 7})).unwrap();
    let bytes = ticket.as_str().as_bytes();
    for place in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[place / 8] ^= 1 << (place % 8);
        let Ok(changed) = String::from_utf8(changed) else { continue };
        assert!(is_forbidden(&tickets, "a=", &changed).await, "bit {place}");
    }
    for end in 0..bytes.len() {
        assert!(is_forbidden(&tickets, "a=", &ticket.as_str()[..end]).await, "the first {end} bytes");
    }
    for text in ["", ".", "...", "t1...", "t1.2026..", "t2.2026.e30.", &"x".repeat(1 << 20), &".".repeat(100_000)] {
        assert!(is_forbidden(&tickets, "a=", text).await);
    }
    assert!(!is_forbidden(&tickets, "a=", ticket.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn ticket_survives_key_rotation() {
    let store = InMemory::new();
    let of = |keys| of_stage(keys, "dev", store.clone());
    let ticket = of(keys()).issue("alice", &()).unwrap();
    let new = || Keys::new("2027", [8; 32]).unwrap();
    assert!(is_forbidden(&of(new()), "a=", ticket.as_str()).await, "the key is not known");
    assert!(is_forbidden(&of(new().with_retired("2026")), "a=", ticket.as_str()).await);
    assert!(is_forbidden(&of(Keys::new("2026", [9; 32]).unwrap()), "a=", ticket.as_str()).await, "another secret");
    assert!(!is_forbidden(&of(new().with_old("2026", [7; 32]).unwrap()), "a=", ticket.as_str()).await);
}

#[tokio::test(start_paused = true)]
async fn invalid_principal_or_context_issues_no_ticket() {
    let tickets = tickets();
    assert_eq!(tickets.issue("", &()).unwrap_err(), NotIssued::NoPrincipal);
    let nested = tickets.issue("alice", &json!({"roles": ["a"]})).unwrap_err();
    assert!(matches!(nested, NotIssued::Context(InvalidContext::Nested { .. })), "{nested}");
    let ticket = tickets.issue("alice", &json!({"s3cret": "s3cret"})).unwrap();
    assert_eq!(format!("{ticket:?}"), format!("Ticket({} bytes)", ticket.as_str().len()));
    assert!(!format!("{tickets:?}").contains("7, 7"));
}

#[tokio::test(start_paused = true)]
async fn ticket_that_is_too_long_to_be_redeemed_is_not_issued() {
    let tickets = tickets();
    let issue = |bytes: usize| tickets.issue("alice", &json!({"note": "x".repeat(bytes)}));
    let longest = (11_000..12_400).rev().find_map(|bytes| issue(bytes).ok()).unwrap();
    assert!((16_380..=16_384).contains(&longest.as_str().len()), "{}", longest.as_str().len());
    assert!(!is_forbidden(&tickets, "L0SM9cOFvHcCIhw=", longest.as_str()).await);
    let error = issue(16_384).unwrap_err();
    assert!(matches!(error, NotIssued::TooLarge { bytes } if bytes > 16_384), "{error:?}");
    assert!(error.to_string().contains("more than the maximum of 16384"), "{error}");
}

#[cfg(feature = "reply")]
#[tokio::test(start_paused = true)]
async fn ticket_and_reply_address_are_not_interchangeable() {
    use lambda_websocket::reply::{InvalidAddress, SealedAddress};

    let ticket = tickets().issue("alice", &()).unwrap();
    let address: SealedAddress = serde_json::from_value(json!(ticket.as_str())).unwrap();
    let opened = address.open_unbound(&keys(), std::time::SystemTime::now()).unwrap_err();
    assert_eq!(opened, InvalidAddress::Version { found: "t1".to_owned() });

    let lambda_websocket::Event::Message(message) = fixture::event("message") else { panic!() };
    let address = message.reply_address().unwrap().seal_unbound(&keys());
    assert!(is_forbidden(&tickets(), "a=", address.as_str()).await);
}

#[cfg(all(feature = "dynamodb", feature = "worker"))]
mod table {
    use lambda_websocket::authorizer::ticket::DynamoDb;

    use super::*;
    use crate::idempotency_table::IdempotencyTable;

    #[tokio::test]
    async fn ticket_opens_one_connection_across_processes() {
        let table = IdempotencyTable::start().await;
        let store = DynamoDb::with_endpoint_url("tickets", table.url()).await;
        let (one, other) = (of_stage(keys(), "dev", store.clone()), of_stage(keys(), "dev", store.clone()));
        let ticket = one.issue("alice", &()).unwrap();
        let missing = redeem(&one, "a=", ticket.as_str()).await.unwrap_err();
        assert!(matches!(missing, Denied::Failed(_)), "there is no table, so nobody can tell: {missing:?}");
        store.create_table().await.unwrap();
        store.create_table().await.expect("it is there already");

        table.lose_answers(1);
        assert!(!is_forbidden(&one, "a=", ticket.as_str()).await, "the SDK asks again");
        assert!(is_forbidden(&other, "b=", ticket.as_str()).await);
        let items = table.items();
        let keep_until: u64 = items[0]["expiresAt"]["N"].as_str().unwrap().parse().unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!((now + 60..now + 130).contains(&keep_until));
        let stored = serde_json::to_string(&items).unwrap();
        assert!(!stored.contains(ticket.as_str()) && !stored.contains("alice"), "{stored}");
    }
}
