//! Pushing without the AWS SDK: signed requests over pooled connections.

mod signature;

use std::env;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use bytes::Bytes;
use futures_util::future::join;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use self::signature::{Signed, Signer, Unsigned};
use super::{ConnectionInfo, Endpoint, InvalidEndpoint, Payload, Push, PushError};
use crate::event::{ConnectionId, Region};

/// Answers of `@connections` are small.
const LARGEST_ANSWER: usize = 64 * 1024;
/// Shorter than the time after which API Gateway lets go of a connection that nobody uses.
const POOL_IDLE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// As the AWS SDKs encode a connection id in a path.
const ID: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("lambda_websocket/", env!("CARGO_PKG_VERSION")));

/// The transport without the AWS SDK: a quarter of the CPU time, a smaller binary, a shorter cold start.
///
/// Requests are signed by `aws-sigv4` with the derived key kept for as long as it is valid, and go over connections that
/// are kept: HTTP/2 where the endpoint offers it, otherwise HTTP/1.1. TLS is rustls on ring, which trusts the roots of the
/// `webpki-roots` crate. It connects with the first push, or when it is [warmed up](super::Pusher::warm_up).
///
/// Clones share connections and credentials.
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::Pusher;
/// use lambda_websocket::push::Direct;
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let pusher = Pusher::new(Direct::from_env()?);
/// pusher.warm_up().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Direct {
    client: HttpsClient,
    signer: Arc<Signer>,
    scheme: Scheme,
    authority: Authority,
    /// `/dev/@connections/`
    base: Arc<str>,
    endpoint: Endpoint,
    roots: Arc<RootCertStore>,
}

/// The environment lacks what signed requests need.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum NotConfigured {
    /// There is no usable endpoint, or no region.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls {
        /// Why not.
        source: rustls::Error,
    },
    /// There are no credentials.
    #[error(
        "the environment has no credentials: {missing} is not set; Lambda sets it, and elsewhere a credentials provider can \
         be given to `Direct::new`"
    )]
    Credentials {
        /// The variable that is not set.
        missing: &'static str,
    },
}

/// The same text as `Display`: it is what a `main` prints that returns the error.
impl fmt::Debug for NotConfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate cannot be trusted, since it is none.
#[derive(Debug, thiserror::Error)]
#[error("this is not a certificate in DER form")]
pub struct UntrustedRoot {
    source: rustls::Error,
}

impl Direct {
    /// A transport to this endpoint, with credentials from any provider of the AWS SDK.
    ///
    /// Credentials that expire are asked for again five minutes before. The region is that of the endpoint, otherwise
    /// `AWS_REGION`.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::NoRegion`] when neither the endpoint nor the environment names a region.
    pub fn new(endpoint: &Endpoint, provider: impl ProvideCredentials + 'static) -> Result<Self, NotConfigured> {
        let no_region = || InvalidEndpoint::NoRegion { url: endpoint.to_string() };
        let region = match endpoint.region() {
            Some(region) => region.clone(),
            None => env::var("AWS_REGION").ok().and_then(|region| Region::new(region).ok()).ok_or_else(no_region)?,
        };
        let unusable = || InvalidEndpoint::Url { url: endpoint.to_string(), expected: "a scheme and a host" };
        let uri: Uri = endpoint.as_str().parse().map_err(|_| unusable())?;
        let parts = uri.into_parts();
        let (scheme, authority) = parts.scheme.zip(parts.authority).ok_or_else(unusable)?;
        let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/');
        let roots = Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
        Ok(Self {
            client: client(&roots).map_err(|source| NotConfigured::Tls { source })?,
            signer: Arc::new(Signer::new(SharedCredentialsProvider::new(provider), region, host(&scheme, &authority))),
            base: format!("{path}/@connections/").into(),
            scheme,
            authority,
            endpoint: endpoint.clone(),
            roots,
        })
    }

