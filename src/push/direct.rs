//! Pushes without the AWS SDK: signed requests over pooled connections.

mod connections;
mod credentials;
mod not_configured;
mod proxy;
mod signature;

use std::env;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use bytes::Bytes;
use futures_util::future::join;
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::RootCertStore;

use self::connections::Connections;
use self::credentials::Keeper;
pub use self::not_configured::NotConfigured;
use self::signature::{Signed, Signer, Unsigned};
use super::roots::UntrustedRoot;
use super::{ConnectionInfo, Endpoint, InvalidEndpoint, Payload, Push, PushError};
use crate::event::{ConnectionId, Region};

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Encodes a connection id in a path as the AWS SDKs do.
const ID: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("lambda_websocket/", env!("CARGO_PKG_VERSION")));

/// A transport without the AWS SDK: less CPU, a smaller binary, a shorter cold start.
///
/// It takes a quarter of the CPU time of the SDK. `aws-sigv4` signs the requests, and the derived
/// key is kept for as long as it is valid. Connections are pooled: HTTP/2 if the endpoint offers it
/// over TLS, otherwise HTTP/1.1. TLS is rustls on ring, which trusts the roots of the
/// `webpki-roots` crate. The transport connects at the first push, or when it is [warmed
/// up](super::Pusher::warm_up).
///
/// With HTTP/2 all pushes share one connection. The endpoint sets the maximum number of concurrent
/// requests; further ones queue. A connection on which an attempt timed out is not used again.
///
/// Credentials are renewed in the background, five minutes before they expire. When API Gateway
/// rejects them as expired or unknown, the transport asks the provider, at most once in ten
/// seconds, and repeats the push with the new ones. When it rejects a signature because the clock
/// is off by more than four minutes, the transport corrects the clock by the response's `Date`.
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
    connections: Connections,
    signer: Arc<Signer>,
    scheme: Scheme,
    authority: Authority,
    /// `/dev/@connections/`
    base: Arc<str>,
    endpoint: Endpoint,
}

impl Direct {
    /// Creates a transport to an endpoint, with credentials from any AWS SDK provider.
    ///
    /// The region is that of the endpoint, otherwise `AWS_REGION`.
    ///
    /// # Errors
    ///
    /// [`NotConfigured::Endpoint`] with [`InvalidEndpoint::NoRegion`] when neither the endpoint nor
    /// the environment names a region, and [`NotConfigured::Tls`].
    ///
    /// # Examples
    ///
    /// With an assumed role in the account of the API. The default features of `aws-config` bring
    /// the HTTP client for the role:
    ///
    #[cfg_attr(feature = "sdk", doc = "```no_run")]
    #[cfg_attr(not(feature = "sdk"), doc = "```text")]
    /// use aws_config::BehaviorVersion;
    /// use aws_config::sts::AssumeRoleProvider;
    /// use lambda_websocket::Pusher;
    /// use lambda_websocket::push::{Direct, Endpoint};
    ///
    /// # async fn pusher() -> Result<Pusher, Box<dyn std::error::Error>> {
    /// let base = aws_config::load_defaults(BehaviorVersion::latest()).await;
    /// let role = AssumeRoleProvider::builder("arn:aws:iam::123456789012:role/pushes").configure(&base).build().await;
    /// let pusher = Pusher::new(Direct::new(&Endpoint::from_env()?, role)?);
    /// # Ok(pusher)
    /// # }
    /// ```
    pub fn new(endpoint: &Endpoint, provider: impl ProvideCredentials + 'static) -> Result<Self, NotConfigured> {
        let keeper = Keeper::new(SharedCredentialsProvider::new(provider));
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let connections = Connections::new(roots).map_err(|source| NotConfigured::Tls { source: Box::new(source) })?;
        Self::build(endpoint, keeper, connections)
    }

    /// Creates a transport to another endpoint that shares connection pool, roots, and
    /// credentials.
    ///
    /// # Errors
    ///
    /// [`NotConfigured::Endpoint`] with [`InvalidEndpoint::NoRegion`] when neither the endpoint nor
    /// the environment names a region.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use lambda_websocket::{Pusher, push::{Direct, Endpoint}};
    /// # fn pushers(chat: &Endpoint, games: &Endpoint) -> Result<(), Box<dyn std::error::Error>> {
    /// let direct = Direct::from_env()?;
    /// let pushers = [chat, games].map(|endpoint| direct.at(endpoint).map(Pusher::new));
    /// # Ok(())
    /// # }
    /// ```
    pub fn at(&self, endpoint: &Endpoint) -> Result<Self, NotConfigured> {
        Self::build(endpoint, self.signer.keeper().clone(), self.connections.to_another_host())
    }

    fn build(endpoint: &Endpoint, keeper: Keeper, connections: Connections) -> Result<Self, NotConfigured> {
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
        Ok(Self {
            connections,
            // An `Endpoint` has no default port, as HTTP's `Host` has none.
            signer: Arc::new(Signer::new(keeper, region, authority.to_string())),
            base: format!("{path}/@connections/").into(),
            scheme,
            authority,
            endpoint: endpoint.clone(),
        })
    }

    /// Creates a transport to the [endpoint of the environment](Endpoint::from_env).
    ///
    /// The credentials are those that Lambda sets: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_SESSION_TOKEN`. A local gateway or an emulator accepts any credentials, but some must
    /// be set.
    ///
    /// # Errors
    ///
    /// [`NotConfigured::Endpoint`] when the endpoint is missing or invalid,
    /// [`NotConfigured::Credentials`] when a variable is not set, and [`NotConfigured::Tls`].
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

