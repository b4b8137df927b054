//! The URL at which an API's connections are reached.

use std::env;
use std::fmt;
use std::str::FromStr;

use http::Uri;

use crate::event::{ApiId, Region, RequestContext, Stage};

/// The base URL under which an API serves `/@connections`.
///
/// | constructor | built from | use it when |
/// |---|---|---|
/// | [`new`](Self::new) | API id, region, stage | the API's default endpoint is enabled |
/// | [`from_context`](Self::from_context) | the event's host and stage | the client did not use a custom domain |
/// | [`custom_domain`](Self::custom_domain) | domain, mapping key | the domain has that mapping |
/// | [`from_env`](Self::from_env) | the environment | the environment sets it |
/// | [`parse`](str::parse) | a URL | you have the URL |
///
/// See
/// [`@connections`](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html).
///
/// # Examples
///
/// ```
/// use lambda_websocket::push::Endpoint;
///
/// // What the console shows as connection URL, and what clients connect to, both work.
/// let endpoint: Endpoint = "wss://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/dev/".parse()?;
/// assert_eq!(endpoint.as_str(), "https://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/dev");
/// assert_eq!(endpoint.region().unwrap().as_str(), "eu-west-1");
/// # Ok::<(), lambda_websocket::push::InvalidEndpoint>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    url: String,
    region: Option<Region>,
    /// The API and stage of the endpoint, from its host and path or from
    /// [`for_api`](Self::for_api).
    api: Option<(ApiId, Stage)>,
    /// Whether it is the default endpoint of an API, whose host and path name the API and the
    /// stage.
    is_default: bool,
}

/// The endpoint is missing or invalid.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEndpoint {
    /// The environment does not name an endpoint.
    #[error(
        "the environment has no endpoint: set API_GATEWAY_ID, AWS_REGION and STAGE ({missing} missing), or \
         AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"
    )]
    NotInEnvironment {
        /// The variables that are not set.
        missing: String,
    },
    /// An environment variable has an invalid value.
    #[error("the environment variable {variable} is not usable: {reason}")]
    Variable {
        /// The name of the variable.
        variable: &'static str,
        /// Why the value is invalid.
        reason: String,
    },
    /// Neither the endpoint nor the environment names a region to sign for.
    #[error("no region to sign for: the endpoint {url} does not name one, so set AWS_REGION")]
    NoRegion {
        /// The endpoint without a region.
        url: String,
    },
    /// The URL of the endpoint is invalid.
    #[error("the endpoint {url:?} is not usable: {expected}")]
    Url {
        /// The invalid URL, without its query and fragment.
        url: String,
        /// The expected form of the URL.
        expected: &'static str,
    },
}

/// Same output as `Display`, because `main` prints the `Debug` form of an error that it returns.
impl fmt::Debug for InvalidEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Endpoint {
    /// Creates the default endpoint of an API, in the partition of its region.
    pub fn new(api_id: &ApiId, region: &Region, stage: &Stage) -> Self {
        let suffix = dns_suffix(region);
        Self {
            url: format!("https://{api_id}.execute-api.{region}.{suffix}/{stage}"),
            region: Some(region.clone()),
            api: Some((api_id.clone(), stage.clone())),
            is_default: true,
        }
    }

    /// Creates the endpoint from the host and stage of an event.
    ///
    /// A host with a port is taken for a local gateway and reached by plain HTTP, because API
    /// Gateway's own hosts have no port. Behind a custom domain the endpoint is right only if the
    /// mapping key equals the stage. Otherwise use [`custom_domain`](Self::custom_domain), or
    /// [`new`](Self::new) with the event's API id.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] when the event's host is invalid.
    pub fn from_context(context: &RequestContext) -> Result<Self, InvalidEndpoint> {
        Ok(Self::from_host(&context.domain_name, &context.stage)?
            .for_api(context.api_id.clone(), context.stage.clone()))
    }

    /// Creates the endpoint from a host and a stage, as [`from_context`](Self::from_context) does.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] when the host is invalid.
    pub fn from_host(host: &str, stage: &Stage) -> Result<Self, InvalidEndpoint> {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let scheme = if has_port { "http" } else { "https" };
        format!("{scheme}://{host}/{stage}").parse()
    }

