//! A byte stream to a server, over TCP or over TLS.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::{self, Failure, Identity};
use crate::error::ErrorKind;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What a TLS connection trusts and shows. Files are read when connecting, so that certificates
/// can be exchanged while the process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Certificates to trust instead of the system's: the option `ca=`.
    pub(crate) ca: Option<PathBuf>,
    /// What to show to a server that asks who we are.
    pub(crate) identity: Option<Identity>,
}

/// Connects to `host`. The caller bounds the time.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    tls: Option<&Tls>,
) -> Result<Box<dyn Stream>, Failure> {
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(tls) => secure(stream, host, tls).await,
    }
}

async fn secure(stream: TcpStream, host: &str, tls: &Tls) -> Result<Box<dyn Stream>, Failure> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        let detail = format!("{host:?} is not a name that a certificate can have");
        Failure::new(ErrorKind::Invalid, detail).because(error)
    })?;
    let roots = tls::authorities(tls.ca.as_deref(), "ca")?;
    let config = tls::client(tls::provider())?.with_root_certificates(roots);
    let config = tls::showing(config, tls.identity.as_ref())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    Ok(Box::new(stream.map_err(untrusted)?))
}

/// No connection was made.
pub(crate) fn unreachable(error: io::Error) -> Failure {
    Failure::new(ErrorKind::Unavailable, "no connection; is the server running, and reachable?")
        .because(error)
}

fn untrusted(error: io::Error) -> Failure {
    let certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    let failure = if certificate {
        let detail = "the server's certificate is not trusted; name its authority with `?ca=`";
        Failure::new(ErrorKind::Denied, detail)
    } else {
        Failure::new(ErrorKind::Unavailable, "no TLS connection; does this port speak TLS?")
    };
    failure.because(error)
}
