//! Who gets in, how, and what those are told who do not.

use leasehold::{Effect, Error, ErrorKind};
use leasehold_testbed::{free_port, postgres::PASSWORD};

use super::*;

async fn refusal(url: &str) -> Error {
    let error = Postgres::new(url).unwrap().open(&terms(TTL)).await.expect_err(url);
    let text = format!("{error} {error:?}");
    assert!(!text.contains(PASSWORD) && !text.contains("wrong-4713"), "{text}");
    assert_eq!(error.effect(), Effect::None, "{text}");
    error
}

#[tokio::test]
async fn refusals_say_what_they_are() {
    let server = Server::start();
    let url = server.url();
    Node::new(&url).await;
    for (url, kind, says) in [
        (url.replace(PASSWORD, "wrong-4713"), ErrorKind::Denied, "login"),
        (url.replace(&format!(":{PASSWORD}"), ""), ErrorKind::Denied, "password"),
        (url.replace("/locks", "/nowhere"), ErrorKind::Invalid, "no such database"),
        (server.url_on(free_port()), ErrorKind::Unavailable, "no connection"),
        (format!("{url}?sslmode=require"), ErrorKind::Denied, "TLS"),
        (format!("{url}?sslmode=verify-full&sslrootcert=/nowhere"), ErrorKind::Invalid, "/nowhere"),
    ] {
        let error = refusal(&url).await;
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    server.psql("ALTER ROLE app CONNECTION LIMIT 0");
    let error = refusal(&url).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no connection left"), "{error}");
}

#[tokio::test]
async fn a_standby_is_passed_over_for_the_primary() {
    let (primary, standby) = (Server::start(), Server::start());
    standby.stop();
    std::fs::write(standby.socket().join("data/standby.signal"), "").unwrap();
    standby.start_again();
    let error = refusal(&standby.url()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("standby"), "{error}");
    let both = primary
        .url()
        .replace("@127", &format!("@127.0.0.1:{},127.0.0.1:{},127", standby.port(), free_port()));
    Node::new(&both).await.acquire(&claim("k")).await;
    assert_eq!(primary.psql("SELECT count(*) FROM leasehold.claims"), "1");
}

#[tokio::test]
async fn a_server_that_became_read_only_is_told_as_such() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    server.psql("ALTER ROLE app SET default_transaction_read_only = on");
    server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
    // The first ones may still learn of the end of the old connection.
    let error = loop {
        let attempt = claim("k");
        let entered = node.store.enter(&node.session, &attempt, Enter::Try).await;
        let error = entered.expect_err("read-only, or not connected");
        assert!(error.is_transient(), "{error:?}");
        if !error.to_string().contains("connection") {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[tokio::test]
async fn a_unix_socket_works() {
    let server = Server::start();
    let socket = server.socket().to_str().unwrap().replace('/', "%2F");
    let port = server.port();
    for url in [
        format!("postgres://app@{socket}:{port}/locks"),
        format!("postgresql:///locks?user=app&host={}&port={port}", server.socket().display()),
        format!("postgres://app@{socket}:{port}/locks?sslmode=prefer"),
    ] {
        let node = Node::new(&url).await;
        let held = claim("k");
        node.acquire(&held).await;
        node.leave(&held).await;
    }
}

#[tokio::test]
async fn tls_is_as_strict_as_the_mode_says() {
    let server = Server::options().tls().start();
    let made = server.certificates();
    let (ca, wrong) = (made.ca(), made.wrong_ca());
    let (ca, wrong) = (ca.display(), wrong.display());
    let named = server.url();
    for (query, encrypted) in [
        ("sslmode=disable".to_owned(), Some(false)),
        (String::new(), Some(true)),
        ("sslmode=require".to_owned(), Some(true)),
        (format!("sslmode=verify-ca&sslrootcert={ca}"), Some(true)),
        (format!("sslmode=verify-full&sslrootcert={ca}"), Some(true)),
        (format!("sslmode=verify-ca&sslrootcert={wrong}"), None),
        (format!("sslmode=verify-full&sslrootcert={wrong}"), None),
        (format!("sslmode=require&sslrootcert={wrong}"), None),
        ("sslmode=verify-full".to_owned(), None),
    ] {
        let url = format!("{named}?{query}&application_name=tls");
        let Some(encrypted) = encrypted else {
            let error = refusal(&url).await;
            assert_eq!(error.kind(), ErrorKind::Denied, "{query}: {error:?}");
            assert!(error.to_string().contains("sslrootcert"), "{error}");
            continue;
        };
        let node = Node::new(&url).await;
        node.store.keys("").await.unwrap();
        let seen = server.psql(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = 'tls'",
        );
        assert_eq!(seen, if encrypted { "t" } else { "f" }, "{query}");
        drop(node);
        let gone =
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'tls')";
        until(&server, gone).await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let server = Server::options().tls().start();
    let error =
        refusal(&format!("{}?sslrootcert=/no/such.pem&sslmode=verify-ca", server.url())).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("/no/such.pem"), "{error}");
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
}

#[tokio::test]
async fn verify_full_checks_the_name_and_verify_ca_does_not() {
    let server = Server::options().tls().start();
    let ca = server.certificates().ca();
    let ca = ca.display();
    // An address of this machine that the certificate does not name.
    let url = server.url().replace("127.0.0.1", "0.0.0.0");
    Node::new(&format!("{url}?sslmode=verify-ca&sslrootcert={ca}")).await;
    let error = refusal(&format!("{url}?sslmode=verify-full&sslrootcert={ca}")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate_of_ours() {
    let server = Server::options().client_certificates().start();
    let made = server.certificates();
    let (ca, own, key) = (made.ca(), made.client(), made.client_key());
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.url(), ca.display());
    let error = refusal(&url).await;
    assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unavailable), "{error:?}");
    Node::new(&format!("{url}&sslcert={}&sslkey={}", own.display(), key.display())).await;
}
