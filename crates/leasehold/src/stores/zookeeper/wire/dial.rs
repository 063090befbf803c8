//! A byte stream to one member of the ensemble, and the handshake on it.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Failure;
use super::message::{self, Credentials};
use crate::error::ErrorKind;
use crate::stores::zookeeper::config::{Config, Member, Tls};

/// The longest first answer: it has some 40 bytes. Whoever sends more does not speak ZooKeeper.
const HANDSHAKE_MAX: u32 = 1024;

/// The longest answer to a four-letter word.
const WORD_MAX: u64 = 64 * 1024;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What to say to a member.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) resumed: Option<Credentials>,
    pub(super) timeout_ms: i32,
    pub(super) last_zxid: i64,
}

/// A connection that carries a session.
pub(super) struct Connected {
    pub(super) stream: Box<dyn Stream>,
    pub(super) session: Credentials,
    pub(super) timeout_ms: i32,
}

/// Connects to one member and opens a session, or takes it up again.
pub(super) async fn dial(
    config: &Config,
    member: &Member,
    hello: &Hello,
) -> Result<Connected, Failure> {
    let mut stream = reach(config, member).await?;
    let mut frames =
        message::connect_frame(hello.resumed.as_ref(), hello.timeout_ms, hello.last_zxid);
    if let Some(secret) = config.digest() {
        frames.extend(message::auth_frame("digest", secret.as_bytes()));
    }
    stream.write_all(&frames).await.map_err(cut)?;
    let length = stream.read_u32().await.map_err(cut)?;
    if length > HANDSHAKE_MAX {
        return Err(Failure::foreign());
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.map_err(cut)?;
    match message::connected(&answer).map_err(|_| Failure::foreign())? {
        Some((session, timeout_ms)) => Ok(Connected { stream, session, timeout_ms }),
        None => Err(Failure::Ended),
    }
}

async fn reach(config: &Config, member: &Member) -> Result<Box<dyn Stream>, Failure> {
    let plain = TcpStream::connect((member.host.as_str(), member.port)).await.map_err(cut)?;
    plain.set_nodelay(true).map_err(cut)?;
    match &config.tls {
        None => Ok(Box::new(plain)),
        Some(tls) => secure(plain, &member.host, tls).await,
    }
}

/// Says one of the four-letter words, which are no part of the protocol, to a member: its answer.
pub(in super::super) async fn say(
    config: &Config,
    member: &Member,
    word: &str,
) -> Result<String, Failure> {
    let mut stream = reach(config, member).await?;
    stream.write_all(word.as_bytes()).await.map_err(cut)?;
    let mut answer = Vec::new();
    stream.take(WORD_MAX).read_to_end(&mut answer).await.map_err(cut)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn secure(stream: TcpStream, host: &str, tls: &Tls) -> Result<Box<dyn Stream>, Failure> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        let detail = format!("{host:?} is not a name that a certificate can have");
        Failure::refused(ErrorKind::Invalid, detail).because(error)
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
        return Err(Failure::refused(ErrorKind::Invalid, detail));
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
        return Err(Failure::refused(ErrorKind::Denied, detail));
    }
    Ok(roots.clone())
}

fn cut(error: io::Error) -> Failure {
    Failure::unreachable("no connection; is the server running, and reachable?").because(error)
}

fn unreadable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    let detail = format!("{} cannot be used", path.display());
    Failure::refused(ErrorKind::Invalid, detail).because(error)
}

fn bad_identity(error: rustls::Error) -> Failure {
    Failure::refused(ErrorKind::Invalid, "the client certificate cannot be used").because(error)
}

fn untrusted(error: io::Error) -> Failure {
    let certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    let failure = if certificate {
        let detail = "the server's certificate is not trusted; name its authority with `?ca=`";
        Failure::refused(ErrorKind::Denied, detail)
    } else {
        Failure::unreachable("no TLS connection; does this port speak TLS?")
    };
    failure.because(error)
}
