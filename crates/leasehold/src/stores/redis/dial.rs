//! A byte stream to the server: TCP, TLS, or a Unix socket.

use tokio::net::UnixStream;

use super::config::Address;
use crate::stores::dial::{self, Stream};
use crate::stores::tls::Failure;

pub(super) async fn dial(address: &Address) -> Result<Box<dyn Stream>, Failure> {
    match address {
        Address::Unix(path) => {
            Ok(Box::new(UnixStream::connect(path).await.map_err(dial::unreachable)?))
        }
        Address::Tcp { host, port, tls } => dial::dial(host, *port, tls.as_ref()).await,
    }
}
