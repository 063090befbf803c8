//! What the members of an ensemble mean for locks.

use std::time::Duration;

use leasehold::{Examination, Severity};
use leasehold_testbed::ZooKeeper;

use crate::{client, soon};
use Severity::{Danger, Fine, Note, Unknown, Warning};

const TTL: Duration = Duration::from_secs(30);

async fn examine(url: &str) -> Examination {
    soon("an examination", client(url, TTL).examine("")).await.unwrap()
}

fn severities(found: &Examination, topic: &str) -> Vec<Severity> {
    let about = found.findings.iter().filter(|finding| finding.topic == topic);
    about.map(|finding| finding.severity).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_survive_what_one_does_not() {
    let one = ZooKeeper::start();
    let found = examine(&one.url()).await;
    assert_eq!(found.worst(), Warning, "{found:#?}");
    assert_eq!(severities(&found, "members"), [Warning]);
    for topic in ["member", "tick", "session", "probe", "ttl"] {
        assert_eq!(severities(&found, topic), [Fine], "{topic}");
    }
    assert_eq!(severities(&found, "access"), [Note], "the URL names no user");
    assert_eq!(severities(&found, "clock"), [Note], "there is none to compare");
    assert_eq!(found.servers[0].role.as_deref(), Some("standalone"));
    assert!(found.servers[0].version.as_ref().is_some_and(|version| version.starts_with("3.")));

    let three = ZooKeeper::options().members(3).start();
    let found = examine(&three.url()).await;
    assert_eq!(severities(&found, "members"), [Fine]);
    assert!(found.worst() <= Note, "{found:#?}");
    let leaders = found.servers.iter().filter(|server| server.role.as_deref() == Some("leader"));
    assert_eq!((leaders.count(), found.servers.len()), (1, 3));

    let found = examine(&three.url_of(0)).await;
    assert_eq!(severities(&found, "members"), [Unknown, Fine], "two were not asked");

    let gone = (three.leader() + 1) % 3;
    three.kill(gone);
    let found = examine(&three.url()).await;
    assert_eq!(severities(&found, "members"), [Warning]);
    let dead = found.findings.iter().find(|finding| finding.topic == "member").unwrap();
    assert_eq!(dead.severity, Warning);
    assert!(dead.server.as_ref().unwrap().ends_with(&three.port(gone).to_string()));
    assert_eq!(severities(&found, "probe"), [Fine], "the others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_whitelist_hides_is_not_fine() {
    let server = ZooKeeper::options().words("ruok, srvr").start();
    let found = examine(&server.url()).await;
    assert_eq!(
        (severities(&found, "member"), severities(&found, "tick")),
        (vec![Fine], vec![Unknown])
    );
    let advice = found.of(Unknown).next().unwrap().change.as_deref().unwrap();
    assert!(advice.contains("4lw.commands.whitelist=srvr, conf"), "{advice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_of_sessions_are_held_against_the_ttl() {
    // The last line counts.
    let server = ZooKeeper::options().config("maxSessionTimeout", "20000").start();
    let found = examine(&server.url()).await;
    assert_eq!(severities(&found, "session"), [Danger]);
    assert_eq!(severities(&found, "probe"), [Danger], "as was said");
    let server = ZooKeeper::options().config("minSessionTimeout", "40000").start();
    let found = examine(&format!("{}?tick=200ms", server.url())).await;
    assert_eq!(severities(&found, "session"), [Note]);
    assert_eq!(severities(&found, "probe"), [Fine]);
    // Twice the tick is the shortest session, unless it is set: then the tick is taken wrongly.
    let found = examine(&server.url()).await;
    assert!(severities(&found, "tick").contains(&Danger), "a TTL of two ticks: {found:#?}");
    let server = ZooKeeper::options().config("minSessionTimeout", "100").start();
    let found = examine(&server.url()).await;
    assert_eq!(severities(&found, "tick"), [Danger], "50 ms were taken for 200");
    let advice = found.of(Danger).next().unwrap().change.as_deref().unwrap();
    let found = examine(&format!("{}{}", server.url(), advice.split(' ').next().unwrap())).await;
    assert_eq!(severities(&found, "tick"), [Fine], "what is advised helps");
}
