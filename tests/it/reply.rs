//! Reply addresses: what they carry, and that they are tamper-proof.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lambda_websocket::Event;
use lambda_websocket::event::{ApiId, ConnectionId, CorrelationId, Region, Stage};
use lambda_websocket::push::Endpoint;
use lambda_websocket::reply::{Accepted, InvalidAddress, InvalidKey, Job, Keys, ReplyAddress, SealedAddress};
use proptest::prelude::*;
use serde_json::json;

const SECRET: [u8; 32] = [7; 32];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn keys() -> Keys {
    Keys::new("new", SECRET).unwrap()
}

/// All fields of an address.
type Said = (ConnectionId, Endpoint, CorrelationId, SystemTime, Option<SystemTime>);

fn said(address: &ReplyAddress) -> Said {
    let (id, endpoint) = (address.connection_id().clone(), address.endpoint().clone());
    (id, endpoint, address.correlation_id().clone(), address.expires_at(), address.connecting_since())
}

fn address() -> ReplyAddress {
    let endpoint = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev".parse().unwrap();
    let id = ConnectionId::new("L0SM9cOFvHcCIhw=").unwrap();
    ReplyAddress::new(id, endpoint, CorrelationId::new("question-1").unwrap(), at(1000))
}

#[test]
fn lim_3_reply_address_expires_with_its_connection() {
    let Event::Message(message) = crate::fixture::event("message") else { panic!() };
    let address = message.reply_address().unwrap();
    let context = message.request_context();
    assert_eq!(address.connection_id(), message.connection_id());
    assert_eq!(address.correlation_id().as_json(), format!("{:?}", context.request_id.as_str()));
    assert_eq!(address.expires_at(), context.connected_at + Duration::from_secs(7200));
    assert_eq!(address.endpoint(), &Endpoint::from_context(context).unwrap());
    let (api_id, stage) = address.endpoint().api().unwrap();
    assert_eq!((api_id, stage), (&context.api_id, &context.stage));
    assert_eq!(address.connecting_since(), None, "who has sent a message is connected");
    let Event::Connect(connect) = crate::fixture::event("connect") else { panic!() };
    let address = connect.reply_address().unwrap();
    assert_eq!(address.connection_id(), connect.connection_id());
    assert_eq!(address.connecting_since(), Some(connect.request_context().connected_at));
    // A custom domain keeps the audience of the event.
    let domain = address.with_endpoint(Endpoint::custom_domain("ws.example.com", "").unwrap());
    let audience = domain.endpoint().api().map(|(api_id, stage)| (api_id.as_str(), stage.as_str()));
    assert_eq!(audience, Some((connect.request_context().api_id.as_str(), "dev")));
}

