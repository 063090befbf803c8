//! The table against a model that is too naive to be wrong, and the rule's invariants after each
//! step of random runs, with time passing.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::Note;

const KEYS: [&str; 2] = ["a", "b"];
const SESSIONS: usize = 4;
const TTL: Duration = Duration::from_secs(10);

/// One step of a run; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Enter { session: usize, key: usize, units: u32, limit: u32, enter: Enter },
    EnterAll { session: usize, sizes: [(u32, u32); KEYS.len()], backwards: bool },
    Again { claim: usize, enter: Enter },
    Leave { claim: usize, by: Option<usize> },
    Renew { session: usize },
    Close { session: usize },
    Revoke { claim: usize },
    Pass { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let enter = prop_oneof![Just(Enter::Try), Just(Enter::Wait), Just(Enter::Wait)];
    let sizes = prop_oneof![
        3 => Just((1_u32, 1_u32)),
        2 => (1_u32..4, Just(3_u32)),
        1 => Just((1, u32::MAX)),
        1 => Just((u32::MAX, u32::MAX)),
    ];
    prop_oneof![
        6 => (0..SESSIONS, 0..KEYS.len(), sizes.clone(), enter.clone()).prop_map(
            |(session, key, (units, limit), enter)| Step::Enter { session, key, units, limit, enter }
        ),
        2 => (0..SESSIONS, [sizes.clone(), sizes], any::<bool>()).prop_map(
            |(session, sizes, backwards)| Step::EnterAll { session, sizes, backwards }
        ),
        3 => (any::<usize>(), enter).prop_map(|(claim, enter)| Step::Again { claim, enter }),
        4 => (any::<usize>(), prop::option::weighted(0.2, 0..SESSIONS))
            .prop_map(|(claim, by)| Step::Leave { claim, by }),
        3 => (0..SESSIONS).prop_map(|session| Step::Renew { session }),
        1 => (0..SESSIONS).prop_map(|session| Step::Close { session }),
        1 => any::<usize>().prop_map(|claim| Step::Revoke { claim }),
        3 => (1_u64..7).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// What the naive model remembers of a claim that stands.
#[derive(Debug, Clone)]
struct Standing {
    claim: Claim,
    session: SessionId,
}

/// The model: one list of all claims in order of arrival, searched and filtered from its
/// beginning for every question.
#[derive(Debug, Default)]
struct Model {
    line: Vec<Standing>,
    expires: BTreeMap<SessionId, Moment>,
}

impl Model {
    fn lapse(&mut self, now: Moment) {
        self.expires.retain(|_, expires| *expires > now);
        let expires = &self.expires;
        self.line.retain(|standing| expires.contains_key(&standing.session));
    }

    fn on<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Claim> {
        self.line.iter().map(|standing| &standing.claim).filter(move |claim| claim.key == *key)
    }

    /// The claims that hold: by the definition, each judged by itself.
    fn holders(&self, key: &Key) -> Vec<ClaimId> {
        let line: Vec<&Claim> = self.on(key).collect();
        let holds = |at: &usize| {
            let ahead = &line[..=*at];
            let units: u64 = ahead.iter().map(|claim| u64::from(claim.units())).sum();
            ahead.iter().all(|claim| units <= u64::from(claim.limit()))
        };
        (0..line.len()).filter(holds).map(|at| line[at].id).collect()
    }

    /// The first limit in line that a new claim does not share.
    fn disagrees(&self, claim: &Claim) -> Option<u32> {
        let other = self.on(&claim.key).find(|other| {
            let pair = (other.limit().min(claim.limit()), other.limit().max(claim.limit()));
            pair.0 != pair.1 && pair != (1, u32::MAX)
        });
        other.map(Claim::limit)
    }

    fn stands(&self, id: ClaimId) -> Option<&Standing> {
        self.line.iter().find(|standing| standing.claim.id == id)
    }
}

/// Table and model in the same run.
struct Run {
    table: Table,
    model: Model,
    now: Moment,
    sessions: Vec<SessionId>,
    opened: usize,
    claims: Vec<(SessionId, Claim)>,
    fences: BTreeMap<ClaimId, Fence>,
    seen: BTreeSet<Fence>,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            table: Table::new(41),
            model: Model::default(),
            now: Moment::ORIGIN,
            sessions: vec![SessionId::new(""); SESSIONS],
            opened: 0,
            claims: Vec::new(),
            fences: BTreeMap::new(),
            seen: BTreeSet::new(),
        };
        for session in 0..SESSIONS {
            run.open(session);
        }
        run
    }

    fn open(&mut self, at: usize) {
        self.opened += 1;
        let id = SessionId::new(&format!("session {}", self.opened));
        let terms = Terms { ttl: TTL, owner: Note::default(), detached: false };
        self.table.open(self.now, id.clone(), terms);
        self.model.expires.insert(id.clone(), self.now + TTL);
        self.sessions[at] = id;
    }

    fn step(&mut self, step: &Step) {
        self.model.lapse(self.now);
        match *step {
            Step::Pass { seconds } => self.now = self.now + Duration::from_secs(seconds),
            Step::Enter { session, key, units, limit, enter } => {
                let session = self.sessions[session].clone();
                let claim = self.claim(&session, key, units, limit);
                self.enter(&session, &claim, enter);
            }
            Step::EnterAll { session, sizes, backwards } => {
                let session = self.sessions[session].clone();
                let each = sizes.into_iter().enumerate();
                let claims =
                    each.map(|(key, (units, limit))| self.claim(&session, key, units, limit));
                let mut claims: Vec<_> = claims.collect();
                if backwards {
                    claims.reverse();
                }
                self.enter_all(&session, &claims);
            }
            Step::Again { claim, enter } => {
                if let Some((session, claim)) = self.pick(claim)
                    && self.model.stands(claim.id).is_some()
                {
                    self.enter(&session, &claim, enter);
                }
            }
            Step::Leave { claim, by } => self.leave(claim, by),
            Step::Renew { session } => self.renew(session),
            Step::Close { session } => {
                let id = self.sessions[session].clone();
                self.table.close(self.now, &id);
                self.model.expires.remove(&id);
                self.model.lapse(self.now);
                self.open(session);
            }
            Step::Revoke { claim } => self.revoke(claim),
        }
        self.check();
    }

    fn pick(&self, at: usize) -> Option<(SessionId, Claim)> {
        (!self.claims.is_empty()).then(|| self.claims[at % self.claims.len()].clone())
    }

    /// One that was never used before.
    fn claim(&mut self, session: &SessionId, key: usize, units: u32, limit: u32) -> Claim {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.claims.len().to_le_bytes());
        let claim = Claim::counting(
            ClaimId::from_random(id),
            Key::new(KEYS[key]).unwrap(),
            Note::default(),
            NonZeroU32::new(units).unwrap(),
            NonZeroU32::new(limit).unwrap(),
        )
        .unwrap();
        self.claims.push((session.clone(), claim.clone()));
        claim
    }

    fn enter_all(&mut self, session: &SessionId, claims: &[Claim]) {
        let answer = self.table.enter_all(self.now, session, claims);
        if !self.model.expires.contains_key(session) {
            assert_eq!(answer, Err((0, NoEntry::NoSession)), "a lapsed session claims nothing");
            return;
        }
        let before = self.model.line.clone();
        for (at, claim) in claims.iter().enumerate() {
            let other = self.model.disagrees(claim);
            self.model.line.push(Standing { claim: claim.clone(), session: session.clone() });
            if other.is_none() && self.model.holders(&claim.key).contains(&claim.id) {
                continue;
            }
            match (&answer, other) {
                (Err((of, NoEntry::Disagrees { limit })), Some(other)) => {
                    assert_eq!((*of, *limit), (at, other));
                }
                (Ok(Together::Refused { at: of, .. }), None) => assert_eq!(*of, at),
                _ => panic!("{answer:?}, and {claim:?} does not fit"),
            }
            self.model.line = before;
            return;
        }
        let Ok(Together::Held(fences)) = answer else { panic!("{answer:?}, and all fit") };
        for (claim, fence) in claims.iter().zip(fences) {
            self.check_fence(claim.id, fence);
        }
    }

    fn enter(&mut self, session: &SessionId, claim: &Claim, enter: Enter) {
        let answer = self.table.enter(self.now, session, claim, enter);
        if !self.model.expires.contains_key(session) {
            assert_eq!(answer, Err(NoEntry::NoSession), "a session that lapsed claims nothing");
            return;
        }
        if self.model.stands(claim.id).is_none() {
            if let Some(limit) = self.model.disagrees(claim) {
                assert_eq!(answer, Err(NoEntry::Disagrees { limit }), "one of another limit");
                return;
            }
            let (claim, session) = (claim.clone(), session.clone());
            self.model.line.push(Standing { claim, session });
        }
        let holders = self.model.holders(&claim.key);
        let rank = self.model.on(&claim.key).position(|other| other.id == claim.id).unwrap();
        match answer.expect("the session lives") {
            Place::Held(_) => assert!(holders.contains(&claim.id), "granted out of turn"),
            Place::Waiting(ahead) | Place::Refused(ahead) => {
                assert!(!holders.contains(&claim.id), "kept waiting although it fits");
                assert_eq!(ahead.rank, Some(u32::try_from(rank - holders.len()).unwrap()));
                let holder = ahead.holder.and_then(|holder| holder.claim);
                assert_eq!(holder, holders.first().copied());
                if enter == Enter::Try {
                    self.model.line.retain(|standing| standing.claim.id != claim.id);
                }
            }
        }
    }

    fn leave(&mut self, claim: usize, by: Option<usize>) {
        let Some((owner, claim)) = self.pick(claim) else {
            return;
        };
        let session = by.map_or(owner, |by| self.sessions[by].clone());
        let left = self.table.leave(self.now, &session, &claim);
        let held = self.model.holders(&claim.key).contains(&claim.id);
        let stood = self.model.stands(claim.id).is_some_and(|it| it.session == session);
        match left {
            Left::Released => assert!(stood && held),
            // Who holds only since somebody ahead lapsed, and was not told, may hear either.
            Left::Withdrawn => {
                assert!(stood && !self.fences.contains_key(&claim.id), "a hold was denied");
            }
            Left::Gone => assert!(!stood),
        }
        if stood {
            self.model.line.retain(|standing| standing.claim.id != claim.id);
        }
    }

    fn renew(&mut self, session: usize) {
        let id = self.sessions[session].clone();
        let roll: Vec<ClaimId> =
            self.claims.iter().filter(|(of, _)| *of == id).map(|(_, claim)| claim.id).collect();
        match self.table.renew(self.now, &id, &roll) {
            Renewed::Ended => {
                assert!(!self.model.expires.contains_key(&id), "a live session was ended");
                self.open(session);
            }
            Renewed::Extended { lost } => {
                let expires = self.model.expires.get_mut(&id).expect("a lapsed session revived");
                *expires = self.now + TTL;
                let gone: Vec<ClaimId> =
                    roll.into_iter().filter(|id| self.model.stands(*id).is_none()).collect();
                assert_eq!(lost, gone);
            }
        }
    }

    fn revoke(&mut self, claim: usize) {
        let Some((_, claim)) = self.pick(claim) else {
            return;
        };
        let owner = self.table.revoke(self.now, &claim.key, claim.id);
        assert_eq!(owner, self.model.stands(claim.id).map(|standing| standing.session.clone()));
        self.model.line.retain(|standing| standing.claim.id != claim.id);
    }

    /// The invariants, and that both see the same lines.
    fn check(&mut self) {
        self.model.lapse(self.now);
        for key in KEYS.map(|key| Key::new(key).unwrap()) {
            let line = self.table.inspect(self.now, &key);
            let ids = |side: &[Party]| -> Vec<ClaimId> {
                side.iter().map(|party| party.claim.unwrap()).collect()
            };
            let (holders, waiters) = (ids(&line.holders), ids(&line.waiters));
            assert_eq!(holders, self.model.holders(&key), "who holds");
            let both: Vec<ClaimId> = holders.iter().chain(&waiters).copied().collect();
            let ours: Vec<ClaimId> = self.model.on(&key).map(|claim| claim.id).collect();
            assert_eq!(both, ours, "the holders are a prefix of the line, in order of arrival");
            assert_eq!(both.iter().collect::<BTreeSet<_>>().len(), both.len(), "nobody twice");
            assert!(line.waiters.iter().all(|waiter| waiter.fence.is_none()));
            let fences: Vec<Fence> =
                line.holders.iter().map(|holder| holder.fence.expect("holds")).collect();
            assert!(fences.is_sorted_by(|a, b| a < b), "in order of arrival: {fences:?}");
            for (id, fence) in holders.into_iter().zip(fences) {
                self.check_fence(id, fence);
            }
        }
        let named = KEYS.map(|key| Key::new(key).unwrap());
        let in_use: Vec<Key> =
            named.into_iter().filter(|key| self.model.on(key).next().is_some()).collect();
        assert_eq!(self.table.keys(self.now, ""), in_use, "a key is known while it is claimed");
    }

    /// A grant keeps its fence; another one's is greater than every one before it.
    fn check_fence(&mut self, id: ClaimId, fence: Fence) {
        if let Some(known) = self.fences.insert(id, fence) {
            assert_eq!(known, fence, "the fence of a grant changed");
            return;
        }
        assert!(self.seen.insert(fence), "{fence:?} was given twice");
        assert!(fence > Fence::new(41), "the numbers of an earlier life are not used again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_runs_agree_with_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
    }

    #[test]
    fn fences_of_one_key_grow_with_each_grant_in_time(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut run = Run::new();
        let mut last: BTreeMap<Key, Fence> = BTreeMap::new();
        for step in &steps {
            let before: BTreeSet<ClaimId> = run.fences.keys().copied().collect();
            run.step(step);
            for key in KEYS.map(|key| Key::new(key).unwrap()) {
                let line = run.table.inspect(run.now, &key);
                for holder in line.holders {
                    let (id, fence) = (holder.claim.unwrap(), holder.fence.unwrap());
                    if !before.contains(&id) {
                        let earlier = last.insert(key.clone(), fence);
                        prop_assert!(earlier.is_none_or(|earlier| fence > earlier));
                    }
                }
            }
        }
    }
}

