//! Certificates made for one test: an authority, a server, a client, and an authority that signed
//! nothing of it.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// PEM files in a directory.
#[derive(Debug, Clone)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them. The server's is good for `localhost`, `127.0.0.1` and `::1`.
    #[must_use]
    pub fn make(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("cannot make the directory for certificates");
        let made = Self { directory: directory.to_owned() };
        let authority = made.authority("ca");
        made.authority("wrong-ca");
        made.signed("server", &authority, ExtendedKeyUsagePurpose::ServerAuth);
        made.signed("client", &authority, ExtendedKeyUsagePurpose::ClientAuth);
        made
    }

    /// The authority that signed the server's and the client's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// An authority that signed neither.
    #[must_use]
    pub fn wrong_ca(&self) -> PathBuf {
        self.file("wrong-ca.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.file("server.pem")
    }

    /// The server's private key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.file("server.key")
    }

    /// The client's certificate.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.file("client.pem")
    }

    /// The client's private key.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.file("client.key")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let mut params = params(name, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("cannot make a key");
        let certificate = params.self_signed(&key).expect("an authority can sign itself");
        self.write(name, &certificate.pem(), &key);
        Issuer::new(params, key)
    }

    fn signed(&self, name: &str, by: &Issuer<'_, KeyPair>, usage: ExtendedKeyUsagePurpose) {
        let hosts = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
        let mut params = params(name, hosts);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("cannot make a key");
        let certificate = params.signed_by(&key, by).expect("an authority can sign");
        self.write(name, &certificate.pem(), &key);
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) {
        let written = fs::write(self.file(&format!("{name}.pem")), certificate)
            .and_then(|()| fs::write(self.file(&format!("{name}.key")), key.serialize_pem()));
        written.expect("cannot write a certificate");
    }
}

fn params(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).expect("the host names are valid");
    params.distinguished_name.push(DnType::CommonName, format!("leasehold test {name}"));
    params
}
