//! Verifies the AWS signatures of calls of `@connections` (MGT-8).
//!
//! `aws-sigv4` computes the expected signature from the received request.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::identity::Identity;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use jiff::civil::DateTime;
use subtle::ConstantTimeEq as _;

use super::super::rules::Refusal;

const SERVICE: &str = "execute-api";
/// The maximum age of a signature, and how far ahead it may be.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// The only key pair that may call `@connections`.
pub(crate) struct Keys {
    id: String,
    identity: Identity,
}

/// The parts of an `Authorization` header.
struct Claimed<'a> {
    key_id: &'a str,
    region: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl Keys {
    pub(crate) fn new(id: String, secret: String) -> Self {
        let identity = Credentials::new(id.clone(), secret, None, None, "local").into();
        Self { id, identity }
    }

    /// Checks the signature of a request that has been read completely.
    pub(super) fn check(&self, request: &Parts, body: &[u8], now: SystemTime) -> Result<(), Refusal> {
        let header = request.headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let header =
            header.ok_or_else(|| refusal("MissingAuthenticationTokenException", "Missing Authentication Token"))?;
        let (claimed, date) = Claimed::parse(header).zip(date(request)).ok_or_else(|| {
            refusal("IncompleteSignatureException", "The Authorization header or X-Amz-Date is not complete.")
        })?;
        if claimed.key_id != self.id {
            let text = "The security token included in the request is invalid.";
            return Err(refusal("UnrecognizedClientException", text));
        }
        let away = now.duration_since(date).or_else(|_| date.duration_since(now)).unwrap_or_default();
        if away > SKEW {
            return Err(refusal("InvalidSignatureException", "Signature expired"));
        }
        let signature = self.signature(request, body, &claimed, date).unwrap_or_default();
        match bool::from(signature.as_bytes().ct_eq(claimed.signature.as_bytes())) {
            true => Ok(()),
            false => Err(refusal(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method.",
            )),
        }
    }

    /// Returns the expected signature of the request, or `None` if it cannot have one.
    fn signature(&self, request: &Parts, body: &[u8], claimed: &Claimed<'_>, date: SystemTime) -> Option<String> {
        let mut headers = Vec::new();
        for name in claimed.signed_headers.iter().copied().filter(|name| *name != "x-amz-date") {
            for value in request.headers.get_all(name) {
                headers.push((name, value.to_str().ok()?));
            }
        }
        let host = request.headers.get(HOST)?.to_str().ok()?;
        let uri = format!("http://{host}{}", request.uri.path_and_query()?);
        let signable =
            SignableRequest::new(request.method.as_str(), uri, headers.into_iter(), SignableBody::Bytes(body)).ok()?;
        let params = SigningParams::builder()
            .identity(&self.identity)
            .region(claimed.region)
            .name(SERVICE)
            .time(date)
            .settings(SigningSettings::default())
            .build()
            .ok()?;
        sign(signable, &params.into()).ok().map(|signed| signed.signature().to_owned())
    }
}

impl<'a> Claimed<'a> {
    /// `AWS4-HMAC-SHA256 Credential=<id>/<date>/<region>/<service>/aws4_request, SignedHeaders=…, Signature=…`
    fn parse(header: &'a str) -> Option<Self> {
        let fields = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        let mut scope = field("Credential")?.rsplitn(5, '/');
        let (request, service, region) = (scope.next()?, scope.next()?, scope.next()?);
        let (_date, key_id) = (scope.next()?, scope.next()?);
        let signed_headers: Vec<&str> = field("SignedHeaders")?.split(';').collect();
        let is_right = request == "aws4_request" && service == SERVICE && signed_headers.contains(&"host");
        is_right.then_some(Self { key_id, region, signed_headers, signature: field("Signature")? })
    }
}

fn date(request: &Parts) -> Option<SystemTime> {
    let text = request.headers.get("x-amz-date")?.to_str().ok()?;
    let date = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(SystemTime::from)
}

fn refusal(error_type: &'static str, message: &str) -> Refusal {
    let body = serde_json::json!({"message": message}).to_string();
    Refusal { status: 403, error_type: Some(error_type), body }
}
