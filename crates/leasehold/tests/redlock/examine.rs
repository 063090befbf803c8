//! What the servers' configuration means for a quorum.

use leasehold::Severity::{Danger, Fine, Note, Warning};
use leasehold::{Client, ErrorKind, Examination, Finding, Severity};
use leasehold_testbed::Redis;

use crate::quorum;

async fn examine(url: &str) -> Examination {
    Client::builder().url(url).build().unwrap().examine("").await.unwrap()
}

fn about<'a>(found: &'a Examination, topic: &str) -> Vec<&'a Finding> {
    found.findings.iter().filter(|finding| finding.topic == topic).collect()
}

fn severities(found: &Examination, topic: &str) -> Vec<Severity> {
    about(found, topic).iter().map(|finding| finding.severity).collect()
}

#[tokio::test]
async fn servers_that_keep_everything_share_only_their_host() {
    let servers = quorum(5);
    let found = examine(&servers.url()).await;
    assert_eq!(found.servers.len(), 5);
    assert_eq!(severities(&found, "quorum"), [Fine]);
    assert_eq!(severities(&found, "clocks-apart"), [Fine]);
    for topic in ["durability", "role", "eviction", "replication"] {
        assert_eq!(severities(&found, topic), [Fine; 5], "{topic}: {found:#?}");
        let named: Vec<_> = about(&found, topic).iter().map(|it| it.server.clone()).collect();
        let each = servers.iter().map(|redis| Some(format!("127.0.0.1:{}", redis.port())));
        assert!(each.eq(named), "{topic} names each server");
    }
    let [host] = about(&found, "independence")[..] else { panic!("{found:#?}") };
    assert_eq!(host.severity, Danger);
    assert!(host.says.contains("are on one host, 127.0.0.1"), "{host:?}");
    let rest = found.findings.iter().filter(|finding| finding.topic != "independence");
    assert!(rest.map(|finding| finding.severity).all(|severity| severity <= Note), "{found:#?}");
}

#[tokio::test]
async fn a_server_that_forgets_is_a_danger_to_the_fence() {
    let mut servers: Vec<Redis> = (0..2).map(|_| Redis::options().append_only().start()).collect();
    servers.push(Redis::options().append_only().config("appendfsync", "everysec").start());
    servers[0].cli(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]);
    let hosts: Vec<_> = servers.iter().map(|redis| format!("127.0.0.1:{}", redis.port())).collect();
    let found = examine(&format!("redlock://{}", hosts.join(","))).await;
    assert_eq!(severities(&found, "durability"), [Danger, Fine, Fine], "the worst first");
    let durability = about(&found, "durability")[0];
    assert_eq!(durability.server.as_ref(), Some(&hosts[2]));
    assert!(durability.says.contains("same or a falling fence"), "{durability:?}");
    assert!(durability.change.as_ref().unwrap().contains("appendfsync always"), "{durability:?}");
    let eviction = about(&found, "eviction")[0];
    assert_eq!((eviction.severity, eviction.server.as_ref()), (Danger, Some(&hosts[0])));
}

#[tokio::test]
async fn one_server_under_two_names_is_a_danger() {
    let servers: Vec<Redis> = (0..2).map(|_| Redis::options().append_only().start()).collect();
    let [single, twice] = [servers[0].port(), servers[1].port()];
    let url = format!("redlock://127.0.0.1:{single},127.0.0.1:{twice},localhost:{twice}");
    let found = examine(&url).await;
    let told = about(&found, "independence");
    let one = told.iter().find(|finding| finding.says.contains("one server under several names"));
    let one = one.expect("it is told");
    assert_eq!(one.severity, Danger);
    assert!(one.says.contains(&format!("localhost:{twice}")), "{one:?}");
}

#[tokio::test]
async fn a_server_that_is_down_is_named_with_what_is_left() {
    let servers = quorum(5);
    let url = format!("{}?timeout=500ms", servers.url());
    servers[3].kill();
    let found = examine(&url).await;
    assert_eq!(severities(&found, "quorum"), [Warning]);
    assert!(about(&found, "quorum")[0].says.contains("1 more may fail"), "{found:#?}");
    let dead = about(&found, "reachable");
    let name = format!("127.0.0.1:{}", servers[3].port());
    assert_eq!((dead.len(), dead[0].server.as_ref()), (1, Some(&name)));
    servers[0].pause();
    let found = examine(&url).await;
    assert!(
        about(&found, "quorum")[0].says.contains("with the next failure no lock"),
        "{found:#?}"
    );
    servers[1].kill();
    let client = Client::builder().url(&url).build().unwrap();
    assert_eq!(client.examine("").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn replicas_are_a_danger_to_the_votes() {
    let servers = quorum(3);
    let replica = Redis::options().start();
    let port = servers[1].port().to_string();
    replica.cli(&["REPLICAOF", "127.0.0.1", &port]);
    crate::until("the replica is there", || {
        servers[1].cli(&["INFO", "replication"]).contains("connected_slaves:1")
    })
    .await;
    let found = examine(&servers.url()).await;
    let worst = about(&found, "replication")[0];
    assert_eq!((worst.severity, worst.server.clone()), (Danger, Some(format!("127.0.0.1:{port}"))));
}
