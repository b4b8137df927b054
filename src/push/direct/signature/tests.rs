//! Tests against the signatures that AWS publishes.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;

use super::*;

const EMPTY: &str = super::super::EMPTY_SHA256;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn region() -> Region {
    Region::new("us-east-1").unwrap()
}

/// The vectors are AWS's test suite of Signature Version 4; every copy of it contains its key.
#[test]
fn mgt_8_aws_sigv4_test_vectors_pass() {
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
        let held = Arc::new(Held { number: 0, credentials });
        let kept = Kept::new(held, &region(), "service", now).unwrap();
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

/// AWS's test vector for a path that is encoded twice is a path of `@connections`.
#[test]
fn mgt_1_and_8_canonical_path_is_encoded_twice() {
    let path = "/test/@connections/JBDvjfGEIAMCERw%3D";
    assert_eq!(utf8_percent_encode(path, PATH).to_string(), "/test/%40connections/JBDvjfGEIAMCERw%253D");
}

#[tokio::test]
async fn signing_key_changes_daily() {
    let credentials = Credentials::new("ID", "secret", None, None, "test");
    let signer = Signer::new(Keeper::new(SharedCredentialsProvider::new(credentials)), region(), "h".to_owned());
    let request = Unsigned { method: "GET", path: "/", payload_sha256: EMPTY };
    let scope = async |seconds| {
        let signed = signer.sign(&request, at(seconds)).await.unwrap();
        signed.authorization.to_str().unwrap().split('/').nth(1).unwrap().to_owned()
    };
    assert_eq!(scope(1_440_979_199).await, "20150830");
    assert_eq!(scope(1_440_979_200).await, "20150831");
    assert_eq!(scope(1_440_979_199).await, "20150830", "a clock may go back");
}
