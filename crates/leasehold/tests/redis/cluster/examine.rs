//! What the nodes' configuration means for locks.

use leasehold::{Client, Examination, Severity};
use leasehold_testbed::{Redis, RedisCluster};

use super::cluster;

async fn examine(cluster: &RedisCluster) -> Examination {
    Client::builder().url(&cluster.url()).build().unwrap().examine("").await.unwrap()
}

fn about<'a>(found: &'a Examination, topic: &str) -> Vec<(Severity, Option<&'a str>)> {
    let about = found.findings.iter().filter(|finding| finding.topic == topic);
    about.map(|finding| (finding.severity, finding.server.as_deref())).collect()
}

#[tokio::test]
async fn every_primary_is_examined_and_the_cluster_as_a_whole() {
    let cluster = RedisCluster::start(&Redis::options().append_only());
    let found = examine(&cluster).await;
    assert_eq!(found.servers.len(), 3, "{found:#?}");
    assert_eq!(about(&found, "durability").len(), 3);
    assert!(about(&found, "durability").iter().all(|(severity, _)| *severity == Severity::Fine));
    assert_eq!(about(&found, "replication").len(), 3, "a failover loses the last grants");
    assert_eq!(about(&found, "cluster"), [(Severity::Fine, None)]);
    assert_eq!(about(&found, "members"), [(Severity::Fine, None)]);
    assert_eq!(about(&found, "coverage"), [(Severity::Note, None)]);
    assert_eq!(about(&found, "wake-ups"), [(Severity::Fine, None)]);
    for topic in ["node", "replicas"] {
        assert_eq!(about(&found, topic), [], "{topic}");
    }
}

#[tokio::test]
async fn a_primary_without_a_replica_and_a_node_that_evicts_are_named() {
    let cluster = cluster();
    let one = &cluster.nodes()[1];
    one.cli(&["CONFIG", "SET", "maxmemory", "100mb"]);
    one.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    cluster.nodes()[5].kill();
    let primary = format!("127.0.0.1:{}", cluster.nodes()[2].port());
    let found = crate::soon(async {
        loop {
            let found = examine(&cluster).await;
            if !about(&found, "replicas").is_empty() {
                return found;
            }
            // sleep: the others notice in time; asked again.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(about(&found, "replicas"), [(Severity::Warning, Some(primary.as_str()))]);
    let evicting = format!("redis://127.0.0.1:{}/0", one.port());
    assert!(about(&found, "eviction").contains(&(Severity::Danger, Some(evicting.as_str()))));
}
