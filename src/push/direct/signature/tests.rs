//! Signatures as AWS publishes them, and credentials that expire.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_credential_types::provider::{self, ProvideCredentials, error::CredentialsError, future};

use super::*;

const EMPTY: &str = super::super::EMPTY_SHA256;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn region() -> Region {
    Region::new("us-east-1").unwrap()
}

/// The vectors are AWS's test suite of Signature Version 4; its key is in every copy of it.
#[test]
fn mgt_8_the_vectors_that_aws_publishes_pass() {
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    for (name, method, path, token, expected) in [
        ("get-vanilla", "GET", "/", None, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("post-vanilla", "POST", "/", None, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "get-unreserved",
            "GET",
            "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            None,
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        ("get-utf8", "GET", "/\u{1234}", None, "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        (
            "get-vanilla-with-session-token",
            "GET",
            "/",
            Some(token),
            "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        ),
    ] {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", secret, token.map(str::to_owned), None, "test");
        let now = at(1_440_938_160);
        let kept = Kept::new(credentials, &region(), "service", now).unwrap();
        let request = Unsigned { method, path, payload_sha256: EMPTY };
        let signed = kept.sign("example.amazonaws.com", &request, now).unwrap();
        assert_eq!(signed.date, "20150830T123600Z");
        let headers = if token.is_some() { "host;x-amz-date;x-amz-security-token" } else { "host;x-amz-date" };
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={headers}, \
             Signature={expected}"
        );
        assert_eq!(signed.authorization.to_str().unwrap(), expected, "{name}");
        assert_eq!(signed.token.as_ref().map(|token| token.to_str().unwrap()), token);
        assert!(signed.authorization.is_sensitive());
    }
}

/// AWS's vector for a path that is encoded twice is a path of `@connections`.
#[test]
fn mgt_1_and_8_the_path_is_encoded_twice() {
    let path = "/test/@connections/JBDvjfGEIAMCERw%3D";
    assert_eq!(utf8_percent_encode(path, PATH).to_string(), "/test/%40connections/JBDvjfGEIAMCERw%253D");
}

/// Gives credentials that expire in an hour, numbered.
#[derive(Debug, Default)]
struct Hourly {
    given: Arc<AtomicU64>,
    clock: Arc<AtomicU64>,
    fails: Arc<AtomicU64>,
}

impl ProvideCredentials for Hourly {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let answer: provider::Result = match self.fails.load(Ordering::SeqCst) {
            0 => {
                let number = self.given.fetch_add(1, Ordering::SeqCst);
                let expiry = at(self.clock.load(Ordering::SeqCst) + 3600);
                Ok(Credentials::new(format!("KEY{number}"), "secret", None, Some(expiry), "test"))
            }
            _ => Err(CredentialsError::not_loaded("out of order")),
        };
        future::ProvideCredentials::ready(answer)
    }
}

#[tokio::test]
async fn credentials_are_asked_for_once_and_again_before_they_expire() {
    let provider = Hourly::default();
    let (given, clock, fails) = (Arc::clone(&provider.given), Arc::clone(&provider.clock), Arc::clone(&provider.fails));
    let signer = Signer::new(SharedCredentialsProvider::new(provider), region(), "h".to_owned());
    let start = 1_440_938_160;
    let key = async |seconds: u64| {
        let request = Unsigned { method: "GET", path: "/", payload_sha256: EMPTY };
        clock.store(start + seconds, Ordering::SeqCst);
        let signed = signer.sign(&request, at(start + seconds)).await?;
        let authorization = signed.authorization.to_str().unwrap().to_owned();
        Ok::<_, PushError>(authorization.split(['=', '/']).nth(1).unwrap().to_owned())
    };
    assert_eq!(key(0).await.unwrap(), "KEY0");
    assert_eq!(key(3299).await.unwrap(), "KEY0");
    assert_eq!(given.load(Ordering::SeqCst), 1);
    assert_eq!(key(3300).await.unwrap(), "KEY1", "five minutes before");
    assert_eq!(key(3301).await.unwrap(), "KEY1");
    fails.store(1, Ordering::SeqCst);
    assert_eq!(key(3300 + 3599).await.unwrap(), "KEY1", "they will do while they are valid");
    assert!(matches!(key(3300 + 3600).await, Err(PushError::Credentials { .. })));
    fails.store(0, Ordering::SeqCst);
    assert_eq!(key(3300 + 3601).await.unwrap(), "KEY2");
    signer.forget();
    assert_eq!(key(3300 + 3602).await.unwrap(), "KEY3", "what was refused is not used again");
    let many = futures_util::future::join_all((0..50).map(|_| key(20_000))).await;
    assert!(many.into_iter().all(|key| key.unwrap() == "KEY4"), "one asks for all");
}

#[tokio::test]
async fn the_next_day_has_another_key() {
    let credentials = Credentials::new("ID", "secret", None, None, "test");
    let signer = Signer::new(SharedCredentialsProvider::new(credentials), region(), "h".to_owned());
    let request = Unsigned { method: "GET", path: "/", payload_sha256: EMPTY };
    let scope = async |seconds| {
        let signed = signer.sign(&request, at(seconds)).await.unwrap();
        signed.authorization.to_str().unwrap().split('/').nth(1).unwrap().to_owned()
    };
    assert_eq!(scope(1_440_979_199).await, "20150830");
    assert_eq!(scope(1_440_979_200).await, "20150831");
    assert_eq!(scope(1_440_979_199).await, "20150830", "a clock may go back");
}
