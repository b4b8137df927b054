//! Idempotency stores, in memory and in a table: leases, completion, and lost responses.

use std::time::Duration;

use lambda_websocket::event::{ApiId, ConnectionId, CorrelationId, Stage};
use lambda_websocket::push::Endpoint;
use lambda_websocket::reply::{Claim, IdempotencyKey, IdempotencyStore, InMemory, Job, Keys, LeaseOwner, ReplyAddress};

use crate::worker::soon;

fn address(connection: &str, correlation: &str) -> ReplyAddress {
    let endpoint = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev".parse().unwrap();
    let (id, correlation) = (ConnectionId::new(connection).unwrap(), CorrelationId::new(correlation).unwrap());
    ReplyAddress::new(id, endpoint, correlation, soon())
}

pub fn key(correlation: &str) -> IdempotencyKey {
    address("L0SM9cOFvHcCIhw=", correlation).idempotency_key()
}

/// Checks the contract of every store. `leases_end` advances time until leases have expired.
pub async fn a_store_tells_whose_job_it_is(store: &impl IdempotencyStoreInTests, leases_end: impl AsyncFnOnce()) {
    store.create().await;
    let (key, one, other) = (key("1"), LeaseOwner::random(), LeaseOwner::random());
    let acquire = async |owner| store.acquire(&key, owner).await.unwrap();
    assert_eq!(acquire(&one).await, Claim::Acquired);
    assert_eq!(acquire(&one).await, Claim::Acquired, "its owner has it already");
    assert_eq!(acquire(&other).await, Claim::InProgress);
    store.release(&key, &other).await.unwrap();
    assert_eq!(acquire(&other).await, Claim::InProgress, "only its owner releases a lease");
    store.release(&key, &one).await.unwrap();
    store.release(&key, &one).await.unwrap();
    assert_eq!(acquire(&other).await, Claim::Acquired);
    leases_end().await;
    assert_eq!(acquire(&one).await, Claim::Acquired, "a lease ends by itself");
    store.release(&key, &other).await.unwrap();
    assert_eq!(acquire(&other).await, Claim::InProgress, "whose lease has ended does not release another's");
    store.complete(&key).await.unwrap();
    store.complete(&key).await.unwrap();
    for owner in [&one, &other] {
        store.release(&key, owner).await.unwrap();
        assert_eq!(acquire(owner).await, Claim::Completed, "a completed job stays completed");
    }
    assert_eq!(store.acquire(&self::key("2"), &one).await.unwrap(), Claim::Acquired, "another job is another's");
}

/// A store that may have to be created.
pub trait IdempotencyStoreInTests: IdempotencyStore {
    async fn create(&self);
}

impl IdempotencyStoreInTests for InMemory {
    async fn create(&self) {}
}

#[tokio::test(start_paused = true)]
async fn memory_store_grants_one_lease() {
    let lease = Duration::from_secs(30);
    let store = InMemory::new(lease, Duration::from_secs(3600));
    a_store_tells_whose_job_it_is(&store, async || tokio::time::advance(lease + Duration::from_secs(1)).await).await;
    let (key, owner) = (key("3"), LeaseOwner::random());
    store.complete(&key).await.unwrap();
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert_eq!(store.acquire(&key, &owner).await.unwrap(), Claim::Completed);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(store.acquire(&key, &owner).await.unwrap(), Claim::Acquired, "it is forgotten");
}