fn exclusive(id: u8) -> Claim {
    Claim::exclusive(ClaimId::from_random([id; 16]), Key::new("a").unwrap(), Note::default())
}

fn opened(table: &mut Table, now: Moment, name: &str, ttl: Duration) -> SessionId {
    let id = SessionId::new(name);
    table.open(now, id.clone(), Terms { ttl, owner: Note::default(), detached: false });
    id
}

#[test]
fn a_crowd_of_dead_waiters_is_passed_over_in_one_step() {
    let mut table = Table::default();
    let start = Moment::ORIGIN;
    let alive = opened(&mut table, start, "alive", TTL * 10);
    let dead = opened(&mut table, start, "dead", TTL);
    table.enter(start, &alive, &exclusive(0), Enter::Wait).unwrap();
    for id in 1..200 {
        table.enter(start, &dead, &exclusive(id), Enter::Wait).unwrap();
    }
    table.enter(start, &alive, &exclusive(200), Enter::Wait).unwrap();
    table.take_woken();

    let later = start + TTL;
    assert_eq!(table.leave(later, &alive, &exclusive(0)), Left::Released);
    assert_eq!(table.take_woken(), vec![exclusive(200).id], "granted by the leave itself");
    let line = table.inspect(later, &exclusive(0).key);
    assert_eq!((line.holders.len(), line.waiters.len()), (1, 0));
}

