//! The status of a connection.

use std::net::IpAddr;
use std::time::SystemTime;

/// The status of an open connection, as API Gateway reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// When the connection was opened.
    pub connected_at: SystemTime,
    /// When the last message was sent in either direction.
    pub last_active_at: SystemTime,
    /// The client's address, if it is known.
    pub source_ip: Option<IpAddr>,
    /// The client's `User-Agent` header.
    pub user_agent: Option<String>,
}

impl ConnectionInfo {
    /// Creates the status of a connection from the times of its opening and its last message.
    pub fn new(connected_at: SystemTime, last_active_at: SystemTime) -> Self {
        Self { connected_at, last_active_at, source_ip: None, user_agent: None }
    }

    /// Adds the client's address and user agent.
    #[must_use]
    pub fn with_client(mut self, source_ip: Option<IpAddr>, user_agent: Option<String>) -> Self {
        self.source_ip = source_ip;
        self.user_agent = user_agent;
        self
    }

    /// Parses the JSON of `@connections` (MGT-2). Unparsable timestamps become the Unix epoch.
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