#[test]
fn idempotency_key_covers_client_request_and_job() {
    let keys = Keys::new("k", [7; 32]).unwrap();
    let key_of = |address: &ReplyAddress| {
        let job = Job::seal("job", address, &keys).unwrap();
        let key = || job.open(&keys, std::time::SystemTime::now()).unwrap().idempotency_key();
        assert_eq!(key(), key(), "each delivery of a message has the same key");
        key()
    };
    let endpoint = |url: &str| url.parse::<Endpoint>().unwrap();
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("prod").unwrap());
    let alice = address("alice", "1");
    let different = [
        alice.clone(),
        address("bob", "1"),
        address("alice", "2"),
        alice.clone().with_endpoint(endpoint("https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/prod")),
        alice.clone().with_endpoint(endpoint("https://z1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev")),
    ];
    let mut requests: Vec<IdempotencyKey> = different.iter().map(ReplyAddress::idempotency_key).collect();
    let mut jobs: Vec<IdempotencyKey> = different.iter().chain(&different).map(key_of).collect();
    requests.sort();
    requests.dedup();
    jobs.sort();
    jobs.dedup();
    assert_eq!((requests.len(), jobs.len()), (different.len(), 2 * different.len()));
    // Two host names of the same stage have the same audience.
    let domain = |domain: &str| {
        let endpoint = Endpoint::custom_domain(domain, "").unwrap().for_api(api_id.clone(), stage.clone());
        ReplyAddress::new(alice.connection_id().clone(), endpoint, alice.correlation_id().clone(), soon())
            .idempotency_key()
    };
    assert_eq!(domain("one.example.com"), domain("other.example.com"));
    assert_eq!(domain("one.example.com"), different[3].idempotency_key());
    let key = alice.idempotency_key();
    assert_eq!(key.as_str().len(), 43);
    assert_eq!(key.to_string(), key.as_str());
    assert_eq!(format!("{key:?}"), format!("IdempotencyKey({key})"));
}

#[cfg(feature = "dynamodb")]
mod table {
    use std::time::SystemTime;

    use lambda_websocket::reply::DynamoDb;

    use super::*;
    use crate::idempotency_table::IdempotencyTable;

    impl IdempotencyStoreInTests for DynamoDb {
        async fn create(&self) {
            let (key, owner) = (key("1"), LeaseOwner::random());
            assert!(self.acquire(&key, &owner).await.is_err(), "there is no table");
            self.create_table().await.unwrap();
            self.create_table().await.expect("it is there already");
        }
    }

    async fn store(table: &IdempotencyTable) -> DynamoDb {
        let store = DynamoDb::with_endpoint_url("idempotency", table.url()).await;
        store.create_table().await.unwrap();
        store
    }

    #[tokio::test]
    async fn table_store_grants_one_lease() {
        let table = IdempotencyTable::start().await;
        let store = DynamoDb::with_endpoint_url("idempotency", table.url()).await;
        a_store_tells_whose_job_it_is(&store, async || table.expire()).await;
    }

    #[tokio::test]
    async fn lost_acquire_response_keeps_the_lease() {
        let table = IdempotencyTable::start().await;
        let store = store(&table).await;
        let (key, owner) = (key("1"), LeaseOwner::random());
        table.lose_answers(1);
        assert_eq!(store.acquire(&key, &owner).await.unwrap(), Claim::Acquired);
        assert_eq!(table.requests()[2..], ["PutItem", "PutItem"], "the SDK has asked twice");
        table.lose_answers(1);
        store.complete(&key).await.unwrap();
        assert_eq!(store.acquire(&key, &owner).await.unwrap(), Claim::Completed);
        table.lose_answers(1);
        store.release(&key, &owner).await.unwrap();
        assert_eq!(table.items().len(), 1, "a completed job is not forgotten");
    }

    #[tokio::test]
    async fn leases_and_completed_jobs_expire_in_the_table() {
        let table = IdempotencyTable::start().await;
        let store = store(&table).await.with_lease(Duration::from_secs(60)).with_memory(Duration::from_secs(3600));
        let (key, owner) = (key("1"), LeaseOwner::random());
        let left = || {
            let items = table.items();
            let expires = items[0]["expiresAt"]["N"].as_str().unwrap().parse().unwrap();
            let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(expires);
            expires.duration_since(SystemTime::now()).unwrap().as_secs()
        };
        store.acquire(&key, &owner).await.unwrap();
        assert!((30..=61).contains(&left()), "{}", left());
        assert_eq!(table.items()[0]["idempotencyKey"]["S"], key.as_str());
        store.complete(&key).await.unwrap();
        assert!((3570..=3601).contains(&left()), "{}", left());
    }
}
