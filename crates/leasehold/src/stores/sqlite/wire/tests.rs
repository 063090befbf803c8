//! The file against the model, and against what a boot, a lost tail and a replacement do to it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use leasehold_core::backoff::Random;
use leasehold_core::{
    Ahead, Claim, ClaimId, Enter, Fence, Key, Left, Line, Moment, Note, Party, Place as Stand,
    Renewed, SessionId, Table, Terms,
};
use std::num::NonZeroU32;

use super::*;

fn open(path: &Path, boot: &str, floor: i64) -> Wire {
    Wire::open(Place::prepare(path).unwrap(), Boot::named(boot), floor).unwrap()
}

fn step<T>(wire: &mut Wire, work: impl FnOnce(&mut Wire) -> Result<T, Trouble>) -> T {
    wire.begin().unwrap();
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

/// Both sides of the comparison, fed the same steps.
struct Pair {
    table: Table,
    wire: Wire,
    now: u64,
    random: Random,
    sessions: Vec<SessionId>,
    claims: Vec<(SessionId, Claim)>,
    /// Per claim: its key, its fence in the model, and its fence in the file.
    fences: HashMap<ClaimId, (Key, u64, u64)>,
}

const KEYS: [&str; 3] = ["a", "a/b", "b"];
const TTL: Duration = Duration::from_secs(10);

impl Pair {
    fn new(path: &Path, seed: u64) -> Self {
        Self {
            table: Table::new(0),
            wire: open(path, "boot", 0),
            now: 1_000,
            random: Random::new(seed),
            sessions: Vec::new(),
            claims: Vec::new(),
            fences: HashMap::new(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.bits() % bound as u64).unwrap()
    }

    fn clock(&self) -> (Moment, i64) {
        (Moment::from_nanos(self.now), i64::try_from(self.now).unwrap())
    }

    fn step(&mut self) {
        self.now += self.random.bits() % 2_000_000_000;
        match self.below(12) {
            0 => self.open(),
            1 | 2 => self.renew(),
            3 if self.below(3) == 0 => self.close(),
            4..=7 => self.enter(),
            8 | 9 => self.leave(),
            10 => self.revoke(),
            11 => self.keys(),
            _ => self.look(),
        }
    }

    fn open(&mut self) {
        let (moment, now) = self.clock();
        let session = SessionId::new(&format!("s{}", self.sessions.len()));
        self.table.open(moment, session.clone(), terms(TTL));
        open_session(&mut self.wire, now, session.as_str(), TTL);
        self.sessions.push(session);
        // Opening clears away what lapsed, which the model does when it looks.
        self.look();
    }

    fn session(&mut self) -> Option<SessionId> {
        // Mostly one of the last, which may still live.
        let recent = self.sessions.len().min(5);
        let back = if recent == 0 { return None } else { self.below(recent) };
        self.sessions.iter().rev().nth(back).cloned()
    }

    fn known_claim(&mut self) -> Option<(SessionId, Claim)> {
        let recent = self.claims.len().min(12);
        let back = if recent == 0 { return None } else { self.below(recent) };
        self.claims.iter().rev().nth(back).cloned()
    }

    fn renew(&mut self) {
        let Some(session) = self.session() else { return };
        let roll: Vec<ClaimId> = self
            .claims
            .iter()
            .filter(|(owner, _)| *owner == session)
            .map(|(_, claim)| claim.id)
            .collect();
        let (moment, now) = self.clock();
        let expected = self.table.renew(moment, &session, &roll);
        let found = step(&mut self.wire, |wire| wire.renew(now, &session, &roll));
        assert_eq!(found, expected);
    }

    fn close(&mut self) {
        let Some(session) = self.session() else { return };
        let (moment, now) = self.clock();
        self.table.close(moment, &session);
        step(&mut self.wire, |wire| wire.end_session(now, &session));
    }

    fn enter(&mut self) {
        let again = self.below(3) == 0;
        let known = if again { self.known_claim() } else { None };
        let (session, claim) = match known {
            Some(known) => known,
            None => {
                let Some(session) = self.session() else { return };
                let claim = self.draw_claim();
                self.claims.push((session.clone(), claim.clone()));
                (session, claim)
            }
        };
        let enter = if self.below(3) == 0 { Enter::Try } else { Enter::Wait };
        let (moment, now) = self.clock();
        let expected = self.table.enter(moment, &session, &claim, enter).ok();
        let found = step(&mut self.wire, |wire| wire.enter(now, &session, &claim, enter)).ok();
        match (expected, found.map(|entered| entered.place)) {
            (None, None) => {}
            (Some(expected), Some(found)) => self.compare_places(&claim, expected, found),
            (expected, found) => panic!("{expected:?} but {found:?}"),
        }
    }

    fn draw_claim(&mut self) -> Claim {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.claims.len() as u64).to_le_bytes());
        let key = Key::new(KEYS[self.below(KEYS.len())]).unwrap();
        let limit = u32::try_from(self.below(4) + 1).unwrap();
        let units = u32::try_from(self.below(limit as usize) + 1).unwrap();
        let [units, limit] = [units, limit].map(|number| NonZeroU32::new(number).unwrap());
        Claim::counting(ClaimId::from_random(id), key, Note::default(), units, limit).unwrap()
    }

    fn leave(&mut self) {
        let Some((session, claim)) = self.known_claim() else { return };
        let (moment, now) = self.clock();
        let expected = self.table.leave(moment, &session, &claim);
        let found = step(&mut self.wire, |wire| wire.leave(now, &session, &claim));
        assert_eq!(found, expected);
    }

    fn revoke(&mut self) {
        let Some((_, claim)) = self.known_claim() else { return };
        let (moment, now) = self.clock();
        let expected = self.table.revoke(moment, &claim.key, claim.id);
        let found = step(&mut self.wire, |wire| wire.revoke(now, &claim.key, &claim.id));
        assert_eq!(found, expected.is_some());
    }

    fn keys(&mut self) {
        let (moment, now) = self.clock();
        for prefix in ["", "a", "a/", "b", "c"] {
            let expected = self.table.keys(moment, prefix);
            let found = step(&mut self.wire, |wire| wire.keys(now, prefix));
            assert_eq!(found, expected, "{prefix}");
        }
        // The model grants as it lists.
        self.look();
    }

    fn look(&mut self) {
        let (moment, now) = self.clock();
        for key in KEYS.map(|key| Key::new(key).unwrap()) {
            let expected = self.table.inspect(moment, &key);
            let found = step(&mut self.wire, |wire| wire.inspect(now, &key));
            let Line { holders, waiters } = expected;
            self.compare_parties(&key, holders, found.holders);
            self.compare_parties(&key, waiters, found.waiters);
        }
    }

    fn compare_places(&mut self, claim: &Claim, expected: Stand, found: Stand) {
        match (expected, found) {
            (Stand::Held(expected), Stand::Held(found)) => {
                self.compare_fences(claim.id, &claim.key, Some(expected), Some(found));
            }
            (Stand::Waiting(expected), Stand::Waiting(found))
            | (Stand::Refused(expected), Stand::Refused(found)) => {
                let Ahead { rank, holder, foreign } = found;
                assert_eq!((rank, foreign), (expected.rank, expected.foreign));
                self.compare_parties(
                    &claim.key,
                    expected.holder.into_iter().collect(),
                    holder.into_iter().collect(),
                );
            }
            (expected, found) => panic!("{expected:?} but {found:?}"),
        }
    }

    fn compare_parties(&mut self, key: &Key, expected: Vec<Party>, found: Vec<Party>) {
        assert_eq!(found.len(), expected.len());
        for (mut expected, mut found) in expected.into_iter().zip(found) {
            let id = expected.claim.unwrap();
            self.compare_fences(id, key, expected.fence.take(), found.fence.take());
            assert_eq!(found, expected);
        }
    }

    /// A claim keeps its fence, on both sides.
    fn compare_fences(
        &mut self,
        id: ClaimId,
        key: &Key,
        expected: Option<Fence>,
        found: Option<Fence>,
    ) {
        let (Some(expected), Some(found)) = (expected, found) else {
            assert_eq!(expected, found);
            return;
        };
        let fences = (key.clone(), expected.get(), found.get());
        assert_eq!(*self.fences.entry(id).or_insert_with(|| fences.clone()), fences);
    }

    /// Each key's grants came in the same order on both sides, under fences that grow.
    fn compare_order(self) -> usize {
        let mut fences: Vec<_> = self.fences.into_values().collect();
        fences.sort_unstable();
        for pair in fences.windows(2) {
            if let [(key, _, earlier), (same, _, later)] = pair
                && key == same
            {
                assert!(earlier < later, "{key:?}: {earlier} then {later}");
            }
        }
        fences.len()
    }
}

#[test]
fn the_file_answers_as_the_model_does() {
    let root = tempfile::tempdir().unwrap();
    let mut grants = 0;
    for seed in 0..40 {
        let mut pair = Pair::new(&root.path().join(format!("{seed}.db")), seed);
        pair.open();
        for _ in 0..250 {
            pair.step();
        }
        grants += pair.compare_order();
    }
    assert!(grants > 500, "only {grants} grants were compared");
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
    assert_eq!(before.begin().unwrap_err().kind, ErrorKind::Unsupported);
}

#[test]
fn a_file_that_is_replaced_under_a_handle_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut wire = open(&file, "boot", 0);
    open_session(&mut wire, 1, "s", TTL);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(wire.begin().unwrap_err().kind, ErrorKind::Unavailable);
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
