//! TLS with certificates of the test's own.

use std::path::Path;

use leasehold::stores::Redis;
use leasehold::{ErrorKind, Store};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::server::Server;
use crate::{Node, TTL, claim, terms};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes `name.pem` and `name.key`.
fn issue(authority: &Authority, dir: &Path, name: &str, host: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    // OpenSSL takes a certificate with its issuer's name for its own issuer.
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn server(dir: &Path, clients: &str) -> Server {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (at("server.pem"), at("server.key"), at("ca.pem"));
    Server::with(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        clients,
    ])
}

async fn refused(url: &str) -> ErrorKind {
    Redis::new(url).unwrap().open(&terms(TTL)).await.unwrap_err().kind()
}

#[tokio::test]
async fn only_a_server_of_the_named_authority_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (authority(), authority());
    std::fs::write(dir.path().join("ca.pem"), right.pem()).unwrap();
    std::fs::write(dir.path().join("wrong.pem"), wrong.pem()).unwrap();
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    issue(&right, dir.path(), "server", "127.0.0.1");
    let server = server(dir.path(), "no");
    let url = |ca: &str| {
        format!("rediss://127.0.0.1:{}?ca={}", server.port, dir.path().join(ca).display())
    };

    Node::new(&url("ca.pem")).await.acquire(&claim("job")).await;
    assert_eq!(refused(&url("wrong.pem")).await, ErrorKind::Denied);
    assert_eq!(refused(&url("empty.pem")).await, ErrorKind::Invalid);
    assert_eq!(refused(&url("missing.pem")).await, ErrorKind::Invalid);
    // The system trusts many, but not ours.
    assert_eq!(refused(&format!("rediss://127.0.0.1:{}", server.port)).await, ErrorKind::Denied);
    // Another name than the certificate's.
    assert_eq!(refused(&url("ca.pem").replace("127.0.0.1", "localhost")).await, ErrorKind::Denied);
    // One that does not speak the other's protocol.
    assert_eq!(refused(&server.url()).await, ErrorKind::Unavailable);
    let plain = Server::start();
    assert_eq!(
        refused(&format!("rediss://127.0.0.1:{}?timeout=300ms", plain.port)).await,
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_shown_one() {
    let dir = tempfile::tempdir().unwrap();
    let right = authority();
    std::fs::write(dir.path().join("ca.pem"), right.pem()).unwrap();
    issue(&right, dir.path(), "server", "127.0.0.1");
    issue(&right, dir.path(), "client", "client");
    let server = server(dir.path(), "yes");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let bare = format!("rediss://127.0.0.1:{}?ca={}", server.port, at("ca.pem"));
    let shown = format!("{bare}&cert={}&key={}", at("client.pem"), at("client.key"));
    Node::new(&shown).await.acquire(&claim("job")).await;
    assert_eq!(refused(&bare).await, ErrorKind::Denied);
    let mixed = format!("{bare}&cert={}&key={}", at("client.pem"), at("server.key"));
    assert_eq!(refused(&mixed).await, ErrorKind::Invalid);
}
