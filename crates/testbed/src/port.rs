//! Ports for servers that must be told one.

use std::net::TcpListener;

/// A TCP port on which nothing listens right now. Somebody else may take it before its user does:
/// who starts a server on it tries again with another.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("no free port on 127.0.0.1");
    listener.local_addr().expect("a bound socket has an address").port()
}