#[test]
fn a_lease_ends_at_its_ttl_and_not_before() {
    let mut table = Table::default();
    let start = Moment::ORIGIN;
    let session = opened(&mut table, start, "s", TTL);
    table.enter(start, &session, &exclusive(1), Enter::Wait).unwrap();
    let last = start + TTL - Duration::from_nanos(1);
    assert_eq!(table.inspect(last, &exclusive(1).key).holders.len(), 1);
    assert_eq!(table.lapses_in(last, &exclusive(1).key), Some(Duration::from_nanos(1)));
    assert_eq!(table.inspect(start + TTL, &exclusive(1).key).holders.len(), 0);
    assert_eq!(table.renew(start + TTL, &session, &[]), Renewed::Ended, "never revived");
    assert_eq!(table.lapses_in(start + TTL, &exclusive(1).key), None);
}

#[test]
fn who_is_granted_without_asking_is_woken_once() {
    let mut table = Table::default();
    let now = Moment::ORIGIN;
    let session = opened(&mut table, now, "s", TTL);
    let [first, second, third] = [exclusive(1), exclusive(2), exclusive(3)];
    for claim in [&first, &second, &third] {
        table.enter(now, &session, claim, Enter::Wait).unwrap();
    }
    assert_eq!(table.take_woken(), vec![], "who asks hears it in the answer");
    table.leave(now, &session, &first);
    assert_eq!(table.take_woken(), vec![second.id]);
    assert_eq!(table.take_woken(), vec![]);
    table.revoke(now, &second.key, second.id);
    assert_eq!(table.take_woken(), vec![third.id]);
}

