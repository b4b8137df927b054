//! The keys in a secret of Secrets Manager, through the AWS Parameters and Secrets Lambda Extension.
//!
//! The extension is a layer that answers on the function's own machine, so the function needs no SDK. Rotation is Secrets Manager's:
//! a new value becomes `AWSCURRENT`, and the one before it `AWSPREVIOUS`.
//!
//! See [the extension](https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets_lambda.html).

use std::env;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

type BoxError = Box<dyn Error + Send + Sync>;

/// For all of the secret, so that an extension that hangs does not use up the authorizer's five seconds.
const TIMEOUT: Duration = Duration::from_secs(2);
/// As much as a secret can have, with its JSON around it.
const MAX_BYTES: usize = 512 * 1024;

/// A secret that is a key as text.
pub struct KeySecret {
    client: Client<HttpConnector, Empty<Bytes>>,
    /// Where the extension answers about this secret.
    url: String,
    token: String,
}

/// The part of the extension's answer that is of interest.
#[derive(serde::Deserialize)]
struct Answer {
    #[serde(rename = "SecretString")]
    text: String,
}

impl KeySecret {
    /// The secret with this name or ARN, at the extension of this process.
    pub fn new(id: &str) -> Result<Self, String> {
        let token = env::var("AWS_SESSION_TOKEN").map_err(|_| "AWS_SESSION_TOKEN must be set, as Lambda does")?;
        let port = env::var("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT").unwrap_or_else(|_| "2773".to_owned());
        Ok(Self::at(&format!("localhost:{port}"), id, token))
    }

    /// The secret with this name or ARN, at an extension elsewhere.
    pub fn at(host: &str, id: &str, token: String) -> Self {
        let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let url = format!("http://{host}/secretsmanager/get?secretId={id}");
        Self { client: Client::builder(TokioExecutor::new()).build_http(), url, token }
    }

    /// The current key, and the one before it, if there was one.
    pub async fn keys(&self) -> Result<Vec<Vec<u8>>, BoxError> {
        let versions = async { tokio::try_join!(self.version("AWSCURRENT"), self.version("AWSPREVIOUS")) };
        let (current, previous) = timeout(TIMEOUT, versions).await??;
        Ok([Some(current.ok_or("the secret has no current value")?), previous].into_iter().flatten().collect())
    }

    async fn version(&self, stage: &str) -> Result<Option<Vec<u8>>, BoxError> {
        let request = Request::get(format!("{}&versionStage={stage}", self.url))
            .header("X-Aws-Parameters-Secrets-Token", &self.token)
            .body(Empty::new())?;
        let response = self.client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await?.to_bytes();
        match status {
            StatusCode::OK => Ok(Some(serde_json::from_slice::<Answer>(&body)?.text.into_bytes())),
            // A secret that was never rotated has no previous value.
            _ if stage == "AWSPREVIOUS" && String::from_utf8_lossy(&body).contains("ResourceNotFound") => Ok(None),
            status => Err(format!("the extension answers {status} when asked for {stage}").into()),
        }
    }
}
