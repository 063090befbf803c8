//! The file against what a boot, a lost tail and a replacement do to it.

mod model;
mod records;

use std::path::Path;
use std::time::Duration;

use leasehold_core::{
    Ahead, Claim, ClaimId, Enter, Key, Left, Note, Place as Stand, Renewed, SessionId, Terms,
};

use super::*;
use crate::stores::sqlite::wake::News;

fn open(path: &Path, boot: &str, floor: i64) -> Wire {
    Wire::open(Place::prepare(path).unwrap(), Boot::named(boot), floor).unwrap()
}

const TTL: Duration = Duration::from_secs(10);

fn step<T>(wire: &mut Wire, work: impl FnOnce(&mut Wire) -> Result<T, Trouble>) -> T {
    wire.begin(false).unwrap();
    let outcome = work(wire).unwrap();
    wire.commit(&Mailbox::default()).unwrap();
    outcome
}

fn terms(ttl: Duration) -> Terms {
    // Detached: the model knows no processes.
    Terms { ttl, owner: Note::new("o").unwrap(), detached: true }
}

fn exclusive(id: u8, key: &str) -> Claim {
    Claim::exclusive(ClaimId::from_random([id; 16]), Key::new(key).unwrap(), Note::default())
}

fn open_session(wire: &mut Wire, now: i64, name: &str, ttl: Duration) -> SessionId {
    let session = SessionId::new(name);
    step(wire, |wire| {
        let peer = wire.be_seen()?;
        wire.open_session(now, &session, &terms(ttl), &peer)
    });
    session
}

/// Enters and leaves; the fence.
fn take(wire: &mut Wire, now: i64, session: &SessionId, claim: &Claim) -> u64 {
    let entered = step(wire, |wire| wire.enter(now, session, claim, Enter::Try)).unwrap();
    let Stand::Held(fence) = entered.place else {
        panic!("not held: {entered:?}");
    };
    assert_eq!(step(wire, |wire| wire.leave(now, session, claim)), Left::Released);
    fence.get()
}

#[test]
fn fences_grow_over_a_power_loss_that_took_the_last_commits() {
    let root = tempfile::tempdir().unwrap();
    let [live, lost] = ["live.db", "lost.db"].map(|name| root.path().join(name));
    let claim = exclusive(1, "k");

    let mut wire = open(&live, "first", 5_000);
    let session = open_session(&mut wire, 1, "s", TTL);
    // The last synced commit reserved the block. This is what the disk is sure to have.
    std::fs::copy(&live, &lost).unwrap();
    std::fs::copy(with_suffix(&live, "-wal"), with_suffix(&lost, "-wal")).unwrap();
    let given: Vec<u64> = (0..100).map(|_| take(&mut wire, 2, &session, &claim)).collect();
    assert!(given.is_sorted_by(|a, b| a < b));
    drop(wire);

    // The clock of a machine without a battery starts at 1970.
    let mut wire = open(&lost, "second", 0);
    assert_eq!(step(&mut wire, |wire| wire.renew(3, &session, &[])), Renewed::Ended);
    let session = open_session(&mut wire, 3, "t", TTL);
    assert!(take(&mut wire, 3, &session, &claim) > given[99]);
}

#[test]
fn the_reservation_is_on_disk_before_a_fence_is_given() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut wire = open(&file, "boot", 0);
    let session = open_session(&mut wire, 1, "s", TTL);
    let claim = exclusive(1, "k");
    for _ in 0..3 {
        let fence = take(&mut wire, 2, &session, &claim);
        assert!(i64::try_from(fence).unwrap() <= wire.read_counter().unwrap().reserved);
        // Nearly used up: the next transaction has to reserve first.
        let counter = wire.read_counter().unwrap();
        step(&mut wire, |wire| {
            wire.counter.last = counter.reserved - 1;
            Ok(())
        });
    }
    let level: i64 = wire.conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
    assert_eq!(level, 1, "back to NORMAL");
}

