//! Users, passwords, databases, sockets: who may speak to the server, and where.

use std::time::Duration;

use leasehold::core::{Enter, Left, Note, Provided, Record};
use leasehold::stores::Redis;
use leasehold::{Effect, ErrorKind, Store};

use crate::server::Server;
use crate::{Node, TTL, claim, share, soon, terms};

/// As in the documentation of the store.
pub(crate) const COMMANDS: &str = "+script|load +evalsha +eval +scan +subscribe +unsubscribe +publish +select +get +set +del \
     +exists +pexpire +pexpireat +pttl +time +hget +hset +hdel +zadd +zrem +zrange +zrevrange +zrangebyscore +zrank +zscore +zcard";

fn user(server: &Server, commands: &str, patterns: &[&str]) {
    let mut words = vec!["ACL", "SETUSER", "locker", "reset", "on", ">p@ss:word/#"];
    words.extend(patterns);
    words.extend(commands.split_whitespace());
    let _: String = server.raw().run(&words);
}

fn url_of(server: &Server, password: &str, rest: &str) -> String {
    format!("redis://locker:{password}@127.0.0.1:{}/{rest}", server.port)
}

async fn everything(node: &Node) {
    let (held, waiting, tried) = (claim("jobs/1"), claim("jobs/1"), claim("jobs/1"));
    node.acquire(&held).await;
    node.enter(&waiting).await;
    node.attempt(&tried).await;
    assert!(node.extends(&held).await && node.extends(&waiting).await);
    assert_eq!(node.store.inspect(&held.key).await.unwrap().waiters.len(), 1);
    assert_eq!(node.store.keys("jobs/").await.unwrap(), std::slice::from_ref(&held.key));
    assert_eq!(node.leave(&held).await, Left::Released);
    assert!(soon(node.changed(&waiting)).await.is_some());
    assert!(node.store.revoke(&waiting.key, &waiting.id).await.unwrap());

    let [first, second, writer] =
        [share("jobs/2", 1, 5), share("jobs/2", 5, 5), share("jobs/2", 5, 5)];
    node.acquire(&first).await;
    node.enter(&second).await;
    node.attempt(&writer).await;
    assert!(node.extends(&first).await && node.extends(&second).await);
    let amended = first.amended(Note::default(), 1.try_into().unwrap());
    assert!(node.store.amend(&node.session, &amended).await.unwrap());
    let record = Record::new(b"kept", TTL).unwrap();
    let under = Provided::Held(&node.session, &first);
    assert!(node.store.write(&first.key, under, &record).await.unwrap());
    assert!(node.store.read(&first.key).await.unwrap().written.is_some());
    assert_eq!(node.leave(&first).await, Left::Released);
    assert!(soon(node.changed(&second)).await.is_some());
    node.store.close(&node.session).await.unwrap();
}

#[tokio::test]
async fn the_documented_access_list_suffices() {
    let server = Server::start();
    let patterns = ["~jobs/*", "~leasehold:*", "&leasehold:wake:*"];
    user(&server, COMMANDS, &patterns);
    everything(&Node::new(&url_of(&server, "p%40ss%3Aword%2F%23", "3")).await).await;
    // Without loading scripts, in database 0.
    let fewer = COMMANDS.replace("+script|load ", "").replace("+select ", "");
    user(&server, &fewer, &patterns);
    let _: String = server.raw().run(&["SCRIPT", "FLUSH"]);
    everything(&Node::new(&url_of(&server, "p%40ss%3Aword%2F%23", "")).await).await;
}

#[tokio::test]
async fn a_user_without_the_channel_a_key_or_a_command_is_told_what_is_needed() {
    let server = Server::start();
    let cases: [(&str, &[&str]); 3] = [
        (COMMANDS, &["~*", "resetchannels"]),
        (COMMANDS, &["~jobs/*", "&leasehold:wake:*"]),
        (&COMMANDS.replace("+evalsha", ""), &["~*", "&leasehold:wake:*"]),
    ];
    for (commands, patterns) in cases {
        user(&server, commands, patterns);
        let store = Redis::new(&url_of(&server, "p%40ss%3Aword%2F%23", "")).unwrap();
        let refused = match store.open(&terms(TTL)).await {
            Ok(session) => store.enter(&session, &claim("jobs/1"), Enter::Wait).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
        assert!(refused.to_string().contains(COMMANDS), "{refused}");
    }
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_denied_and_not_repeated() {
    let server = Server::start();
    user(&server, COMMANDS, &["~*", "&*"]);
    let _: String = server.raw().run(&["CONFIG", "SET", "requirepass", "right-secret"]);
    for url in [
        url_of(&server, "wrong-secret", ""),
        format!("redis://:wrong-secret@127.0.0.1:{}", server.port),
        server.url(),
    ] {
        let store = Redis::new(&url).unwrap();
        let error = store.open(&terms(TTL)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!error.is_transient());
        let said = format!("{error} {error:?} {store} {store:?}");
        assert!(!said.contains("secret"), "{said}");
    }
    Node::new(&format!("redis://:right-secret@127.0.0.1:{}", server.port)).await;
}

#[tokio::test]
async fn a_unix_socket_and_a_database_number() {
    let server = Server::with(&["--unixsocket", "{dir}/redis.sock"]);
    let socket = server.socket();
    let node = Node::new(&format!("redis+unix://{}?db=5", socket.display())).await;
    let (held, other) = (claim("job"), claim("job"));
    node.acquire(&held).await;
    let mut raw = server.raw();
    assert_eq!(raw.run::<i64>(&["EXISTS", "job"]), 0);
    let _: String = raw.run(&["SELECT", "5"]);
    assert_eq!(raw.run::<String>(&["GET", "job"]), held.id.to_hex());
    Node::new(&server.url()).await.acquire(&other).await;

    let missing = Redis::new(&format!("{}9999", server.url())).unwrap();
    let error = missing.open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let nowhere = Redis::new("redis+unix:///nowhere/redis.sock").unwrap();
    let error = nowhere.open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_server_without_scripts_is_refused_and_the_error_repeats_no_argument() {
    let server =
        Server::with(&["--rename-command", "EVALSHA", "", "--rename-command", "SCRIPT", ""]);
    let node = Node::new(&server.url()).await;
    let secret = claim("job");
    let error = node.store.leave(&node.session, &secret).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let said = format!("{error} {error:?}");
    assert!(!said.contains(&secret.id.to_hex()), "{said}");
}

#[tokio::test]
async fn what_the_store_cannot_keep_is_refused() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let error = node.store.open(&terms(Duration::from_millis(99))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);

    let own = claim("leasehold:{7wo}:meta:job");
    let record = Record::new(b"x", TTL).unwrap();
    for error in [
        node.store.enter(&node.session, &own, Enter::Try).await.map(drop).unwrap_err(),
        node.store.amend(&node.session, &own).await.map(drop).unwrap_err(),
        node.store.read(&own.key).await.map(drop).unwrap_err(),
        node.store.write(&own.key, Provided::Unchanged(None), &record).await.map(drop).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Invalid, Effect::None), "{error}");
    }

    let session = leasehold::core::SessionId::new("of another store");
    let error = node.store.enter(&session, &claim("job"), Enter::Try).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionEnded);
}