    /// A transport to the [endpoint of the environment](Endpoint::from_env), with the credentials that Lambda puts there:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    ///
    /// Where a local gateway or an emulator is the endpoint, any credentials will do, but there must be some.
    ///
    /// # Errors
    ///
    /// [`NotConfigured`] says what to set.
    pub fn from_env() -> Result<Self, NotConfigured> {
        let endpoint = Endpoint::from_env()?;
        let variable = |name: &'static str| {
            env::var(name).ok().filter(|value| !value.is_empty()).ok_or(NotConfigured::Credentials { missing: name })
        };
        let credentials = Credentials::new(
            variable("AWS_ACCESS_KEY_ID")?,
            variable("AWS_SECRET_ACCESS_KEY")?,
            variable("AWS_SESSION_TOKEN").ok(),
            None,
            "environment",
        );
        Self::new(&endpoint, credentials)
    }

    /// Trusts this root certificate too, in DER form: that of an emulator, or of a proxy.
    ///
    /// # Errors
    ///
    /// [`UntrustedRoot`] when it is not a certificate.
    pub fn with_root_certificate(mut self, der: impl Into<Vec<u8>>) -> Result<Self, UntrustedRoot> {
        let mut roots = RootCertStore::clone(&self.roots);
        roots.add(CertificateDer::from(der.into())).map_err(|source| UntrustedRoot { source })?;
        self.roots = Arc::new(roots);
        self.client = client(&self.roots).map_err(|source| UntrustedRoot { source })?;
        Ok(self)
    }

    fn uri(&self, path: &str) -> Result<Uri, PushError> {
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path);
        uri.build().map_err(unreachable)
    }

    async fn call(
        &self,
        method: Method,
        connection_id: &ConnectionId,
        payload: Option<&Payload>,
    ) -> Result<Bytes, PushError> {
        let path = format!("{}{}", self.base, utf8_percent_encode(connection_id.as_str(), ID));
        let unsigned = Unsigned {
            method: match method {
                Method::POST => "POST",
                Method::DELETE => "DELETE",
                _ => "GET",
            },
            path: &path,
            payload_sha256: payload.map_or(EMPTY_SHA256, Payload::sha256),
        };
        let Signed { authorization, date, token } = self.signer.sign(&unsigned, SystemTime::now()).await?;
        let mut request = Request::new(Full::new(payload.map(|payload| payload.bytes().clone()).unwrap_or_default()));
        *request.uri_mut() = self.uri(&path)?;
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(DATE, date);
        if let Some(token) = token {
            headers.insert(TOKEN, token);
        }
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, OCTETS);
        }
        headers.insert(USER_AGENT, AGENT);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let (head, body) = self.answer(request).await?.into_parts();
        // Without a body there is nothing to wait for.
        let body = match body.is_end_stream() {
            true => Bytes::new(),
            false => Limited::new(body, LARGEST_ANSWER)
                .collect()
                .await
                .map_err(|source| PushError::Unreachable { source })?
                .to_bytes(),
        };
        if head.status == StatusCode::FORBIDDEN {
            self.signer.forget();
        }
        let error_type = head.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let size = payload.map_or(0, |payload| payload.bytes().len());
        match PushError::of_answer(connection_id, size, head.status, error_type, &body) {
            Some(error) => Err(error),
            None => Ok(body),
        }
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, PushError> {
        self.client.request(request).await.map_err(|error| match is_untrusted(&error) {
            true => PushError::Untrusted { source: Box::new(error) },
            false => unreachable(error),
        })
    }
}

fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> PushError {
    PushError::Unreachable { source: Box::new(error) }
}

type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

fn client(roots: &Arc<RootCertStore>) -> Result<HttpsClient, rustls::Error> {
    // Named, since a process that has two providers has no default.
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // Without it small frames of HTTP/2 wait for each other.
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .build(connector))
}

/// The `Host` header, which is signed: without the port that the scheme has by itself.
fn host(scheme: &Scheme, authority: &Authority) -> String {
    match (scheme.as_str(), authority.port_u16()) {
        ("https", Some(443)) | ("http", Some(80)) | (_, None) => authority.host().to_owned(),
        (_, Some(port)) => format!("{}:{port}", authority.host()),
    }
}

/// Whether the endpoint's certificate was refused, which does not pass.
fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
            return true;
        }
        // The source of an I/O error is that of its inner error, which would be left out.
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    false
}

#[async_trait]
impl Push for Direct {
    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        self.call(Method::POST, connection_id, Some(payload)).await.map(drop)
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        let body = self.call(Method::GET, connection_id, None).await?;
        ConnectionInfo::from_json(&body)
            .map_err(|source| PushError::Unexpected { status: StatusCode::OK, source: Box::new(source) })
    }

    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.call(Method::DELETE, connection_id, None).await.map(drop)
    }

    /// Asks the endpoint for `/ping`, which API Gateway reserves for itself; any answer will do.
    async fn warm_up(&self) -> Result<(), PushError> {
        let unsigned = Unsigned { method: "GET", path: "/ping", payload_sha256: EMPTY_SHA256 };
        let signing = self.signer.sign(&unsigned, SystemTime::now());
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.uri("/ping")?;
        request.headers_mut().insert(USER_AGENT, AGENT);
        let (signed, answer) = join(signing, self.answer(request)).await;
        signed?;
        // The connection can be used again when the answer has been read.
        let _ = Limited::new(answer?.into_body(), LARGEST_ANSWER).collect().await;
        Ok(())
    }
}

/// Leaves out the credentials.
impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}
