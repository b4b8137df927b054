//! Addresses that travel: what they carry, and that nobody can change it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lambda_websocket::Event;
use lambda_websocket::event::{ConnectionId, CorrelationId, Region};
use lambda_websocket::push::Endpoint;
use lambda_websocket::reply::{Acknowledged, InvalidAddress, Job, Keys, ReplyAddress, SealedAddress, WeakSecret};
use proptest::prelude::*;
use serde_json::json;

const SECRET: [u8; 32] = [7; 32];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn keys() -> Keys {
    Keys::new("new", SECRET).unwrap()
}

fn address() -> ReplyAddress {
    let endpoint = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev".parse().unwrap();
    let id = ConnectionId::new("L0SM9cOFvHcCIhw=").unwrap();
    ReplyAddress::new(id, endpoint, CorrelationId::new("question-1").unwrap(), at(1000))
}

#[test]
fn lim_3_an_event_has_an_address_until_its_connection_must_end() {
    let Event::Message(message) = crate::fixture::event("message") else { panic!() };
    let address = message.reply_address().unwrap();
    let context = message.request_context();
    assert_eq!(address.connection_id(), message.connection_id());
    assert_eq!(address.correlation_id().as_str(), context.request_id.as_str());
    assert_eq!(address.expires_at(), context.connected_at + Duration::from_secs(7200));
    assert_eq!(address.endpoint(), &Endpoint::of_request(context).unwrap());
    let Event::Connect(connect) = crate::fixture::event("connect") else { panic!() };
    assert_eq!(connect.reply_address().unwrap().connection_id(), connect.connection_id());
}

#[test]
fn an_address_travels_as_one_short_text() {
    let sealed = address().seal(&keys());
    let text = serde_json::to_string(&sealed).unwrap();
    assert_eq!(text, format!("{:?}", sealed.as_str()), "a string");
    assert!(sealed.as_str().len() < 256, "{}", sealed.as_str().len());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(sealed.as_str().bytes().all(legal));
    let back: SealedAddress = serde_json::from_str(&text).unwrap();
    assert_eq!(back.open(&keys(), at(999)).unwrap(), address());
    let job = Job::new(back, json!({"width": 3}));
    let text = serde_json::to_value(&job).unwrap();
    assert_eq!(text, json!({"replyTo": sealed.as_str(), "job": {"width": 3}}));
    let acknowledged = serde_json::to_value(Acknowledged::of(&address())).unwrap();
    assert_eq!(acknowledged, json!({"correlationId": "question-1"}));
}

#[test]
fn each_way_to_be_wrong_has_its_own_error() {
    let open = |sealed: &SealedAddress, keys: &Keys| sealed.open(keys, at(10)).unwrap_err();
    let sealed = address().seal(&keys());
    assert_eq!(open(&address().unsigned(), &keys()), InvalidAddress::Unsigned);
    assert_eq!(address().unsigned().open_unchecked(at(10)).unwrap(), address());

    let another = Keys::new("new", [8; 32]).unwrap();
    assert_eq!(open(&sealed, &another), InvalidAddress::Tampered, "another secret of the same name");
    let unknown = InvalidAddress::UnknownKey { key_id: "new".to_owned() };
    assert_eq!(open(&sealed, &Keys::new("newer", [8; 32]).unwrap()), unknown);

    let rotated = Keys::new("newer", [8; 32]).unwrap().with_old("new", SECRET).unwrap();
    assert_eq!(sealed.open(&rotated, at(10)).unwrap(), address(), "an old key still opens");
    let retired = rotated.with_retired("new");
    assert_eq!(open(&sealed, &retired), InvalidAddress::RetiredKey { key_id: "new".to_owned() });

    let expired = sealed.open(&keys(), at(1060)).unwrap_err();
    assert_eq!(expired.to_string(), "the reply address of question-1 has expired 60 s ago");
    assert!(sealed.open(&keys(), at(1000)).is_err() && sealed.open(&keys(), at(999)).is_ok());

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
fn a_secret_that_protects_nothing_is_refused() {
    let error = Keys::new("a", [1; 31]).unwrap_err();
    assert_eq!(error.to_string(), "the secret of the key \"a\" has 31 bytes: it needs at least 32, made at random");
    for name in ["", "a.b", "a b", &"x".repeat(33)] {
        assert!(matches!(Keys::new(name, SECRET), Err(WeakSecret::KeyId { .. })), "{name}");
    }
}

#[test]
fn nothing_of_an_address_is_shown_but_its_question() {
    let sealed = address().seal(&keys());
    let shown = format!("{:?} {:?} {:?} {:?}", address(), sealed, keys(), Job::new(sealed.clone(), 1));
    assert!(shown.contains("question-1"));
    for secret in ["L0SM9", "a1b2c3d4e5", sealed.as_str(), "7, 7"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn addresses() -> impl Strategy<Value = ReplyAddress> {
    let endpoint = "https://[a-z0-9]{1,20}(\\.[a-z]{2,5}){1,3}/[A-Za-z0-9_-]{1,20}";
    let region = proptest::option::of("[a-z]{2}-[a-z]{4,9}-[1-9]");
    ("[!-~]{1,64}", endpoint, region, "[!-~]{1,64}", 1_u64..4_000_000_000).prop_filter_map(
        "not an id",
        |(id, endpoint, region, correlation, expiry)| {
            let endpoint: Endpoint = endpoint.parse().ok()?;
            let endpoint = match region {
                Some(region) => endpoint.with_region(Region::new(region).ok()?),
                None => endpoint,
            };
            let correlation = CorrelationId::new(correlation).ok()?;
            Some(ReplyAddress::new(ConnectionId::new(id).ok()?, endpoint, correlation, at(expiry)))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sealed_is_opened(address in addresses(), secret in any::<[u8; 40]>()) {
        let keys = Keys::new("k", secret).unwrap();
        let sealed = address.seal(&keys);
        let now = address.expires_at() - Duration::from_secs(1);
        prop_assert_eq!(sealed.open(&keys, now).unwrap(), address.clone());
        prop_assert_eq!(address.unsigned().open_unchecked(now).unwrap(), address);
    }

    #[test]
    fn no_flip_of_a_bit_goes_unnoticed(address in addresses()) {
        let keys = keys();
        let sealed = address.seal(&keys);
        for at in 0..sealed.as_str().len() {
            for bit in 0..8 {
                let mut bytes = sealed.as_str().as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                // What is not text any more does not become an address at all.
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let opened = SealedAddress::from(text).open(&keys, UNIX_EPOCH);
                prop_assert!(opened.is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn any_text_is_opened_or_refused(text in ".{0,300}", dotted in "1\\.[a-z]{0,3}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}") {
        for text in [text, dotted] {
            prop_assert!(SealedAddress::from(text.clone()).open(&keys(), UNIX_EPOCH).is_err());
            let _ = SealedAddress::from(text).open_unchecked(UNIX_EPOCH);
        }
    }
}
