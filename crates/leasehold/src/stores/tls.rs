//! What a TLS connection trusts and shows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WantsClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use crate::error::ErrorKind;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A certificate chain and its private key, each in a PEM file.
pub(crate) type Identity = (PathBuf, PathBuf);

/// Why there is no connection: a store makes its own failure of it. Nothing was sent.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) detail: String,
    pub(crate) source: Option<Source>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), source: None }
    }

    pub(super) fn because(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

/// The provider is named here, so that nobody has to install a default one for the process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The beginning of every configuration: how the server is verified comes next.
pub(crate) fn client(
    provider: Arc<CryptoProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Failure> {
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(
        |error| Failure::new(ErrorKind::Invalid, "no version of TLS is usable").because(error),
    )
}

/// The end of every configuration: what is shown to a server that asks who we are.
pub(crate) fn showing(
    config: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, Failure> {
    let Some((certificate, key)) = identity else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
    config.with_client_auth_cert(chain, secret).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        let detail = format!("{certificate} is not a client certificate for the key {key}");
        Failure::new(ErrorKind::Invalid, detail).because(error)
    })
}

/// The authorities to trust: those in the file `ca`, else the system's. `option` is what the URL
/// calls such a file.
pub(crate) fn authorities(ca: Option<&Path>, option: &str) -> Result<RootCertStore, Failure> {
    let Some(path) = ca else { return system_authorities(option) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unreadable(path, error))?;
    }
    Ok(roots)
}

/// The system's certificates, read once per process: reading them takes milliseconds.
fn system_authorities(option: &str) -> Result<RootCertStore, Failure> {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    if roots.is_empty() {
        let detail =
            format!("the system has no certificates to trust; name a file with `{option}=`");
        return Err(Failure::new(ErrorKind::Denied, detail));
    }
    Ok(roots.clone())
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

fn unreadable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(ErrorKind::Invalid, format!("{} cannot be used", path.display())).because(error)
}