#[test]
fn fences_grow_over_an_older_copy_of_the_file_and_over_its_deletion() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let claim = exclusive(1, "k");
    let mut last = 0;
    // The wall clock goes on between the uses of the file.
    for floor in [1_000_000, 2_000_000, 3_000_000] {
        let mut wire = open(&file, "boot", floor);
        let session = open_session(&mut wire, 1, &format!("s{floor}"), TTL);
        for _ in 0..10 {
            let fence = take(&mut wire, 2, &session, &claim);
            assert!(fence > last);
            last = fence;
        }
        drop(wire);
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(with_suffix(&file, suffix)).unwrap();
        }
    }
}

#[test]
fn a_boot_ends_everything_and_two_machines_at_once_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let claim = exclusive(1, "k");
    let mut before = open(&file, "first", 0);
    let session = open_session(&mut before, 1_000, "s", TTL);
    step(&mut before, |wire| wire.enter(1_000, &session, &claim, Enter::Wait)).unwrap();

    // The clock of the second boot is still below the lapse that was written in the first.
    let mut after = open(&file, "second", 0);
    assert!(step(&mut after, |wire| wire.keys(10, "")).is_empty());
    let second = open_session(&mut after, 10, "t", TTL);
    let other = exclusive(2, "k");
    let entered = step(&mut after, |wire| wire.enter(10, &second, &other, Enter::Try)).unwrap();
    assert!(matches!(entered.place, Stand::Held(_)));

    // The first one is not of the past after all.
    assert_eq!(before.begin(false).unwrap_err().kind, ErrorKind::Unsupported);
}

#[test]
fn a_file_that_is_replaced_under_a_handle_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut wire = open(&file, "boot", 0);
    open_session(&mut wire, 1, "s", TTL);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(wire.begin(false).unwrap_err().kind, ErrorKind::Unavailable);
    assert!(!wire.is_sound());
}

#[test]
fn ten_thousand_claims_of_a_session_renew_and_end_at_once() {
    let root = tempfile::tempdir().unwrap();
    let mut wire = open(&root.path().join("l.db"), "boot", 0);
    let session = open_session(&mut wire, 1, "s", TTL);
    let claims: Vec<Claim> = (0..10_000_u32)
        .map(|number| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_le_bytes());
            let key = Key::new(&format!("k{number}")).unwrap();
            Claim::exclusive(ClaimId::from_random(id), key, Note::default())
        })
        .collect();
    step(&mut wire, |wire| {
        for claim in &claims {
            assert!(wire.enter(1, &session, claim, Enter::Try)?.is_ok());
        }
        Ok(())
    });
    let mut roll: Vec<ClaimId> = claims.iter().map(|claim| claim.id).collect();
    roll.push(ClaimId::from_random([255; 16]));
    let renewed = step(&mut wire, |wire| wire.renew(2, &session, &roll));
    assert_eq!(renewed, Renewed::Extended { lost: vec![ClaimId::from_random([255; 16])] });
    step(&mut wire, |wire| wire.end_session(3, &session));
    assert!(step(&mut wire, |wire| wire.keys(3, "")).is_empty());
    let left: i64 =
        wire.conn.query_row("SELECT count(*) FROM claims", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_claim_id_of_another_session_is_not_taken_for_ones_own() {
    let root = tempfile::tempdir().unwrap();
    let mut wire = open(&root.path().join("l.db"), "boot", 0);
    let [mine, theirs] = ["s", "t"].map(|name| open_session(&mut wire, 1, name, TTL));
    let claim = exclusive(1, "k");
    step(&mut wire, |wire| wire.enter(1, &mine, &claim, Enter::Wait)).unwrap();
    let entered = step(&mut wire, |wire| wire.enter(1, &theirs, &claim, Enter::Wait));
    assert_eq!(entered, Err(Refusal::NotYours));
    assert_eq!(step(&mut wire, |wire| wire.leave(1, &theirs, &claim)), Left::Gone);
    assert_eq!(step(&mut wire, |wire| wire.leave(1, &mine, &claim)), Left::Released);
}

fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn lasting_session(wire: &mut Wire, name: &str) -> SessionId {
    let session = SessionId::new(name);
    step(wire, |wire| {
        let peer = wire.be_seen()?;
        wire.open_session(1, &session, &Terms { detached: false, ..terms(TTL) }, &peer)
    });
    session
}

/// Each waits behind the one before it: who is watched, and who is told of what.
#[test]
fn each_waiter_watches_one_ahead_and_moves_up_when_that_one_leaves() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut wires: Vec<Wire> = (0..3).map(|_| open(&file, "boot", 0)).collect();
    let sessions: Vec<SessionId> = wires
        .iter_mut()
        .enumerate()
        .map(|(at, it)| lasting_session(it, &format!("s{at}")))
        .collect();
    let claims = [1, 2, 3].map(|id| exclusive(id, "k"));
    let names: Vec<String> = wires.iter().map(|it| it.own_name().unwrap().to_owned()).collect();
    let enter = |wires: &mut Vec<Wire>, at: usize| {
        let (session, claim) = (&sessions[at], &claims[at]);
        step(&mut wires[at], |wire| wire.enter(2, session, claim, Enter::Wait)).unwrap().watch
    };
    assert!(enter(&mut wires, 0).is_empty());
    assert_eq!(enter(&mut wires, 1), names[..1]);
    assert_eq!(enter(&mut wires, 2), names[1..2]);

    // The middle one gives up: the last one has to watch the holder from now on, so it is told.
    let told = step(&mut wires[1], |wire| {
        wire.leave(3, &sessions[1], &claims[1])?;
        Ok(wire.outbox.clone())
    });
    assert_eq!(told, [Letter { peer: names[2].clone(), news: News::Moved(claims[2].id) }]);
    assert_eq!(enter(&mut wires, 2), names[..1]);

    // The holder's process dies: the last one finds itself holding.
    drop(wires.remove(0));
    std::fs::write(root.path().join(format!("l.db-peers/{}.lock", names[0])), "").unwrap();
    let entered =
        step(&mut wires[1], |wire| wire.enter(4, &sessions[2], &claims[2], Enter::Wait)).unwrap();
    assert!(matches!(entered.place, Stand::Held(_)), "{entered:?}");
    let ended = step(&mut wires[1], |wire| wire.renew(4, &sessions[0], &[]));
    assert_eq!(ended, Renewed::Ended, "what was judged dead stays dead");
}