    /// Creates the endpoint of a gateway on this machine.
    #[cfg(feature = "local")]
    pub(crate) fn local(address: std::net::SocketAddr, stage: &Stage) -> Self {
        let region = Region::new("us-east-1").ok();
        Self { url: format!("http://{address}/{stage}"), region, api: None, is_default: false }
    }

    /// Creates the endpoint of a custom domain.
    ///
    /// The mapping key takes the place of the stage, and may be empty.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::Url`] when the domain or the mapping key is invalid.
    pub fn custom_domain(domain: &str, mapping_key: &str) -> Result<Self, InvalidEndpoint> {
        format!("https://{domain}/{mapping_key}").parse()
    }

    /// Reads the endpoint from the environment.
    ///
    /// It uses the first of these that is set: `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI`,
    /// `AWS_ENDPOINT_URL`, and `API_GATEWAY_ID` with `AWS_REGION` and `STAGE`. Lambda itself sets
    /// `AWS_REGION`. Next to a URL, `API_GATEWAY_ID` and `STAGE` state its [API and
    /// stage](Self::for_api).
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::NotInEnvironment`] when variables are missing,
    /// [`InvalidEndpoint::Variable`] when one has an invalid value.
    pub fn from_env() -> Result<Self, InvalidEndpoint> {
        Self::from_variables(|name| env::var(name).ok())
    }

    /// Reads the endpoint as [`from_env`](Self::from_env) does, with a function that looks up
    /// variables.
    ///
    /// # Errors
    ///
    /// [`InvalidEndpoint::NotInEnvironment`] when variables are missing,
    /// [`InvalidEndpoint::Variable`] when one has an invalid value.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidEndpoint> {
        let lookup = |name: &'static str| lookup(name).filter(|value| !value.is_empty());
        for variable in ["AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", "AWS_ENDPOINT_URL"] {
            if let Some(url) = lookup(variable) {
                let endpoint: Self = url.parse().map_err(|error: InvalidEndpoint| InvalidEndpoint::Variable {
                    variable,
                    reason: error.to_string(),
                })?;
                let region = lookup("AWS_REGION").and_then(|region| Region::new(region).ok());
                let endpoint = Self { region: endpoint.region.or(region), ..endpoint };
                return match (lookup("API_GATEWAY_ID"), lookup("STAGE")) {
                    (Some(api_id), Some(stage)) => {
                        Ok(endpoint
                            .for_api(self::variable("API_GATEWAY_ID", &api_id)?, self::variable("STAGE", &stage)?))
                    }
                    _ => Ok(endpoint),
                };
            }
        }
        match (lookup("API_GATEWAY_ID"), lookup("AWS_REGION"), lookup("STAGE")) {
            (Some(api_id), Some(region), Some(stage)) => Ok(Self::new(
                &variable("API_GATEWAY_ID", &api_id)?,
                &variable("AWS_REGION", &region)?,
                &variable("STAGE", &stage)?,
            )),
            (api_id, region, stage) => {
                let missing = [("API_GATEWAY_ID", api_id), ("AWS_REGION", region), ("STAGE", stage)];
                let missing: Vec<&str> =
                    missing.into_iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
                Err(InvalidEndpoint::NotInEnvironment { missing: missing.join(", ") })
            }
        }
    }

    /// Returns the URL, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Returns the API and the stage of this endpoint, if they are known.
    ///
    /// They are known for a default endpoint, whose host and path name them, for the endpoint of an
    /// event, and after [`for_api`](Self::for_api).
    pub fn api(&self) -> Option<(&ApiId, &Stage)> {
        self.api.as_ref().map(|(api_id, stage)| (api_id, stage))
    }

    /// Sets the API and stage of this endpoint, such as that of a custom domain.
    ///
    /// A default endpoint keeps the API and stage that it names.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::event::{ApiId, Stage};
    /// use lambda_websocket::push::Endpoint;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (api_id, stage) = (ApiId::new("a1b2c3d4e5")?, Stage::new("prod")?);
    /// let endpoint = Endpoint::custom_domain("ws.example.com", "chat")?
    ///     .for_api(api_id.clone(), stage.clone());
    /// assert_eq!(endpoint.api(), Some((&api_id, &stage)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_api(mut self, api_id: ApiId, stage: Stage) -> Self {
        if !self.is_default {
            self.api = Some((api_id, stage));
        }
        self
    }

    /// Returns whether this is an API's default endpoint, which reaches no other API's connections.
    #[cfg(feature = "hub")]
    pub(crate) fn is_default(&self) -> bool {
        self.is_default
    }

    /// Sets the region to sign for, such as that of a custom domain.
    ///
    /// The URL of a custom domain does not name a region.
    #[must_use]
    pub fn with_region(mut self, region: Region) -> Self {
        self.region = Some(region);
        self
    }

    /// Returns the region to sign for, if the URL or the environment names one.
    pub fn region(&self) -> Option<&Region> {
        self.region.as_ref()
    }
}

fn variable<T>(variable: &'static str, value: &str) -> Result<T, InvalidEndpoint>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    value.parse().map_err(|error: T::Err| InvalidEndpoint::Variable { variable, reason: error.to_string() })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    /// Parses a URL.
    ///
    /// `wss://` becomes `https://`. The default port of the scheme, and `/` or `/@connections` at
    /// the end, are removed.
    fn from_str(url: &str) -> Result<Self, InvalidEndpoint> {
        // The query or fragment of an invalid URL can contain credentials or a token, so the error
        // omits it.
        let shown = url.split(['?', '#']).next().unwrap_or_default();
        let refuse = |expected| InvalidEndpoint::Url { url: shown.to_owned(), expected };
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(refuse("expected `https://` at its start, or `http://` for a gateway on this machine"));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" | "wss" => "https",
            "http" | "ws" => "http",
            _ => return Err(refuse("expected `https://` at its start, or `http://` for a gateway on this machine")),
        };
        if rest.contains(['?', '#']) {
            return Err(refuse("expected no query and no fragment"));
        }
        let mut rest = rest.trim_end_matches('/');
        while let Some(stage) = ["/@connections", "/%40connections"].iter().find_map(|end| rest.strip_suffix(end)) {
            rest = stage.trim_end_matches('/');
        }
        // The signature covers the host without the default port, so the request also leaves it
        // out.
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let own_port = if scheme == "https" { ":443" } else { ":80" };
        let normal = format!("{scheme}://{}{path}", authority.strip_suffix(own_port).unwrap_or(authority));
        let uri: Uri = normal.parse().map_err(|_| refuse("expected a host and a path"))?;
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(refuse("expected a host"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(InvalidEndpoint::Url { url: "…".to_owned(), expected: "expected no user and no password" });
        }
        let region = default_endpoint_region(host);
        let path = uri.path().trim_matches('/');
        if region.is_some() && path.is_empty() {
            return Err(refuse("expected the stage after the host, as in `https://<host>/<stage>`"));
        }
        let api_id = host.split('.').next().filter(|_| region.is_some()).and_then(|label| ApiId::new(label).ok());
        let api = api_id.zip(Stage::new(path).ok());
        Ok(Self { is_default: api.is_some(), api, url: normal, region })
    }
}

/// Returns the region of a host such as `a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com`.
fn default_endpoint_region(host: &str) -> Option<Region> {
    let mut labels = host.split('.').skip_while(|label| !label.starts_with("execute-api"));
    labels.next()?;
    let region = Region::new(labels.next()?).ok()?;
    let suffix: Vec<&str> = labels.collect();
    (suffix.join(".") == dns_suffix(&region)).then_some(region)
}

/// Returns the DNS suffix of a region's partition.
fn dns_suffix(region: &Region) -> &'static str {
    const PARTITIONS: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("eusc-", "amazonaws.eu"),
    ];
    PARTITIONS
        .into_iter()
        .find(|(prefix, _)| region.as_str().starts_with(prefix))
        .map_or("amazonaws.com", |(_, suffix)| suffix)
}
