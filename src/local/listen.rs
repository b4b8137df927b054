//! Binds the addresses that the gateway listens on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use super::StartError;

/// The maximum number of clients that wait to be accepted.
///
/// All execution environments of an account may push at once while clients connect.
#[cfg(unix)]
const BACKLOG: i32 = 4096;

/// Binds every address of a name that this machine has, on the same port.
pub(super) fn listen(address: impl ToSocketAddrs) -> Result<Vec<TcpListener>, StartError> {
    let unresolved = |source| StartError::Listen { address: "the address".to_owned(), source };
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(unresolved)?.collect();
    let listen = |source| {
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        StartError::Listen { address: addresses.join(" and "), source }
    };
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut missing = None;
    for address in &addresses {
        // If the first address picks a free port, the others use the same one.
        let port = listeners.first().and_then(|first| first.local_addr().ok()).map(|first| first.port());
        let port = port.filter(|_| address.port() == 0).unwrap_or(address.port());
        match TcpListener::bind(SocketAddr::new(address.ip(), port)) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => missing = Some(error),
            Err(error) => return Err(listen(error)),
        }
    }
    if listeners.is_empty() {
        return Err(listen(missing.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))));
    }
    for listener in &listeners {
        listener.set_nonblocking(true).map_err(listen)?;
        // The default of the standard library is 128.
        #[cfg(unix)]
        rustix::net::listen(listener, BACKLOG).map_err(|error| listen(error.into()))?;
    }
    Ok(listeners)
}

/// Returns the address by which this machine reaches a listener.
///
/// For a listener on all interfaces, it is the loopback address.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}
