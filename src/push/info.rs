//! What API Gateway knows about a connection.

use std::net::IpAddr;
use std::time::SystemTime;

/// What API Gateway knows about an open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// When it was opened.
    pub connected_at: SystemTime,
    /// When a message last went in either direction.
    pub last_active_at: SystemTime,
    /// The client's address, where it is known.
    pub source_ip: Option<IpAddr>,
    /// What the client sent as `User-Agent`.
    pub user_agent: Option<String>,
}

impl ConnectionInfo {
    /// What is known about a connection that was opened and last active at these times.
    pub fn new(connected_at: SystemTime, last_active_at: SystemTime) -> Self {
        Self { connected_at, last_active_at, source_ip: None, user_agent: None }
    }

    /// Adds who the client is.
    #[must_use]
    pub fn with_client(mut self, source_ip: Option<IpAddr>, user_agent: Option<String>) -> Self {
        self.source_ip = source_ip;
        self.user_agent = user_agent;
        self
    }

    /// Reads the JSON of `@connections` (MGT-2). A time that is not one is 1970.
    #[cfg(any(feature = "direct", feature = "local"))]
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Info {
            connected_at: String,
            last_active_at: String,
            identity: Option<Identity>,
        }
        #[derive(Default, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Identity {
            source_ip: Option<String>,
            user_agent: Option<String>,
        }
        let Info { connected_at, last_active_at, identity } = serde_json::from_slice(json)?;
        let time = |text: &str| text.parse().map_or(SystemTime::UNIX_EPOCH, |time: jiff::Timestamp| time.into());
        let Identity { source_ip, user_agent } = identity.unwrap_or_default();
        Ok(Self::new(time(&connected_at), time(&last_active_at))
            .with_client(source_ip.and_then(|ip| ip.parse().ok()), user_agent.filter(|agent| !agent.is_empty())))
    }
}