#[test]
fn sealed_address_is_one_short_string() {
    let job = Job::seal(&json!({"width": 3}), &address(), &keys()).unwrap();
    let sealed = job.reply_to();
    let text = serde_json::to_string(sealed).unwrap();
    assert_eq!(text, format!("{:?}", sealed.as_str()), "a string");
    assert!(sealed.as_str().len() < 340, "{}", sealed.as_str().len());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(sealed.as_str().bytes().all(legal));
    let back: SealedAddress = serde_json::from_str(&text).unwrap();
    assert_eq!(said(&back.open_for(r#"{"width":3}"#, &keys(), at(999)).unwrap()), said(&address()));
    let text = serde_json::to_value(&job).unwrap();
    assert_eq!(text, json!({"replyTo": sealed.as_str(), "job": r#"{"width":3}"#}));
    let back: Job = serde_json::from_value(text).unwrap();
    assert_eq!((&back, back.decode().unwrap()), (&job, json!({"width": 3})));
    assert_eq!(Accepted::for_address(&address()).correlation_id().as_json(), "\"question-1\"");
}

#[test]
fn address_is_bound_to_its_job() {
    let job = Job::seal(&"transfer 1", &address(), &keys()).unwrap();
    assert_eq!(said(&job.open(&keys(), at(10)).unwrap()), said(&address()));
    let open = |sealed: &SealedAddress, json: &str| sealed.open_for(json, &keys(), at(10)).unwrap_err();
    for other in [r#""transfer 2""#, r#" "transfer 1""#, "", "\"transfer 1\"\n"] {
        assert_eq!(open(job.reply_to(), other), InvalidAddress::OtherJob, "{other:?}");
        assert_eq!(Job::from_parts(job.reply_to().clone(), other).open(&keys(), at(10)), Err(InvalidAddress::OtherJob));
    }
    assert_eq!(job.reply_to().open_unbound(&keys(), at(10)), Err(InvalidAddress::Bound));
    let unbound = address().seal_unbound(&keys());
    assert_eq!(said(&unbound.open_unbound(&keys(), at(10)).unwrap()), said(&address()));
    assert_eq!(open(&unbound, job.json()), InvalidAddress::Unbound);
    // A mismatched job is reported before an expired address, so that the message ends in the dead-letter queue.
    assert_eq!(job.reply_to().open_for("", &keys(), at(2000)), Err(InvalidAddress::OtherJob));
}

#[test]
fn each_invalid_address_has_its_own_error() {
    let open = |sealed: &SealedAddress, keys: &Keys| sealed.open_unbound(keys, at(10)).unwrap_err();
    let sealed = address().seal_unbound(&keys());
    assert_eq!(open(&address().unsigned(), &keys()), InvalidAddress::Unsigned);
    assert_eq!(said(&address().unsigned().open_unchecked(at(10)).unwrap()), said(&address()));

    let another = Keys::new("new", [8; 32]).unwrap();
    assert_eq!(open(&sealed, &another), InvalidAddress::Tampered, "another secret of the same name");
    let unknown = InvalidAddress::UnknownKey { key_id: "new".to_owned() };
    assert_eq!(open(&sealed, &Keys::new("newer", [8; 32]).unwrap()), unknown);

    let rotated = Keys::new("newer", [8; 32]).unwrap().with_old("new", SECRET).unwrap();
    assert_eq!(said(&sealed.open_unbound(&rotated, at(10)).unwrap()), said(&address()), "an old key still opens");
    let retired = rotated.with_retired("new");
    assert_eq!(open(&sealed, &retired), InvalidAddress::RetiredKey { key_id: "new".to_owned() });

    let expired = sealed.open_unbound(&keys(), at(1060)).unwrap_err();
    assert_eq!(expired.to_string(), "the reply address has expired 60 s ago");
    assert!(sealed.open_unbound(&keys(), at(1000)).is_err() && sealed.open_unbound(&keys(), at(999)).is_ok());

    let [version, key, content, code] = sealed.as_str().split('.').collect::<Vec<_>>()[..] else { panic!() };
    let forged = URL_SAFE_NO_PAD.encode(
        String::from_utf8(URL_SAFE_NO_PAD.decode(content).unwrap())
            .unwrap()
            .replace("L0SM9cOFvHcCIhw=", "someone-elses-id"),
    );
    let text = |parts: [&str; 4]| SealedAddress::from(parts.join("."));
    assert_eq!(open(&text([version, key, &forged, code]), &keys()), InvalidAddress::Tampered);
    assert_eq!(open(&text([version, "", content, ""]), &keys()), InvalidAddress::Unsigned);
    assert_eq!(open(&text([version, key, content, ""]), &keys()), InvalidAddress::Tampered);
    let version = InvalidAddress::Version { found: "2".to_owned() };
    assert_eq!(open(&text(["2", key, content, code]), &keys()), version);
    for text in ["", "1", "1.", "1..", "1.a.b.c.d", "hello", &"1.".repeat(3000)] {
        let error = open(&SealedAddress::from(text.to_owned()), &keys());
        assert!(matches!(error, InvalidAddress::Malformed { .. } | InvalidAddress::Version { .. }), "{text}: {error}");
    }
}

#[test]
fn short_secret_and_invalid_key_id_are_refused() {
    let error = Keys::new("a", [1; 31]).unwrap_err();
    assert_eq!(error.to_string(), "the secret of the key \"a\" has 31 bytes: use at least 32 random bytes");
    for name in ["", "a.b", "a b", &"x".repeat(33)] {
        assert!(matches!(Keys::new(name, SECRET), Err(InvalidKey::KeyId { .. })), "{name}");
    }
}

#[test]
fn two_keys_with_one_name_are_refused() {
    let twice = keys().with_old("new", [8; 32]).unwrap_err();
    assert_eq!(twice.to_string(), "there are two keys with the name \"new\": each key needs its own name");
    let old = || keys().with_old("old", [8; 32]).unwrap();
    assert!(matches!(old().with_old("old", [9; 32]), Err(InvalidKey::Duplicate { .. })));
    assert!(matches!(old().with_retired("old").with_old("old", [9; 32]), Err(InvalidKey::Duplicate { .. })));
    // The first secret still seals.
    let sealed = address().seal_unbound(&old().with_retired("new"));
    assert!(sealed.open_unbound(&keys(), at(10)).is_ok());
}

#[test]
fn debug_of_an_address_shows_only_its_request_id() {
    let job = Job::seal(&"s3cret", &address(), &keys()).unwrap();
    let sealed = job.reply_to();
    let key = address().idempotency_key();
    let shown = format!("{:?} {:?} {:?} {:?} {key:?} {key}", address(), sealed, keys(), job);
    let Event::Message(message) = crate::fixture::event("message") else { panic!() };
    let shown = format!("{shown} {:?}", message.reply_address().unwrap());
    assert!(shown.contains("Kb7qAF22PHcEdGg="), "{shown}");
    // The correlation id may contain a part of the client's message.
    for secret in ["question-1", "L0SM9", "a1b2c3d4e5", sealed.as_str(), "7, 7", "s3cret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn addresses() -> impl Strategy<Value = ReplyAddress> {
    let custom = "https://[a-z0-9]{1,20}(\\.[a-z]{2,5}){1,3}/[A-Za-z0-9_-]{1,20}";
    let default = "https://[a-z0-9]{10}\\.execute-api\\.(eu-west-1\\.amazonaws\\.com|cn-north-1\\.amazonaws\\.com\\.cn)/[a-z]{1,9}";
    let endpoint = prop_oneof![custom, default];
    let region = proptest::option::of("[a-z]{2}-[a-z]{4,9}-[1-9]");
    let api = proptest::option::of(("[a-z0-9]{10}", "[A-Za-z0-9_-]{1,20}"));
    let times = (1_u64..4_000_000_000, proptest::option::of(0_u64..4_000_000_000));
    ("[!-~]{1,64}", endpoint, region, api, crate::protocol::ids(), times).prop_filter_map(
        "not an id",
        |(id, endpoint, region, api, correlation, (expiry, connecting))| {
            let endpoint: Endpoint = endpoint.parse().ok()?;
            let endpoint = match region {
                Some(region) => endpoint.with_region(Region::new(region).ok()?),
                None => endpoint,
            };
            let endpoint = match api {
                Some((api_id, stage)) => endpoint.for_api(ApiId::new(api_id).ok()?, Stage::new(stage).ok()?),
                None => endpoint,
            };
            let correlation = CorrelationId::from_json(&correlation).unwrap();
            let address = ReplyAddress::new(ConnectionId::new(id).ok()?, endpoint, correlation, at(expiry));
            Some(match connecting {
                Some(since) => address.with_connecting_since(at(since)),
                None => address,
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn sealed_addresses_round_trip(address in addresses(), secret in any::<[u8; 40]>(), job in ".{0,100}") {
        let keys = Keys::new("k", secret).unwrap();
        let now = address.expires_at() - Duration::from_secs(1);
        let sealed = Job::seal(&job, &address, &keys).unwrap();
        let opened = sealed.open(&keys, now).unwrap();
        prop_assert_eq!(said(&opened), said(&address));
        prop_assert_eq!(sealed.decode::<String>().unwrap(), job);
        // An opened address can be sealed again with another job.
        let again = Job::seal("again", &opened, &keys).unwrap().open(&keys, now).unwrap();
        prop_assert_eq!(said(&again), said(&address));
        prop_assert_ne!(again.idempotency_key(), opened.idempotency_key());
        prop_assert_eq!(said(&address.seal_unbound(&keys).open_unbound(&keys, now).unwrap()), said(&address));
        prop_assert_eq!(said(&address.unsigned().open_unchecked(now).unwrap()), said(&address));
    }

    #[test]
    fn address_of_another_job_is_refused(address in addresses(), job in ".{0,60}", other in ".{0,60}", flip in any::<(usize, u8)>()) {
        let keys = keys();
        let sealed = Job::seal(&job, &address, &keys).unwrap();
        let mut flipped = sealed.json().as_bytes().to_vec();
        let at = flip.0 % flipped.len();
        flipped[at] ^= 1 << (flip.1 % 8);
        for other in [serde_json::to_string(&other).unwrap(), String::from_utf8_lossy(&flipped).into_owned()] {
            if other != sealed.json() {
                let opened = sealed.reply_to().open_for(&other, &keys, UNIX_EPOCH);
                prop_assert_eq!(opened, Err(InvalidAddress::OtherJob));
            }
        }
    }

    #[test]
    fn opening_any_string_never_panics(text in ".{0,300}", dotted in "1\\.[a-z]{0,3}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}") {
        for text in [text, dotted] {
            let sealed = SealedAddress::from(text.clone());
            prop_assert!(sealed.open_for(&text, &keys(), UNIX_EPOCH).is_err());
            prop_assert!(sealed.open_unbound(&keys(), UNIX_EPOCH).is_err());
            let _ = sealed.open_unchecked(UNIX_EPOCH);
        }
    }
}

proptest! {
    // Each case opens some ten thousand addresses.
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_flipped_bit_is_detected(address in addresses()) {
        let keys = keys();
        let job = Job::seal("job", &address, &keys).unwrap();
        for sealed in [job.reply_to(), &address.seal_unbound(&keys)] {
            for at in 0..sealed.as_str().len() {
                for bit in 0..8 {
                    let mut bytes = sealed.as_str().as_bytes().to_vec();
                    bytes[at] ^= 1 << bit;
                    // Bytes that are not UTF-8 cannot become an address.
                    let Ok(text) = String::from_utf8(bytes) else { continue };
                    let opened = SealedAddress::from(text);
                    prop_assert!(opened.open_for(job.json(), &keys, UNIX_EPOCH).is_err(), "bit {} of byte {}", bit, at);
                    prop_assert!(opened.open_unbound(&keys, UNIX_EPOCH).is_err(), "bit {} of byte {}", bit, at);
                }
            }
        }
    }
}