    /// Also trusts this root certificate in DER form, such as an emulator's or a proxy's.
    ///
    /// # Errors
    ///
    /// [`UntrustedRoot`] when the bytes are not a certificate.
    pub fn with_root_certificate(mut self, der: impl Into<Vec<u8>>) -> Result<Self, UntrustedRoot> {
        self.connections = self.connections.with_root_certificate(der.into())?;
        Ok(self)
    }

    /// Reaches the endpoint through an HTTP proxy.
    ///
    /// The URL is like `http://proxy.internal:3128` or `http://user:password@proxy.internal:3128`. The
    /// transport sends `CONNECT`, so the proxy does not see the requests. An endpoint without TLS,
    /// such as an emulator's, is reached directly. The proxy does not apply to the credentials
    /// provider.
    ///
    /// # Errors
    ///
    /// [`NotConfigured::Proxy`] when this is not the URL of such a proxy.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use lambda_websocket::push::{Direct, NotConfigured};
    /// # fn start() -> Result<(), NotConfigured> {
    /// let direct = Direct::from_env()?.with_proxy("http://proxy.internal:3128")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_proxy(mut self, url: &str) -> Result<Self, NotConfigured> {
        let proxies = Matcher::builder().all(url).build();
        let probe = Uri::from_static("https://execute-api.amazonaws.com");
        let is_usable = |proxy: Intercept| {
            proxy.uri().scheme() == Some(&Scheme::HTTP) && proxy.uri().host().is_some_and(|host| !host.is_empty())
        };
        if !proxies.intercept(&probe).is_some_and(is_usable) {
            return Err(NotConfigured::Proxy { expected: "`http://host:port`, or `http://user:password@host:port`" });
        }
        self.connections = self.connections.with_proxies(proxies);
        Ok(self)
    }

    /// Reaches the endpoint through the proxy of `HTTPS_PROXY` or `ALL_PROXY`.
    ///
    /// Hosts in `NO_PROXY` are reached directly. The lower-case names of the variables count, too.
    /// Without any of them nothing changes. Otherwise it works as [`with_proxy`](Self::with_proxy)
    /// does.
    #[must_use]
    pub fn with_proxy_from_env(mut self) -> Self {
        self.connections = self.connections.with_proxies(Matcher::from_env());
        self
    }

    fn uri(&self, path: String) -> Result<Uri, PushError> {
        let path = PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(unreachable)?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(unreachable)
    }

    async fn call(
        &self,
        method: Method,
        connection_id: &ConnectionId,
        payload: Option<&Payload>,
    ) -> Result<Bytes, PushError> {
        let path = format!("{}{}", self.base, utf8_percent_encode(connection_id.as_str(), ID));
        let (number, error) = match self.attempt(&method, &path, connection_id, payload).await? {
            Answer::Taken(body) => return Ok(body),
            Answer::Refused(error) => return Err(error),
            Answer::NotSigned { number, date, error } => {
                if date.is_some_and(|date| self.signer.keeper().set_clock(&date)) {
                    (None, error)
                } else {
                    (Some(number), error)
                }
            }
        };
        if let Some(number) = number {
            let keeper = self.signer.keeper();
            if !keeper.renew(number, keeper.now()).await {
                return Err(error);
            }
        }
        match self.attempt(&method, &path, connection_id, payload).await? {
            Answer::Taken(body) => Ok(body),
            Answer::Refused(error) | Answer::NotSigned { error, .. } => Err(error),
        }
    }

    /// Signs and sends one request.
    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        connection_id: &ConnectionId,
        payload: Option<&Payload>,
    ) -> Result<Answer, PushError> {
        let unsigned = Unsigned {
            method: match *method {
                Method::POST => "POST",
                Method::DELETE => "DELETE",
                _ => "GET",
            },
            path,
            payload_sha256: payload.map_or(EMPTY_SHA256, Payload::sha256),
        };
        let Signed { authorization, date, token, number } =
            self.signer.sign(&unsigned, self.signer.keeper().now()).await?;
        let mut request = Request::new(Full::new(payload.map(|payload| payload.bytes().clone()).unwrap_or_default()));
        *request.uri_mut() = self.uri(path.to_owned())?;
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(X_AMZ_DATE, date);
        if let Some(token) = token {
            headers.insert(TOKEN, token);
        }
        if *method == Method::POST {
            headers.insert(CONTENT_TYPE, OCTETS);
        }
        headers.insert(USER_AGENT, AGENT);
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers;
        let (head, body) = self.connections.call(request).await?.into_parts();
        let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        let error_type = text(ERROR_TYPE);
        let size = payload.map_or(0, |payload| payload.bytes().len());
        Ok(match PushError::from_response(connection_id, size, head.status, error_type, &body) {
            None => Answer::Taken(body),
            Some(error) if error.is_about_signature() => {
                Answer::NotSigned { number, date: text(DATE).map(str::to_owned), error }
            }
            Some(error) => Answer::Refused(error),
        })
    }
}

/// The outcome of one request.
enum Answer {
    Taken(Bytes),
    Refused(PushError),
    /// API Gateway rejected the credentials of this number, or the time of the signature.
    NotSigned {
        number: u64,
        date: Option<String>,
        error: PushError,
    },
}

fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> PushError {
    PushError::Unreachable { source: Box::new(error) }
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

    /// Requests `/ping`, which API Gateway reserves for itself; any response will do.
    async fn warm_up(&self) -> Result<(), PushError> {
        let unsigned = Unsigned { method: "GET", path: "/ping", payload_sha256: EMPTY_SHA256 };
        let signing = self.signer.sign(&unsigned, self.signer.keeper().now());
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.uri("/ping".to_owned())?;
        request.headers_mut().insert(USER_AGENT, AGENT);
        let (signed, answer) = join(signing, self.connections.call(request)).await;
        signed?;
        answer.map(drop)
    }
}

/// Leaves out the credentials.
impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}
