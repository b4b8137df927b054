//! Reads keys from Secrets Manager, through the AWS Parameters and Secrets Lambda Extension.
//!
//! The extension is a layer that serves HTTP on the function's own machine, so the function needs
//! no SDK. Secrets Manager rotates the keys: the new value becomes `AWSCURRENT`, and the previous
//! one `AWSPREVIOUS`.
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

/// Timeout for reading the secret, within the authorizer's five seconds if the extension hangs.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of a secret, with the JSON around it.
const MAX_BYTES: usize = 512 * 1024;

/// A secret that contains a key as a string.
pub struct KeySecret {
    client: Client<HttpConnector, Empty<Bytes>>,
    /// The extension's URL for this secret.
    url: String,
    token: String,
}

/// The part of the extension's response that is used.
#[derive(serde::Deserialize)]
struct Answer {
    #[serde(rename = "SecretString")]
    text: String,
}

impl KeySecret {
    /// Creates a reader for the secret with this name or ARN, at this process's extension.
    pub fn new(id: &str) -> Result<Self, String> {
        let token = env::var("AWS_SESSION_TOKEN").map_err(|_| "AWS_SESSION_TOKEN must be set, as Lambda does")?;
        let port = env::var("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT").unwrap_or_else(|_| "2773".to_owned());
        Ok(Self::at(&format!("localhost:{port}"), id, token))
    }

    /// Creates a reader for the secret with this name or ARN, at another extension.
    pub fn at(host: &str, id: &str, token: String) -> Self {
        let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let url = format!("http://{host}/secretsmanager/get?secretId={id}");
        Self { client: Client::builder(TokioExecutor::new()).build_http(), url, token }
    }

    /// Returns the current key, and the previous key if there is one.
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
            status => Err(format!("the extension returned {status} for {stage}").into()),
        }
    }
}