fn sized(id: u8, units: u32, limit: u32) -> Claim {
    let [units, limit] = [units, limit].map(|number| NonZeroU32::new(number).unwrap());
    let key = Key::new("a").unwrap();
    Claim::counting(ClaimId::from_random([id; 16]), key, Note::default(), units, limit).unwrap()
}

#[test]
fn who_needs_less_lets_in_who_then_fits_and_keeps_its_fence() {
    let mut table = Table::default();
    let now = Moment::ORIGIN;
    let session = opened(&mut table, now, "s", TTL);
    let [writer, reader, next] = [sized(1, 9, 9), sized(2, 1, 9), sized(3, 9, 9)];
    let Ok(Place::Held(fence)) = table.enter(now, &session, &writer, Enter::Wait) else {
        panic!("the line was empty");
    };
    table.enter(now, &session, &reader, Enter::Wait).unwrap();
    table.enter(now, &session, &next, Enter::Wait).unwrap();
    assert!(!table.amend(now, &session, &reader), "it waits");
    let note = Note::new("reads").unwrap();
    let reads = writer.amended(note.clone(), NonZeroU32::MIN);
    assert!(table.amend(now, &session, &reads));
    assert_eq!(table.take_woken(), vec![reader.id]);
    let line = table.inspect(now, &writer.key);
    assert_eq!(line.holders[0].fence, Some(fence));
    assert_eq!((&line.holders[0].note, line.holders[0].units), (&note, 1));
    assert_eq!((line.holders.len(), line.waiters.len()), (2, 1));
    assert!(table.amend(now, &session, &writer), "and more units are not had this way");
    assert_eq!(table.inspect(now, &writer.key).holders[0].units, 1);
    let other = opened(&mut table, now, "other", TTL);
    assert!(!table.amend(now, &other, &reads), "another's");
    assert!(!table.amend(now + TTL, &session, &reads), "it lapsed");
}

