//! A store says what it promises where it runs, and looking does no harm.

use std::sync::Arc;
use std::time::Duration;

use leasehold::{ErrorKind, Examination, Property, Severity, Store};

use crate::actor::{Actor, PATIENT, claim, client, is_lost, soon};
use crate::chaos::{Call, Chaos, Fault};
use crate::{Bench, Reach};

async fn examine(store: Arc<dyn Store>) -> leasehold::Result<Examination> {
    let client = client(store, PATIENT);
    let found = soon("an examination", client.examine("try/")).await;
    client.close().await.expect("nothing is held");
    found
}

pub(crate) async fn an_examination_measures_and_judges(bench: &dyn Bench) {
    let found = examine(bench.handle()).await.expect("examines");
    assert!(found.probe.is_some(), "{found:#?}");
    let severities: Vec<_> = found.findings.iter().map(|finding| finding.severity).collect();
    assert!(severities.iter().rev().is_sorted(), "the worst first: {severities:?}");
    assert_eq!(found.worst(), severities[0]);
    for finding in &found.findings {
        let topic = finding.topic;
        assert!(topic.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{topic}");
        assert!(finding.says.ends_with(['.', ')']), "a sentence: {}", finding.says);
        assert!(finding.change.as_ref().is_none_or(|change| !change.is_empty()), "{finding:?}");
        let named = finding.server.as_ref();
        assert!(
            named.is_none_or(|name| found.servers.iter().any(|server| server.name == *name)),
            "{finding:?} is about a server that is listed"
        );
    }
    let probed = found.findings.iter().filter(|finding| finding.topic == "probe");
    assert!(probed.map(|finding| finding.severity).eq([Severity::Fine]), "{found:#?}");
    for server in &found.servers {
        let round_trip = server.round_trip.expect("it answers");
        assert!(round_trip.min <= round_trip.median && round_trip.median <= round_trip.max);
    }
    assert_eq!(found.servers.is_empty(), bench.reach() == Reach::Process);
}

pub(crate) async fn an_examination_leaves_nothing_and_disturbs_nobody(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let (held, waits) = (claim("k"), claim("k"));
    alice.holds(&held).await;
    bob.waits(&waits).await;
    examine(bench.handle()).await.expect("examines");
    let chaos = Chaos::new(bench.handle());
    // Given up while it enters: what the probe took is given back all the same.
    chaos.once(Call::Enter, Fault::HoldReply);
    let watched: Arc<dyn Store> = Arc::new(chaos.clone());
    let impatient = client(watched, PATIENT);
    tokio::select! {
        _ = impatient.examine("try/") => panic!("it ended although its enter was held back"),
        () = chaos.arrived(Call::Enter, 1) => {}
    }
    chaos.let_go();
    soon("the end of the probe's session", chaos.arrived(Call::Close, 1)).await;
    soon("no trace of the probe", async {
        while !alice.store.keys("try/").await.expect("lists").is_empty() {
            // sleep: the last request of the probe may still be under way.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let keys = alice.store.keys("").await.expect("lists");
    assert_eq!(keys, std::slice::from_ref(&held.key));
    assert!(!is_lost(&alice.renew(std::slice::from_ref(&held)).await, &held));
    if alice.store.guarantees().has(Property::Line) {
        assert_eq!(alice.line("k").await, (vec![held.id], vec![waits.id]));
        assert!(!is_lost(&bob.renew(std::slice::from_ref(&waits)).await, &waits));
    } else {
        assert_eq!(alice.line("k").await, (vec![held.id], vec![]), "no line is kept");
    }
}

pub(crate) async fn a_lock_that_cannot_be_taken_is_a_finding(bench: &dyn Bench) {
    for call in [Call::Open, Call::Enter, Call::Renew, Call::Leave, Call::Close] {
        let chaos = Chaos::new(bench.handle());
        chaos.always(call, Fault::Fail);
        let watched: Arc<dyn Store> = Arc::new(chaos.clone());
        let found = client(watched, PATIENT).examine("try/").await.expect("examines");
        let probed = found.findings.iter().find(|finding| finding.topic == "probe");
        let probed = probed.expect("the probe is told of");
        assert_eq!(probed.severity, Severity::Danger, "{call:?}: {probed:?}");
        assert!(probed.says.contains("chaos refused it"), "{call:?}: {probed:?}");
        assert!(found.probe.is_none() && found.worst() == Severity::Danger, "{call:?}");
    }
}

pub(crate) async fn rule_9_an_examination_shows_no_secret(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    let held = claim("k");
    alice.holds(&held).await;
    let found = examine(bench.handle()).await.expect("examines");
    let text = format!("{found:?}");
    assert!(!text.contains(&held.id.to_hex()), "a token is shown: {text}");
    assert!(!text.contains(alice.session.as_str()), "a session is shown: {text}");
    if let Some(secret) = bench.secret() {
        assert!(!text.contains(secret), "the password is shown: {text}");
    }
}

pub(crate) async fn an_examination_of_a_dead_server_is_an_error(bench: &dyn Bench) {
    let Some(server) = bench.server() else {
        // Nothing can be dead there.
        examine(bench.handle()).await.expect("examines");
        return;
    };
    let store = bench.handle();
    examine(Arc::clone(&store)).await.expect("examines");
    server.kill().await;
    let error = examine(Arc::clone(&store)).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.store(), Some(store.to_string().as_str()), "{error}");
    server.start().await;
    examine(store).await.expect("examines again");
}
