//! What the task makes of renewals, step by step.

use leasehold_core::{Note, Terms, Timing};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::session::Settings;
use crate::stores::Memory;

const TTL: Duration = Duration::from_secs(30);

/// A task whose session, opened at `sent`, is the only one.
fn work(session: &SessionId, sent: Moment) -> Work {
    let timing = Timing::new(TTL).unwrap();
    let terms = Terms { ttl: TTL, owner: Note::default(), detached: false };
    let shared = Shared {
        store: Arc::new(Memory::new()),
        settings: Settings { timing, terms, max_hold: None },
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
