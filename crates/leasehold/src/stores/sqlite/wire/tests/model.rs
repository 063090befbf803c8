//! The file and the model, fed the same random steps: every answer of the one must be that of the
//! other.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use leasehold_core::backoff::Random;
use leasehold_core::table::NoEntry;
use leasehold_core::{
    Ahead, Claim, ClaimId, Enter, Fence, Key, Line, Moment, Note, Party, Place as Stand, Provided,
    Record, SessionId, Table, Together, Version, Written,
};

use super::super::{Refusal, Wire};
use super::{TTL, open, open_session, step, terms};

/// Both sides of the comparison, fed the same steps.
struct Pair {
    table: Table,
    wire: Wire,
    now: u64,
    random: Random,
    sessions: Vec<SessionId>,
    claims: Vec<(SessionId, Claim)>,
    /// Per fence of the model: the key and the claim it was granted to, and the file's fence.
    fences: HashMap<u64, (Key, ClaimId, u64)>,
    /// Versions that were read: the key, the model's and the file's.
    versions: Vec<(Key, Version, Version)>,
    seen: Seen,
}

/// What a run came across, so that it is known to have tried it.
#[derive(Debug, Default)]
struct Seen {
    disagreements: usize,
    amended: usize,
    written: usize,
    written_under_holds: usize,
    held_together: usize,
    refused_together: usize,
}

