//! Elections as a program uses them.

use std::pin::pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use leasehold::{Client, Election, ErrorKind, Leadership, Observed, Property, Released};
use leasehold_core::{Provided, Record};

use crate::Bench;
use crate::actor::{Actor, PATIENT, client, key, soon};
use crate::chaos::{Call, Chaos, Fault};

/// A client under a name.
fn named(bench: &dyn Bench, owner: &str) -> Client {
    let builder = Client::builder().shared_store(bench.handle()).ttl(PATIENT).owner(owner);
    builder.build().expect("a client")
}

fn address(seen: &Observed) -> Option<&str> {
    match seen {
        Observed::Leads(leadership) => Some(leadership.note.as_str()),
        _ => None,
    }
}

pub(crate) async fn one_leads_and_the_next_follows(bench: &dyn Bench) {
    let [alice, bob] = [named(bench, "alice"), named(bench, "bob")];
    let [ours, theirs] =
        [alice.election("office"), bob.election("office")].map(|office| office.expect("an office"));
    assert_eq!(ours.leader().await.expect("answers"), None);
    let first = soon("the first", ours.campaign("a:1")).await.expect("leads");
    let told = theirs.leader().await.expect("answers").expect("somebody leads");
    let Leadership { owner, note, .. } = &told;
    // A store may keep no names: a quorum does not.
    if alice.store().guarantees().has(Property::Records) {
        assert_eq!((owner.as_str(), note.as_str()), ("alice", "a:1"));
        assert_eq!(told.term, Some(first.term()));
    }
    assert!(theirs.try_campaign("b:1").await.expect("answers").is_none());
    let campaigning = tokio::spawn(async move { theirs.campaign("b:2").await });
    let term = first.term();
    first.check().expect("leads");
    assert_eq!(first.resign().await.expect("resigns"), Released::Held);
    let second = soon("the second", campaigning).await.expect("no panic").expect("leads");
    assert!(second.term() > term);
    drop(second);
    let third = soon("after one that was dropped", ours.campaign("a:2")).await.expect("leads");
    assert_eq!(third.resign().await.expect("resigns"), Released::Held);
}

pub(crate) async fn a_leader_proclaims_without_losing_office(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let alice = client(Arc::new(chaos.clone()), PATIENT);
    let office = alice.election("office").expect("an office");
    let leader = soon("the first", office.campaign("a:1")).await.expect("leads");
    let proclaimed = leader.proclaim("a:2").await;
    if !alice.store().guarantees().has(Property::Counting) {
        let error = proclaimed.expect_err("a store that cannot amend says so");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        leader.check().expect("leads on");
        return;
    }
    proclaimed.expect("proclaims");
    // Through an answer that gets lost, too.
    chaos.once(Call::Amend, Fault::DropReply);
    chaos.once(Call::Write, Fault::DropReply);
    leader.proclaim("a:3").await.expect("proclaims");
    let now = office.leader().await.expect("answers").expect("leads");
    assert_eq!((now.note.as_str(), now.term), ("a:3", Some(leader.term())));
    let error = leader.proclaim(&"x".repeat(1025)).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(leader.resign().await.expect("resigns"), Released::Held);
}

pub(crate) async fn an_observer_is_told_of_every_leader(bench: &dyn Bench) {
    let [alice, bob] = [named(bench, "alice"), named(bench, "bob")];
    let office = alice.election("office").expect("an office");
    let mut seen = pin!(bob.election("office").expect("an office").observe());
    let first = soon("the first look", seen.next()).await.expect("goes on").expect("answers");
    assert_eq!(first, Observed::Vacant);
    if !alice.store().guarantees().has(Property::Records) {
        let leader = office.campaign("a").await.expect("leads");
        let told = soon("the leader", seen.next()).await.expect("goes on").expect("answers");
        assert!(matches!(told, Observed::Leads(_)), "{told:?}");
        leader.resign().await.expect("resigns");
        let told = soon("the vacancy", seen.next()).await.expect("goes on").expect("answers");
        assert_eq!(told, Observed::Vacant);
        return;
    }
    // Ten leaders, all between two looks or not: each is told of, in order.
    let mut terms = Vec::new();
    for n in 0..10 {
        let leader = office.campaign(&format!("a:{n}")).await.expect("leads");
        if n % 3 == 0 {
            leader.proclaim(&format!("a:{n} again")).await.expect("proclaims");
        }
        terms.push(leader.term());
        leader.resign().await.expect("resigns");
    }
    let mut told = Vec::new();
    let everything = async {
        while told.last().and_then(address) != Some("a:9 again") {
            told.push(seen.next().await.expect("goes on").expect("answers"));
        }
    };
    soon("the tenth leader", everything).await;
    let notes: Vec<&str> = told.iter().filter_map(address).collect();
    let expected: Vec<String> = (0..10)
        .flat_map(|n| {
            let again = (n % 3 == 0).then(|| format!("a:{n} again"));
            [Some(format!("a:{n}")), again]
        })
        .flatten()
        .collect();
    assert_eq!(notes, expected);
    let seen_terms: Vec<_> = told
        .iter()
        .filter_map(|seen| match seen {
            Observed::Leads(leadership) => leadership.term,
            _ => None,
        })
        .collect();
    assert!(seen_terms.is_sorted() && terms.iter().all(|term| seen_terms.contains(term)));
    let last = soon("the vacancy", seen.next()).await.expect("goes on").expect("answers");
    assert_eq!(last, Observed::Vacant);
}

