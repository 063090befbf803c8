//! What a server's configuration means for locks.

use std::time::Duration;

use leasehold::{Client, ErrorKind, Examination, Severity};
use leasehold_testbed::proxy::Direction;
use leasehold_testbed::{Proxy, Redis};

use crate::TTL;
use Severity::{Danger, Fine, Note, Unknown, Warning};

async fn examine(url: &str, prefix: &str, ttl: Duration) -> Examination {
    let client = Client::builder().url(url).ttl(ttl).build().unwrap();
    client.examine(prefix).await.unwrap()
}

/// The severity of what is said about a topic, and what to change.
fn about<'a>(found: &'a Examination, topic: &str) -> (Severity, &'a str) {
    let mut findings = found.findings.iter().filter(|finding| finding.topic == topic);
    let finding = findings.next().unwrap_or_else(|| panic!("nothing about {topic}: {found:#?}"));
    (finding.severity, finding.change.as_deref().unwrap_or_default())
}

fn says<'a>(found: &'a Examination, topic: &str) -> &'a str {
    found.findings.iter().find(|finding| finding.topic == topic).map_or("", |found| &found.says)
}

#[tokio::test]
async fn a_server_that_keeps_everything_is_not_warned_of() {
    let redis = Redis::options().append_only().start();
    let found = examine(&redis.url(), "", TTL).await;
    assert!(found.worst() <= Note, "{found:#?}");
    for topic in ["role", "durability", "eviction", "clients", "probe", "ttl", "clock"] {
        assert_eq!(about(&found, topic), (Fine, ""), "{topic}");
    }
    assert_eq!(about(&found, "replication").0, Note);
    let [server] = &found.servers[..] else { panic!("one server: {found:#?}") };
    assert_eq!(server.role.as_deref(), Some("primary"));
    assert!(server.version.as_ref().is_some_and(|version| version.contains('.')));
    // They read one clock, which was not set meanwhile.
    assert_eq!(server.clock.unwrap().at_least(), Duration::ZERO);
    assert!(server.round_trip.unwrap().min > Duration::ZERO);
}

#[tokio::test]
async fn what_a_restart_forgets_is_said() {
    let redis = Redis::options().start();
    let found = examine(&redis.url(), "", TTL).await;
    let (severity, change) = about(&found, "durability");
    assert_eq!((found.worst(), severity), (Warning, Warning));
    assert!(says(&found, "durability").contains("since its last snapshot"));
    // What it says is what helps.
    for line in change.lines().filter(|line| *line != "CONFIG REWRITE") {
        assert_eq!(redis.cli(&line.split(' ').collect::<Vec<_>>()).trim(), "OK", "{line}");
    }
    assert_eq!(about(&examine(&redis.url(), "", TTL).await, "durability").0, Fine);
    redis.cli(&["CONFIG", "SET", "appendfsync", "everysec"]);
    let found = examine(&redis.url(), "", TTL).await;
    assert_eq!(about(&found, "durability").0, Warning);
    assert!(says(&found, "durability").contains("everysec"));
    redis.cli(&["CONFIG", "SET", "appendonly", "no"]);
    redis.cli(&["CONFIG", "SET", "save", ""]);
    let found = examine(&redis.url(), "", TTL).await;
    assert!(says(&found, "durability").contains("all grants"));
}

#[tokio::test]
async fn a_server_that_deletes_locks_is_a_danger() {
    let redis = Redis::options().append_only().config("maxmemory-policy", "allkeys-lru").start();
    let found = examine(&redis.url(), "", TTL).await;
    assert_eq!(about(&found, "eviction").0, Warning, "there is no limit yet");
    redis.cli(&["CONFIG", "SET", "maxmemory", "100mb"]);
    let found = examine(&redis.url(), "", TTL).await;
    let (severity, change) = about(&found, "eviction");
    assert_eq!((found.worst(), severity), (Danger, Danger));
    assert!(change.starts_with("CONFIG SET maxmemory-policy noeviction"));
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert!(examine(&redis.url(), "", TTL).await.worst() <= Note);
    // Room for nothing but what is there.
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let found = examine(&redis.url(), "", TTL).await;
    assert_eq!(about(&found, "memory").0, Warning);
    assert_eq!(about(&found, "probe").0, Danger);
    assert!(says(&found, "probe").contains("maxmemory"));
}