#[test]
fn a_record_is_written_only_if_what_was_provided_is_true() {
    let mut table = Table::default();
    let now = Moment::ORIGIN;
    let [session, other] = ["s", "t"].map(|name| opened(&mut table, now, name, TTL));
    let (hold, waiter) = (exclusive(1), exclusive(2));
    table.enter(now, &session, &hold, Enter::Wait).unwrap();
    table.enter(now, &other, &waiter, Enter::Wait).unwrap();
    let record = |text: &str| Record::new(text.as_bytes(), TTL * 2).unwrap();
    let key = &hold.key;
    assert_eq!(table.read(now, key), None);
    assert!(table.write(now, key, Provided::Unchanged(None), &record("one")));
    assert!(!table.write(now, key, Provided::Unchanged(None), &record("two")));
    let first = table.read(now, key).unwrap();
    assert_eq!(&*first.value, b"one");
    assert!(table.write(now, key, Provided::Held(&session, &hold), &record("held")));
    for (by, claim) in [(&other, &waiter), (&other, &hold), (&session, &waiter)] {
        assert!(!table.write(now, key, Provided::Held(by, claim), &record("stolen")));
    }
    assert!(!table.write(now, key, Provided::Unchanged(Some(first.version)), &record("stale")));
    let second = table.read(now, key).unwrap();
    assert_eq!(&*second.value, b"held");
    assert!(second.version > first.version);
    let later = now + TTL;
    assert!(!table.write(later, key, Provided::Held(&session, &hold), &record("lapsed")));
    assert_eq!(table.read(later, key), Some(second.clone()));
    assert_eq!(table.read(now + TTL * 2, key), None, "it was kept for so long only");
    assert!(table.write(now + TTL * 2, key, Provided::Unchanged(None), &record("new")));
    assert!(table.read(now + TTL * 2, key).unwrap().version > second.version);
}