/// The next of what is seen.
async fn next<S>(seen: &mut S) -> Observed
where
    S: Stream<Item = leasehold::Result<Observed>> + Unpin,
{
    soon("a change", seen.next()).await.expect("goes on").expect("answers")
}

/// Leads for a moment.
async fn reign(office: &Election, note: &str) {
    let leader = soon("a leader", office.campaign(note)).await.expect("leads");
    assert_eq!(leader.resign().await.expect("resigns"), Released::Held);
}

pub(crate) async fn an_observer_tells_of_changes_in_their_order_and_once(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let alice = named(bench, "alice");
    let bob = client(Arc::new(chaos.clone()), PATIENT);
    let office = alice.election("office").expect("an office");
    let watched = bob.election("office").expect("an office");
    if !alice.store().guarantees().has(Property::Records) {
        // It sees what is when it looks.
        let leader = office.campaign("a").await.expect("leads");
        assert!(matches!(next(&mut pin!(watched.observe())).await, Observed::Leads(_)));
        leader.resign().await.expect("resigns");
        return;
    }
    let seen = pin!(watched.observe());
    // Asked all the time, so that it looks all the time.
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let asking = seen.for_each(|change| {
        let _ = tell.send(change.expect("answers"));
        std::future::ready(())
    });
    let mut expect = async |expected: &[&str]| {
        for expected in expected {
            let change = soon("a change", told.recv()).await.expect("goes on");
            assert_eq!(address(&change).unwrap_or_default(), *expected, "{change:?}");
        }
    };
    chaos.once(Call::Inspect, Fault::HoldReply);
    let scenes = async {
        // Those who come and go during its first look.
        soon("the first look", chaos.arrived(Call::Inspect, 1)).await;
        reign(&office, "a").await;
        chaos.let_go();
        expect(&["a", ""]).await;
        // Who led when it looked does so no more when it has the answer.
        let leader = office.campaign("b").await.expect("leads");
        expect(&["b"]).await;
        let looks = chaos.count(Call::Inspect);
        chaos.once(Call::Inspect, Fault::HoldReply);
        soon("a look", chaos.arrived(Call::Inspect, looks + 1)).await;
        leader.resign().await.expect("resigns");
        let leader = office.campaign("c").await.expect("leads");
        chaos.let_go();
        expect(&["", "c"]).await;
        // It sees who leads, and only then those in between.
        let looks = chaos.count(Call::Inspect);
        chaos.once(Call::Inspect, Fault::HoldRequest);
        soon("a look", chaos.arrived(Call::Inspect, looks + 1)).await;
        leader.resign().await.expect("resigns");
        reign(&office, "d").await;
        let leader = office.campaign("e").await.expect("leads");
        chaos.let_go();
        expect(&["", "d", "", "e"]).await;
        leader.resign().await.expect("resigns");
        expect(&[""]).await;
        // Seen before it is written down.
        let lock = office.lock().clone().note("f").expect("a note");
        let guard = lock.lock().await.expect("locks");
        expect(&["f"]).await;
        let leader = office.take_office(guard).await.expect("takes office");
        let looks = chaos.count(Call::Inspect);
        soon("two looks", chaos.arrived(Call::Inspect, looks + 2)).await;
        leader.resign().await.expect("resigns");
        reign(&office, "g").await;
        expect(&["", "g", ""]).await;
    };
    tokio::select! {
        () = scenes => {}
        () = asking => panic!("it goes on for ever"),
    }
}

pub(crate) async fn an_observer_that_missed_changes_says_how_many(bench: &dyn Bench) {
    let [alice, bob] = [named(bench, "alice"), named(bench, "bob")];
    let office = alice.election("office").expect("an office");
    if !alice.store().guarantees().has(Property::Records) {
        reign(&office, "a").await;
        return;
    }
    let mut seen = pin!(bob.election("office").expect("an office").observe());
    assert_eq!(next(&mut seen).await, Observed::Vacant);
    let leader = soon("a leader", office.campaign("0")).await.expect("leads");
    for n in 1..66 {
        leader.proclaim(&n.to_string()).await.expect("proclaims");
    }
    assert_eq!(next(&mut seen).await, Observed::Missed(2));
    for n in 2..66 {
        let change = next(&mut seen).await;
        assert_eq!(address(&change), Some(n.to_string().as_str()), "{change:?}");
    }
    leader.resign().await.expect("resigns");
    assert_eq!(next(&mut seen).await, Observed::Vacant);
}