#[tokio::test]
async fn a_replica_and_its_primary_are_told_apart() {
    let primary = Redis::options().append_only().start();
    let port = primary.port().to_string();
    let replica = Redis::options().config("replicaof", &format!("127.0.0.1 {port}")).start();
    // Until then it has no data, and the primary no replica.
    while !replica.cli(&["INFO", "replication"]).contains("master_link_status:up") {
        tokio::task::yield_now().await;
    }
    let found = examine(&replica.url(), "", TTL).await;
    let (severity, change) = about(&found, "role");
    assert_eq!(severity, Danger);
    assert!(change.contains(&format!("redis://127.0.0.1:{port} ")), "{change}");
    assert_eq!(about(&found, "probe").0, Danger);
    assert_eq!(found.servers[0].role.as_deref(), Some("replica"));
    let found = examine(&primary.url(), "", TTL).await;
    assert_eq!((found.worst(), about(&found, "replication").0), (Warning, Warning));
    assert!(says(&found, "replication").contains(&format!(":{} ", replica.port())));
    let (_, change) = about(&found, "replication");
    assert!(change.contains("min-replicas-to-write"));
    primary.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let found = examine(&primary.url(), "", TTL).await;
    assert_eq!(about(&found, "replication"), (Warning, ""), "nothing more can be done");
}

#[tokio::test]
async fn what_may_not_be_read_is_not_fine() {
    // As in the documentation of the store.
    let commands = "+script|load +evalsha +eval +scan +subscribe +unsubscribe +publish +select \
                    +get +set +del +exists +pexpire +pexpireat +pttl +time +hget +hset +hdel \
                    +zadd +zrem +zrange +zrevrange +zrangebyscore +zrank +zscore +zcard";
    let keys = "~jobs/* ~leasehold:* &leasehold:wake:*";
    let redis = Redis::options()
        .append_only()
        .user("locker", "secret-4711", &format!("{keys} {commands}"))
        .user("reader", "secret-4711", &format!("{keys} {commands} +info +config|get"))
        .start();
    let found = examine(&redis.url_as("locker", "secret-4711"), "jobs/", TTL).await;
    assert_eq!(found.worst(), Unknown, "{found:#?}");
    for topic in ["info", "durability", "eviction"] {
        let (severity, change) = about(&found, topic);
        assert_eq!(severity, Unknown, "{topic}");
        assert!(change.contains("+info +config|get"), "{change}");
    }
    assert_eq!(about(&found, "probe").0, Fine);
    assert!(!format!("{found:?}").contains("4711"));
    let found = examine(&redis.url_as("locker", "secret-4711"), "", TTL).await;
    assert_eq!(about(&found, "probe").0, Danger, "a key that it may not use");
    let found = examine(&redis.url_as("reader", "secret-4711"), "jobs/", TTL).await;
    assert!(found.worst() <= Note, "what is advised suffices: {found:#?}");
}

#[tokio::test]
async fn a_provider_that_took_config_away_is_told_of() {
    let redis = Redis::options().append_only().config("rename-command", "CONFIG \"\"").start();
    let found = examine(&redis.url(), "", TTL).await;
    assert_eq!(found.worst(), Unknown, "{found:#?}");
    assert_eq!(about(&found, "durability").0, Unknown, "it may be everysec");
    assert_eq!(about(&found, "eviction").0, Fine, "INFO tells it");
}

#[tokio::test]
async fn a_ttl_too_short_for_the_way_to_the_server_is_a_danger() {
    let redis = Redis::options().append_only().start();
    let proxy = Proxy::before(redis.port());
    // All of it one way: the clock is then seen as far off as can be, and no farther.
    let delay = Duration::from_millis(180);
    proxy.delay(Direction::Replies, delay);
    let url = redis.url_on(proxy.port());
    let short = Duration::from_secs(1);
    let found = examine(&url, "", short).await;
    let (severity, change) = about(&found, "ttl");
    assert_eq!(severity, Danger, "a renewal is given up after a sixth of a second");
    assert!(change.starts_with("--ttl "), "{change}");
    let server = &found.servers[0];
    assert!(server.round_trip.unwrap().min >= delay);
    assert_eq!(server.clock.unwrap().at_least(), Duration::ZERO);
    assert!(server.clock.unwrap().ahead_micros < 0);
    assert_eq!(about(&examine(&url, "", TTL).await, "ttl").0, Fine);
}

#[tokio::test]
async fn a_prefix_that_leaves_no_room_is_refused() {
    let redis = Redis::start();
    let client = Client::open(&redis.url()).unwrap();
    for prefix in ["k".repeat(512), "a\0b".to_owned()] {
        let error = client.examine(&prefix).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}