#[test]
fn a_crowd_of_dead_sessions_is_cleared_away_by_those_who_come() {
    let root = tempfile::tempdir().unwrap();
    let mut wire = open(&root.path().join("l.db"), "boot", 0);
    for number in 0..40 {
        let session = open_session(&mut wire, 1, &format!("s{number}"), TTL);
        let claim = exclusive(number, &format!("k{number}"));
        step(&mut wire, |wire| wire.enter(1, &session, &claim, Enter::Try)).unwrap();
    }
    let later = i64::try_from(TTL.as_nanos()).unwrap() * 2;
    assert!(step(&mut wire, |wire| wire.keys(later, "")).is_empty(), "ghosts are not shown");
    for number in 0..3 {
        open_session(&mut wire, later, &format!("t{number}"), TTL);
    }
    let count = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        wire.conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("sessions"), count("claims")), (3, 0));
}

/// Else it would wait for the end of what has ended, and hear nothing of the holder's.
#[test]
fn a_dead_waiter_ahead_is_dropped_and_the_one_before_it_is_watched() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let [mut first, mut second, mut third] = [(); 3].map(|()| open(&file, "boot", 0));
    let a = lasting_session(&mut first, "a");
    let b = lasting_session(&mut second, "b");
    let c = lasting_session(&mut third, "c");
    let [holder, dying, last] = [1, 2, 3].map(|id| exclusive(id, "k"));
    step(&mut first, |wire| wire.enter(1, &a, &holder, Enter::Wait)).unwrap();
    step(&mut second, |wire| wire.enter(1, &b, &dying, Enter::Wait)).unwrap();
    let dead = second.own_name().unwrap().to_owned();
    drop(second);
    std::fs::write(root.path().join(format!("l.db-peers/{dead}.lock")), "").unwrap();

    let entered = step(&mut third, |wire| wire.enter(2, &c, &last, Enter::Wait)).unwrap();
    assert_eq!(entered.watch, [first.own_name().unwrap().to_owned()]);
    assert!(matches!(entered.place, Stand::Waiting(Ahead { rank: Some(0), .. })), "{entered:?}");
}