pub(crate) async fn who_loses_the_office_before_taking_it_campaigns_again(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let alice = client(Arc::new(chaos.clone()), PATIENT);
    let office = alice.election("office").expect("an office");
    let elsewhere = alice.mutex("elsewhere").expect("a mutex");
    let guard = soon("another lock", elsewhere.lock()).await.expect("locks");
    let error = office.take_office(guard).await.expect_err("it is of another key");
    assert_eq!((error.kind(), error.key()), (ErrorKind::Invalid, Some(office.lock().key())));
    soon("given back", elsewhere.lock()).await.expect("locks").release().await.expect("ends");
    if !alice.store().guarantees().has(Property::Records) {
        reign(&office, "a").await;
        return;
    }
    chaos.once(Call::Read, Fault::Fail);
    let leader = soon("a leader", office.campaign("a")).await.expect("leads, through trouble");
    let term = leader.term();
    leader.resign().await.expect("resigns");
    // Nobody tells it that its hold was revoked.
    chaos.always(Call::Disturbed, Fault::Freeze);
    let writes = chaos.count(Call::Write);
    chaos.once(Call::Write, Fault::HoldRequest);
    let campaigning = tokio::spawn({
        let office = office.clone();
        async move { office.campaign("b").await }
    });
    soon("the taking of office", chaos.arrived(Call::Write, writes + 1)).await;
    let operator = Actor::patient(bench).await;
    let (holders, _) = operator.line("office").await;
    assert!(operator.store.revoke(&key("office"), &holders[0]).await.expect("answers"));
    chaos.let_go();
    let leader = soon("a leader", campaigning).await.expect("no panic").expect("leads at last");
    assert!(leader.term() > term);
    let (after, _) = operator.line("office").await;
    assert!(after.len() == 1 && after != holders, "by another hold");
    leader.check().expect("leads");
    assert_eq!(leader.resign().await.expect("resigns"), Released::Held);
}

pub(crate) async fn an_observer_outlasts_trouble_and_tells_of_it(bench: &dyn Bench) {
    let alice = client(bench.handle(), PATIENT);
    let chaos = Chaos::new(bench.handle());
    let bob = client(Arc::new(chaos.clone()), PATIENT);
    let mut seen = pin!(bob.election("office").expect("an office").observe());
    assert_eq!(soon("a look", seen.next()).await.expect("on").expect("answers"), Observed::Vacant);
    chaos.all(Fault::Fail);
    let error = soon("the trouble", seen.next()).await.expect("goes on").expect_err("is told");
    assert!(error.is_transient(), "{error}");
    let office = alice.election("office").expect("an office");
    let leader = office.campaign("a").await.expect("leads");
    chaos.heal();
    let told = async {
        loop {
            // More of the trouble may have been noticed before it was over.
            if let Ok(told) = seen.next().await.expect("goes on") {
                return told;
            }
        }
    };
    let told = soon("the leader", told).await;
    assert!(matches!(told, Observed::Leads(_)), "{told:?}");
    leader.resign().await.expect("resigns");
}

pub(crate) async fn an_office_whose_record_is_of_something_else_is_refused(bench: &dyn Bench) {
    let alice = client(bench.handle(), PATIENT);
    if !alice.store().guarantees().has(Property::Records) {
        // There is nothing to mistake for an election's: the office works without.
        let leader = alice.election("k").expect("an office").campaign("a").await.expect("leads");
        leader.resign().await.expect("resigns");
        return;
    }
    for bytes in
        [&b"not JSON"[..], b"{}", br#"{"leasehold":"job/1"}"#, br#"{"leasehold":"election/1"}"#]
    {
        let record = Record::new(bytes, Record::MAX_KEEP).expect("a record");
        let version = alice.store().read(&key("k")).await.expect("answers").written;
        let provided = Provided::Unchanged(version.map(|written| written.version));
        assert!(alice.store().write(&key("k"), provided, &record).await.expect("answers"));
        let office = alice.election("k").expect("an office");
        let error = soon("campaign", office.campaign("a")).await.expect_err("another's record");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(error.key(), Some(&key("k")), "{error}");
        let read = &alice.store().read(&key("k")).await.expect("answers").written;
        assert_eq!(&*read.as_ref().expect("is there").value, bytes, "it is left as it was");
    }
    let mut seen = pin!(alice.election("k").expect("an office").observe());
    let error = soon("a look", seen.next()).await.expect("tells").expect_err("another's record");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(soon("the end", seen.next()).await.is_none(), "asking again does not mend it");
    let free = alice.mutex("k").expect("a mutex");
    soon("the office was given back", free.lock())
        .await
        .expect("locks")
        .release()
        .await
        .expect("ends");
}
