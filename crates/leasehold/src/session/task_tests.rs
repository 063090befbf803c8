//! What the task makes of renewals, step by step.

use std::sync::atomic::Ordering;

use leasehold_core::{Key, Note, Terms, Timing};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::property::Properties;
use crate::session::Settings;
use crate::stores::Memory;

const TTL: Duration = Duration::from_secs(30);

/// A task whose session, opened at `sent`, is the only one.
fn work(session: &SessionId, sent: Moment) -> Work {
    let timing = Timing::new(TTL).unwrap();
    let terms = Terms { ttl: TTL, owner: Note::default(), detached: false };
    let shared = Shared {
        store: Arc::new(Memory::new()),
        settings: Settings { timing, terms, max_hold: None, demand: Properties::NONE },
        state: std::sync::Mutex::default(),
        ended: CancellationToken::new(),
    };
    shared.lock().open = Some(Open { id: session.clone(), sent });
    Work::new(Arc::new(shared))
}

fn extended(session: &SessionId, sent: Moment) -> Renewal {
    let renewed = Ok(Renewed::Extended { lost: Vec::new() });
    let outcome = Outcome { sent, batch: Vec::new(), renewed };
    Renewal { session: session.clone(), sent, outcomes: vec![outcome] }
}

/// A session ends, another is opened, and only then is the renewal of the first one sent: what
/// the store says to that is no news of the second, whose claims would trust a lease too long.
#[test]
fn a_renewal_of_an_older_session_extends_no_other() {
    let (older, newer) = (SessionId::new("older"), SessionId::new("newer"));
    let opened = clock::now();
    let mut work = work(&newer, opened);
    let later = opened + TTL / 2;
    for renewed in [Ok(Renewed::Extended { lost: Vec::new() }), Ok(Renewed::Ended)] {
        let outcome = Outcome { sent: later, batch: Vec::new(), renewed };
        let session = older.clone();
        work.renewed(Renewal { session, sent: later, outcomes: vec![outcome] });
        let open = work.shared.lock().open.clone().expect("the newer one goes on");
        assert_eq!((open.id, open.sent), (newer.clone(), opened));
    }
    work.renewed(extended(&newer, later));
    assert_eq!(work.shared.lock().open.clone().expect("it goes on").sent, later);
}

/// A hundred thousand holds with a cap must not cost each other a walk: neither when they are
/// granted, nor when the caps are reached one by one.
#[test]
fn a_capped_hold_costs_no_walk_through_the_others() {
    const HOLDS: u64 = 1000;
    let session = SessionId::new("session");
    let opened = clock::now();
    let mut work = work(&session, opened);
    let timing = work.shared.settings.timing;
    let cap = |hold: u64| opened + Duration::from_millis(hold) + timing.grace();
    let mut entries = Vec::new();
    for hold in 1..=HOLDS {
        let key = Key::new(&format!("key/{hold}")).unwrap();
        let claim = Claim::exclusive(random::claim_id().unwrap(), key, Note::default());
        let entry = Arc::new(Entry::new(claim, session.clone(), opened, timing));
        entry.set_entered();
        let mut state = work.shared.lock();
        state.entries.insert(Arc::clone(&entry));
        state.entries.cap(&entry, cap(hold));
        drop(state);
        work.take(Order::Expect(entry.lapses_at()));
        entries.push(entry);
    }
    assert_eq!(work.next_wake(), Some(opened + Duration::from_millis(1)));
    // One is released, so its cap matters to nobody.
    work.shared.lock().entries.remove(&entries[0].claim.id);
    for hold in 1..=HOLDS {
        let lost = || entries.iter().filter(|entry| entry.lost().is_cancelled()).count() as u64;
        assert_eq!(lost(), (hold - 1).saturating_sub(1), "at the cap of one, only that is lost");
        work.tick(opened + Duration::from_millis(hold));
    }
    assert_eq!(work.next_wake(), work.next_loss, "no cap is left");
    let walks = work.shared.lock().entries.walks.load(Ordering::Relaxed);
    assert_eq!(walks, 0, "each is a walk through all holds");
}
