//! What the members of a cluster mean for locks.

use leasehold::{Client, Examination, Severity};
use leasehold_testbed::Etcd;

use super::{Duration, soon};
use Severity::{Danger, Fine, Note, Unknown, Warning};

async fn examine(url: &str) -> Examination {
    let client = Client::builder().url(url).ttl(Duration::from_secs(30)).build().unwrap();
    soon(client.examine("")).await.unwrap()
}

fn severities(found: &Examination, topic: &str) -> Vec<Severity> {
    let about = found.findings.iter().filter(|finding| finding.topic == topic);
    about.map(|finding| finding.severity).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_survive_what_one_does_not() {
    let one = Etcd::start();
    let found = examine(&one.url()).await;
    assert_eq!(severities(&found, "members"), [Warning]);
    assert_eq!(severities(&found, "probe"), [Fine]);
    assert_eq!(severities(&found, "clock"), [Note], "there is none to compare");
    assert_eq!(found.servers[0].role.as_deref(), Some("leader"));
    let minor = |version: &str| version.split('.').nth(1).map(str::to_owned);
    let version = found.servers[0].version.as_deref().unwrap();
    let (severity, fixed) = match minor(version).unwrap().as_str() {
        // What Debian packages today, which has the fault.
        "4" => (Warning, "3.4.31"),
        _ => (Fine, ""),
    };
    assert_eq!(severities(&found, "version"), [severity], "{version}");
    let change = found.findings.iter().find(|finding| finding.topic == "version");
    assert!(change.unwrap().change.as_deref().unwrap_or_default().contains(fixed));

    let three = Etcd::options().members(3).start();
    let found = examine(&three.url()).await;
    assert_eq!(severities(&found, "members"), [Fine]);
    assert!(severities(&found, "member").is_empty(), "all serve: {found:#?}");
    let leaders = found.servers.iter().filter(|server| server.role.as_deref() == Some("leader"));
    assert_eq!((leaders.count(), found.servers.len()), (1, 3));
    assert!(found.servers.iter().all(|server| server.round_trip.is_some()));

    let named = format!("127.0.0.1:{}", three.ports()[0]);
    let found = examine(&three.url_on(&three.ports()[..1])).await;
    assert_eq!(severities(&found, "members"), [Unknown, Fine], "two were not asked");
    let advice = found.of(Unknown).next().unwrap().change.as_deref().unwrap();
    assert!(advice.contains(&three.ports()[2].to_string()) && !advice.contains(&named));

    three.members()[1].kill();
    let found = examine(&format!("{}?timeout=1s", three.url())).await;
    assert_eq!(severities(&found, "members"), [Warning]);
    let dead = found.findings.iter().find(|finding| finding.topic == "member").unwrap();
    assert_eq!(dead.severity, Warning);
    assert_eq!(dead.server, Some(format!("127.0.0.1:{}", three.ports()[1])));
    assert_eq!(severities(&found, "probe"), [Fine], "the others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_is_a_danger() {
    let etcd = Etcd::options().arg("--quota-backend-bytes=200000").start();
    assert!(severities(&examine(&etcd.url()).await, "alarm").is_empty());
    let large = "x".repeat(50_000);
    // The one that it refuses raises the alarm.
    for n in 0..16 {
        let mut put = etcd.ctl_runs(&["put", &format!("ballast{n}"), &large]);
        let _ = put.wait();
    }
    let found = examine(&etcd.url()).await;
    assert_eq!(severities(&found, "alarm"), [Danger], "{found:#?}");
    assert_eq!(severities(&found, "probe"), [Danger]);
    let alarm = found.findings.iter().find(|finding| finding.topic == "alarm").unwrap();
    assert!(alarm.change.as_deref().unwrap().contains("alarm disarm"));
}
