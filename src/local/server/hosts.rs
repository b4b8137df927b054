//! Checks the host that a request is for, and the page that it comes from.
//!
//! A public API has no such rule. But every page in a developer's browser can reach a gateway on
//! their machine: by its address, and through DNS rebinding by the name of the page's own site.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

/// The custom host names of the gateway, besides local names and addresses.
#[derive(Debug, Default)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Returns whether this is a host of the gateway, with or without a port.
    ///
    /// An address is never the name of a site, so DNS rebinding cannot make a page's own name lead
    /// here.
    pub(super) fn has(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => host.split_once(':').map_or(host.as_str(), |(name, _)| name),
        };
        name == "localhost"
            || name.ends_with(".localhost")
            || name.parse::<IpAddr>().is_ok()
            || self.0.iter().any(|known| known == name)
    }

    /// Returns the only host that a request is for, or `None` without one or with several.
    pub(super) fn of(headers: &HeaderMap) -> Option<&str> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next()?.to_str().ok().filter(|host| !host.is_empty())?;
        hosts.next().is_none().then_some(host)
    }

    /// Returns whether a page of another site sends this request.
    pub(super) fn is_cross_site(&self, headers: &HeaderMap) -> bool {
        let is_foreign = |origin: &str| {
            let host = origin.split_once("://").map(|(_, host)| host);
            !host.is_some_and(|host| self.has(host))
        };
        let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        let fetch_site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        origin.is_some_and(is_foreign) || fetch_site == Some(b"cross-site")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mgt_5_host_must_be_loopback_or_allowed() {
        let hosts = Hosts::new(["Gateway.Test".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:3001",
            "app.localhost:1",
            "127.0.0.1:80",
            "[::1]:3001",
            "10.0.0.7",
            "gateway.test:1",
        ] {
            assert!(hosts.has(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:3001", "127.0.0.1.evil.example", "", "notlocalhost"] {
            assert!(!hosts.has(host), "{host}");
        }
    }
}