const KEYS: [&str; 3] = ["a", "a/b", "b"];

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
            versions: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.bits() % bound as u64).unwrap()
    }

    fn clock(&self) -> (Moment, i64) {
        (Moment::from_nanos(self.now), i64::try_from(self.now).unwrap())
    }

    fn step(&mut self) {
        self.now += self.random.bits() % 800_000_000;
        match self.below(20) {
            0 => self.open(),
            1 | 2 => self.renew(),
            3 if self.below(3) == 0 => self.close(),
            4..=7 => self.enter(),
            8 | 9 => self.leave(),
            10 => self.revoke(),
            11 => self.keys(),
            12 | 13 => self.amend(),
            14..=16 => self.write(),
            17 | 18 => self.enter_all(),
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
        let (session, claim) = if let Some(known) = known {
            known
        } else {
            let Some(session) = self.session() else { return };
            let claim = self.draw_claim();
            self.claims.push((session.clone(), claim.clone()));
            (session, claim)
        };
        let enter = if self.below(3) == 0 { Enter::Try } else { Enter::Wait };
        let (moment, now) = self.clock();
        let expected = self.table.enter(moment, &session, &claim, enter);
        let found = step(&mut self.wire, |wire| wire.enter(now, &session, &claim, enter));
        match (expected, found.map(|entered| entered.place)) {
            (Err(NoEntry::NoSession), Err(Refusal::NoSession)) => {}
            (Err(NoEntry::Disagrees { limit }), Err(Refusal::Disagrees { limit: found })) => {
                assert_eq!(found, limit);
                self.seen.disagreements += 1;
            }
            (Ok(expected), Ok(found)) => self.compare_places(&claim, expected, found),
            (expected, found) => panic!("{expected:?} but {found:?}"),
        }
    }

    /// New claims on some of the keys, or those of an earlier step, of which some may hold.
    fn enter_all(&mut self) {
        let Some(session) = self.session() else { return };
        let first = self.below(KEYS.len());
        let several = 2 + self.below(KEYS.len() - 1);
        let mut claims = Vec::new();
        for at in first..first + several {
            let claim = self.draw_claim_on(at % KEYS.len());
            self.claims.push((session.clone(), claim.clone()));
            claims.push(claim);
        }
        for _ in 0..=self.below(2) {
            let (moment, now) = self.clock();
            let expected = self.table.enter_all(moment, &session, &claims);
            let found = step(&mut self.wire, |wire| wire.enter_all(now, &session, &claims));
            match (expected, found) {
                (Err((at, NoEntry::NoSession)), Err((found, Refusal::NoSession))) => {
                    assert_eq!(found, at);
                }
                (
                    Err((at, NoEntry::Disagrees { limit })),
                    Err((found_at, Refusal::Disagrees { limit: found })),
                ) => assert_eq!((found_at, found), (at, limit)),
                (
                    Ok(Together::Refused { at, ahead }),
                    Ok(Together::Refused { at: found_at, ahead: found }),
                ) => {
                    assert_eq!(found_at, at);
                    self.compare_places(&claims[at], Stand::Refused(ahead), Stand::Refused(found));
                    self.seen.refused_together += 1;
                }
                (Ok(Together::Held(expected)), Ok(Together::Held(found))) => {
                    assert_eq!((expected.len(), found.len()), (claims.len(), claims.len()));
                    for (claim, (expected, found)) in
                        claims.iter().zip(expected.into_iter().zip(found))
                    {
                        self.compare_fences(claim.id, &claim.key, Some(expected), Some(found));
                    }
                    self.seen.held_together += 1;
                }
                (expected, found) => panic!("{expected:?} but {found:?}"),
            }
            // In between one may go.
            self.leave();
        }
        self.look();
    }

    fn draw_claim(&mut self) -> Claim {
        let on = self.below(KEYS.len());
        self.draw_claim_on(on)
    }

    fn draw_claim_on(&mut self, on: usize) -> Claim {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.claims.len() as u64).to_le_bytes());
        let key = Key::new(KEYS[on]).unwrap();
        // Mostly the limit that goes with the key, so that there are lines and not just refusals.
        let odd = self.below(6) == 0;
        let limit = u32::try_from(if odd { self.below(4) } else { on + 1 } + 1).unwrap();
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

    fn amend(&mut self) {
        let Some((session, claim)) = self.known_claim() else { return };
        let units = u32::try_from(self.below(4) + 1).unwrap().try_into().unwrap();
        let note = Note::new(&format!("at {}", self.now)).unwrap();
        let amended = claim.amended(note, units);
        let (moment, now) = self.clock();
        let expected = self.table.amend(moment, &session, &amended);
        let found = step(&mut self.wire, |wire| wire.amend(now, &session, &amended));
        assert_eq!(found, expected);
        self.seen.amended += usize::from(found);
        self.look();
    }

    fn write(&mut self) {
        let (moment, now) = self.clock();
        let keep = Duration::from_secs(1 + self.random.bits() % 8);
        let record = Record::new(self.now.to_string().as_bytes(), keep).unwrap();
        if self.below(2) == 0 {
            let Some((session, claim)) = self.known_claim() else { return };
            let provided = Provided::Held(&session, &claim);
            let expected = self.table.write(moment, &claim.key, provided, &record);
            let found = step(&mut self.wire, |wire| {
                wire.write(now, Duration::ZERO, &claim.key, provided, &record)
            });
            assert_eq!(found, expected);
            self.seen.written_under_holds += usize::from(found);
        } else {
            let key = Key::new(KEYS[self.below(KEYS.len())]).unwrap();
            // One that was read, mostly the last: of this key or of another, standing or not.
            let back = self.below(3);
            let known = self.versions.iter().rev().filter(|(of, ..)| *of == key || back == 2);
            let known = known.take(back + 1).last().map(|(_, model, file)| (*model, *file));
            let known = if self.below(4) == 0 { None } else { known };
            let [model, file] = [known.map(|known| known.0), known.map(|known| known.1)];
            let expected = self.table.write(moment, &key, Provided::Unchanged(model), &record);
            let found = step(&mut self.wire, |wire| {
                wire.write(now, Duration::ZERO, &key, Provided::Unchanged(file), &record)
            });
            assert_eq!(found, expected);
            self.seen.written += usize::from(found);
        }
        self.read();
    }

    fn read(&mut self) {
        let (moment, now) = self.clock();
        for key in KEYS.map(|key| Key::new(key).unwrap()) {
            let expected = self.table.read(moment, &key);
            let found = step(&mut self.wire, |wire| wire.read(now, &key));
            let value = |written: &Option<Written>| written.as_ref().map(|it| it.value.clone());
            assert_eq!(value(&found), value(&expected));
            if let (Some(model), Some(file)) = (expected, found) {
                let pair = (key, model.version, file.version);
                if !self.versions.contains(&pair) {
                    let same = |(_, model, file): &(Key, Version, Version)| {
                        *model == pair.1 || *file == pair.2
                    };
                    assert!(!self.versions.iter().any(same), "a version was used twice");
                    self.versions.push(pair);
                }
            }
        }
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

    /// A grant keeps its fence, on both sides.
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
        let grant = (key.clone(), id, found.get());
        assert_eq!(*self.fences.entry(expected.get()).or_insert_with(|| grant.clone()), grant);
    }

    /// Each key's grants came in the same order on both sides, under fences that grow.
    fn compare_order(&mut self) -> usize {
        let grants = std::mem::take(&mut self.fences)
            .into_iter()
            .map(|(model, (key, _, file))| (key, model, file));
        let mut grants: Vec<_> = grants.collect();
        grants.sort_unstable();
        for pair in grants.windows(2) {
            if let [(key, _, earlier), (same, _, later)] = pair
                && key == same
            {
                assert!(earlier < later, "{key:?}: {earlier} then {later}");
            }
        }
        grants.len()
    }
}

#[test]
fn the_file_answers_as_the_model_does() {
    let root = tempfile::tempdir().unwrap();
    let (mut grants, mut all) = (0, Seen::default());
    for seed in 0..20 {
        let mut pair = Pair::new(&root.path().join(format!("{seed}.db")), seed);
        pair.open();
        for _ in 0..500 {
            pair.step();
        }
        grants += pair.compare_order();
        all.disagreements += pair.seen.disagreements;
        all.amended += pair.seen.amended;
        all.written += pair.seen.written;
        all.written_under_holds += pair.seen.written_under_holds;
        all.held_together += pair.seen.held_together;
        all.refused_together += pair.seen.refused_together;
    }
    let Seen { disagreements, amended, written, written_under_holds, .. } = all;
    let together = [all.held_together, all.refused_together];
    let least =
        [disagreements, amended, written, written_under_holds].into_iter().chain(together).min();
    assert!(least > Some(30), "{all:?}");
    assert!(grants > 400, "only {grants} grants were compared");
}
