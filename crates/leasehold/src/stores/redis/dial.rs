//! A byte stream to the server: TCP, TLS, or a Unix socket.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::config::{Address, Tls};
use super::failure::Failure;
use crate::error::ErrorKind;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(super) async fn dial(address: &Address) -> Result<Box<dyn Stream>, Failure> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?)),
        Address::Tcp { host, port, tls } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            match tls {
                None => Ok(Box::new(stream)),
                Some(tls) => secure(stream, host, tls).await,
            }
        }
    }
}

async fn secure(stream: TcpStream, host: &str, tls: &Tls) -> Result<Box<dyn Stream>, Failure> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        Failure::new(ErrorKind::Invalid, "the host is not a name that a certificate can have")
            .because(error)
    })?;
    let stream = TlsConnector::from(trust(tls)?).connect(name, stream).await;
    Ok(Box::new(stream.map_err(untrusted)?))
}

/// The provider is passed here, so that nobody has to install a default one for the process.
fn trust(tls: &Tls) -> Result<Arc<ClientConfig>, Failure> {
    let roots = match &tls.ca {
        Some(path) => from_file(path)?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad_identity)?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
            builder.with_client_auth_cert(chain, key).map_err(bad_identity)?
        }
    };
    Ok(Arc::new(config))
}

fn from_file(path: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unreadable(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, error))?;
    if found.is_empty() {
        let detail = format!("{} contains no certificate in PEM form", path.display());
        return Err(Failure::new(ErrorKind::Invalid, detail));
    }
    Ok(found)
}

/// The system's certificates, read once per process: reading them takes milliseconds.
fn system_roots() -> Result<RootCertStore, Failure> {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    if roots.is_empty() {
        let detail = "the system has no certificates to trust; name a file with `?ca=`";
        return Err(Failure::new(ErrorKind::Denied, detail));
    }
    Ok(roots.clone())
}

fn unreachable(error: io::Error) -> Failure {
    Failure::new(ErrorKind::Unavailable, "no connection; is the server running, and reachable?")
        .because(error)
}

fn unreadable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(ErrorKind::Invalid, format!("{} cannot be used", path.display())).because(error)
}

fn bad_identity(error: rustls::Error) -> Failure {
    Failure::new(ErrorKind::Invalid, "the client certificate cannot be used").because(error)
}

fn untrusted(error: io::Error) -> Failure {
    let certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    let failure = if certificate {
        Failure::new(
            ErrorKind::Denied,
            "the server's certificate is not trusted; name its authority with `?ca=`",
        )
    } else {
        Failure::new(ErrorKind::Unavailable, "no TLS connection; does this port speak TLS?")
    };
    failure.because(error)
}
