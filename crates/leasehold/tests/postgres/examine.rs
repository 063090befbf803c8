//! What a server's configuration means for locks.

use leasehold::{Examination, Severity};
use leasehold_testbed::PgBouncer;
use leasehold_testbed::postgres::{DATABASE, PASSWORD, ROLE};

use super::*;
use Severity::{Danger, Fine, Note, Unknown, Warning};

async fn examine(url: &str) -> Examination {
    client(url).examine("").await.unwrap()
}

/// The worst that is said about a topic, and what to change.
fn about<'a>(found: &'a Examination, topic: &str) -> (Severity, &'a str) {
    let mut findings = found.findings.iter().filter(|finding| finding.topic == topic);
    let finding = findings.next().unwrap_or_else(|| panic!("nothing about {topic}: {found:#?}"));
    (finding.severity, finding.change.as_deref().unwrap_or_default())
}

fn hosts(servers: &[&Server]) -> String {
    let hosts = servers.iter().map(|server| format!("127.0.0.1:{}", server.port()));
    hosts.collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn a_server_that_keeps_everything_is_not_warned_of() {
    let server = Server::options().durable().start();
    let found = examine(&server.url()).await;
    assert!(found.worst() <= Note, "{found:#?}");
    for topic in ["role", "schema", "durability", "probe", "ttl", "clock"] {
        assert_eq!(about(&found, topic), (Fine, ""), "{topic}");
    }
    assert_eq!(about(&found, "replication").0, Note);
    let [server] = &found.servers[..] else { panic!("one server: {found:#?}") };
    assert!(server.version.is_some() && server.round_trip.is_some());
    // They read one clock, which was not set meanwhile.
    assert_eq!(server.clock.unwrap().at_least(), Duration::ZERO);
}

#[tokio::test]
async fn a_server_that_forgets_is_a_danger_and_one_without_upkeep_a_warning() {
    let server = Server::options()
        .config("full_page_writes", "off")
        .config("autovacuum", "off")
        .config("idle_session_timeout", "9s")
        .config("max_connections", "20")
        .start();
    let found = examine(&server.url()).await;
    let dangers: Vec<_> = found.of(Danger).map(|finding| finding.change.as_deref()).collect();
    let set = |name: &str| format!("ALTER SYSTEM SET {name} = on;\nSELECT pg_reload_conf();");
    let (fsync, pages) = (set("fsync"), set("full_page_writes"));
    assert_eq!(dangers, [Some(fsync.as_str()), Some(&pages)]);
    assert_eq!(about(&found, "autovacuum").0, Warning);
    assert_eq!(about(&found, "idle").0, Warning, "renewals are ten seconds apart");
    assert!(found.findings.iter().all(|finding| finding.topic != "clients"));
    let mut others = Vec::new();
    for _ in 0..14 {
        others.push(raw(&server).await);
    }
    assert_eq!(about(&examine(&server.url()).await, "clients").0, Warning);
}

#[tokio::test]
async fn a_pooler_is_noted() {
    let server = Server::options().durable().start();
    let pooler = PgBouncer::before(&server, "transaction");
    let found = examine(&server.url_on(pooler.port())).await;
    assert_eq!(about(&found, "pooler").0, Note);
    assert!(found.worst() <= Note, "locks are as safe: {found:#?}");
    let direct = examine(&server.url()).await;
    assert!(direct.findings.iter().all(|finding| finding.topic != "pooler"));
}

#[tokio::test]
async fn what_a_promotion_forgets_depends_on_the_standby() {
    let server = Server::options().durable().start();
    let standby = Server::options().standby_of(&server, "second").start();
    until(&server, "SELECT count(*) = 1 FROM pg_stat_replication").await;
    let found = examine(&server.url()).await;
    let (severity, change) = about(&found, "replication");
    assert_eq!((found.worst(), severity), (Warning, Warning));
    assert!(change.contains("synchronous_standby_names"), "{change}");

    server.psql("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"second\")'");
    server.psql("SELECT pg_reload_conf()");
    let shows = "SELECT current_setting('synchronous_standby_names') <> ''";
    until(&server, shows).await;
    let found = examine(&server.url()).await;
    let (severity, change) = about(&found, "replication");
    assert_eq!((found.worst(), severity), (Unknown, Unknown), "this role may not look");
    server.psql(change);
    while server.psql("SELECT sync_state FROM pg_stat_replication") != "quorum" {
        tokio::task::yield_now().await;
    }
    assert_eq!(about(&examine(&server.url()).await, "replication").0, Fine);

    let found = examine(&standby.url()).await;
    let (severity, change) = about(&found, "role");
    assert_eq!(severity, Danger);
    assert!(change.contains("name the primary"), "{change}");
    assert_eq!(about(&found, "probe").0, Danger, "as was said");
    assert_eq!(found.servers[0].role.as_deref(), Some("standby"));
    let both = server.url_as(ROLE, PASSWORD, &hosts(&[&standby, &server]), DATABASE);
    assert_eq!(about(&examine(&both).await, "role").0, Fine, "whichever may be used");

    standby.kill();
    until(&server, "SELECT count(*) = 0 FROM pg_stat_replication").await;
    let hasty = format!("{}?timeout=2", server.url());
    let found = examine(&hasty).await;
    assert_eq!(about(&found, "replication").0, Danger);
    assert_eq!(about(&found, "probe").0, Danger, "it hangs, as was said");
}
