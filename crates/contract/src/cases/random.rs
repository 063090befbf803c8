//! Random operations, compared step by step with the rule itself.

use std::sync::Arc;

use leasehold::{ErrorKind, LeaseScope, Property, Store, clock};
use leasehold_core::backoff::Random;
use leasehold_core::table::NoEntry;
use leasehold_core::{
    Ahead, Claim, ClaimId, Enter, Fence, Left, Line, Place, SessionId, Table, Together,
};

use crate::Bench;
use crate::actor::{PATIENT, claim, key, random_bytes, share, terms};

const KEYS: [&str; 3] = ["a", "b", "{c}"];
const STEPS: usize = 400;

/// The store and the rule side by side: every answer of the one must be that of the other.
struct Twin {
    stores: [Arc<dyn Store>; 2],
    table: Table,
    sessions: Vec<SessionId>,
    /// Claims that were ever made, with the session that made them: live ones and stale ones.
    claims: Vec<(usize, Claim)>,
    /// The greatest fence that was seen, and the fence of each claim that was seen to hold.
    last_fence: std::collections::HashMap<&'static str, Fence>,
    fences: std::collections::HashMap<ClaimId, Fence>,
    random: Random,
}

pub(crate) async fn random_operations_agree_with_the_rule(bench: &dyn Bench) {
    let seed = u64::from_le_bytes(random_bytes()[..8].try_into().expect("8 of 16 bytes"));
    // Shown when the case fails: `Random::new(seed)` repeats the run.
    println!("seed {seed}");
    let mut twin = Twin {
        stores: [bench.handle(), bench.handle()],
        table: Table::default(),
        sessions: Vec::new(),
        claims: Vec::new(),
        last_fence: std::collections::HashMap::new(),
        fences: std::collections::HashMap::new(),
        random: Random::new(seed),
    };
    for _ in 0..4 {
        twin.open().await;
    }
    for step in 0..STEPS {
        twin.step(step).await;
    }
}

impl Twin {
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("small");
        usize::try_from(self.random.bits() % bound).expect("small")
    }

    /// A session stays on the handle that opened it.
    fn store(&self, session: usize) -> Arc<dyn Store> {
        Arc::clone(&self.stores[session % 2])
    }

    async fn open(&mut self) {
        let terms = terms(PATIENT, "random");
        let session = self.store(self.sessions.len()).open(&terms).await.expect("opens");
        self.table.open(clock::now(), session.clone(), terms);
        self.sessions.push(session);
    }

    async fn step(&mut self, step: usize) {
        match self.below(22) {
            0..=3 => self.enter_new(step, Enter::Try).await,
            4..=8 => self.enter_new(step, Enter::Wait).await,
            9..=11 => self.enter_again(step).await,
            12..=16 => self.leave(step).await,
            17 => self.revoke(step).await,
            18 => self.renew(step).await,
            19 | 20 => self.enter_all(step).await,
            _ if self.below(4) == 0 => self.replace_session().await,
            _ => {}
        }
        let at = self.below(KEYS.len());
        self.compare_line(step, KEYS[at]).await;
        self.compare_keys(step).await;
    }

    async fn enter_new(&mut self, step: usize, enter: Enter) {
        let session = self.below(self.sessions.len());
        let on = KEYS[self.below(KEYS.len())];
        let claim = self.new_claim(session, on);
        self.enter(step, session, &claim, enter).await;
    }

    fn new_claim(&mut self, session: usize, on: &'static str) -> Claim {
        let units = u32::try_from(1 + self.below(3)).expect("small");
        let counting = self.stores[0].guarantees().has(Property::Counting);
        // Mostly the limit that goes with the key, so that there are lines and not just refusals.
        let limits = [1, 3, u32::MAX];
        let of_key = KEYS.iter().position(|key| *key == on).expect("a known key");
        let odd = self.below(8) == 0;
        let limit = limits[if odd { self.below(3) } else { of_key }];
        let claim = match limit {
            3 if counting => share(on, units, 3),
            u32::MAX if counting && units == 1 => share(on, u32::MAX, u32::MAX),
            u32::MAX if counting => share(on, 1, u32::MAX),
            _ => claim(on),
        };
        self.claims.push((session, claim.clone()));
        claim
    }

    /// New claims on two keys or three, in one step where the store can.
    async fn enter_all(&mut self, step: usize) {
        let session = self.below(self.sessions.len());
        let (first, several) = (self.below(KEYS.len()), 2 + self.below(KEYS.len() - 1));
        let keys = (first..first + several).map(|at| KEYS[at % KEYS.len()]);
        let claims: Vec<_> = keys.map(|on| self.new_claim(session, on)).collect();
        for _ in 0..=self.below(2) {
            let id = self.sessions[session].clone();
            let said = self.store(session).enter_all(&id, &claims).await;
            if matches!(said, Ok(Together::Apart)) {
                break;
            }
            let ruled = self.table.enter_all(clock::now(), &id, &claims);
            match (said, ruled) {
                (Ok(Together::Held(fences)), Ok(Together::Held(_))) => {
                    assert_eq!(fences.len(), claims.len(), "step {step}");
                    for (claim, fence) in claims.iter().zip(fences) {
                        self.check_fence(step, claim, fence);
                    }
                }
                (
                    Ok(Together::Refused { at, ahead }),
                    Ok(Together::Refused { at: ruled_at, ahead: ruled }),
                ) => {
                    let holder = ahead.holder.and_then(|holder| holder.claim);
                    let ruled_holder = ruled.holder.and_then(|holder| holder.claim);
                    assert_eq!((at, ahead.rank, holder), (ruled_at, ruled.rank, ruled_holder));
                }
                (Err(said), Err((at, NoEntry::Disagrees { .. }))) => {
                    let about = (said.kind(), said.key());
                    assert_eq!(about, (ErrorKind::Disagrees, Some(&claims[at].key)), "step {step}");
                }
                (said, ruled) => panic!("step {step}: the store says {said:?}, the rule {ruled:?}"),
            }
        }
    }

    async fn enter_again(&mut self, step: usize) {
        let (mut table_live, mut tries) = (None, 0);
        // A claim is never used again after it ended, so only one that stands is asked for again.
        while table_live.is_none() && tries < 10 && !self.claims.is_empty() {
            tries += 1;
            let at = self.below(self.claims.len());
            let (session, claim) = self.claims[at].clone();
            let line = self.table.inspect(clock::now(), &claim.key);
            let stands = |party: &leasehold_core::Party| party.claim == Some(claim.id);
            if line.holders.iter().chain(&line.waiters).any(stands) {
                table_live = Some((session, claim));
            }
        }
        if let Some((session, claim)) = table_live {
            let enter = if self.below(3) == 0 { Enter::Try } else { Enter::Wait };
            self.enter(step, session, &claim, enter).await;
        }
    }

    async fn enter(&mut self, step: usize, session: usize, claim: &Claim, enter: Enter) {
        let id = &self.sessions[session];
        let store = self.store(session);
        let said = store.enter(id, claim, enter).await;
        // Where no line is kept, nothing is left of one that is not granted: by rule, a try.
        let line = store.guarantees().has(Property::Line);
        let rule = if line { enter } else { Enter::Try };
        let ruled = self.table.enter(clock::now(), id, claim, rule).map(|ruled| match ruled {
            Place::Refused(ahead) if !line => {
                let ahead = Ahead { rank: None, ..ahead };
                if enter == Enter::Try { Place::Refused(ahead) } else { Place::Waiting(ahead) }
            }
            ruled => ruled,
        });
        match (&said, &ruled) {
            (Ok(Place::Held(fence)), Ok(Place::Held(_))) => self.check_fence(step, claim, *fence),
            (Err(said), Err(NoEntry::Disagrees { .. })) => {
                assert_eq!(said.kind(), ErrorKind::Disagrees, "step {step}: {said}");
                self.claims.retain(|(_, made)| made.id != claim.id);
            }
            (Ok(Place::Waiting(said)), Ok(Place::Waiting(ruled)))
            | (Ok(Place::Refused(said)), Ok(Place::Refused(ruled))) => {
                let holder = |ahead: &Ahead| ahead.holder.as_ref().and_then(|holder| holder.claim);
                assert_eq!(said.rank, ruled.rank, "step {step}");
                assert_eq!(holder(said), holder(ruled), "step {step}");
                assert!(!said.foreign, "step {step}");
            }
            _ => panic!("step {step}: the store says {said:?}, the rule {ruled:?}"),
        }
    }

    /// The same claim keeps its fence; another one's is new, and greater than any that was seen
    /// on the key before its own grant: here only equality can be wrong, as several may hold.
    fn check_fence(&mut self, step: usize, claim: &Claim, fence: Fence) {
        if let Some(before) = self.fences.insert(claim.id, fence) {
            assert_eq!(before, fence, "step {step}: another fence for the same grant");
            return;
        }
        let key = KEYS.into_iter().find(|key| *key == claim.key.as_str()).expect("a known key");
        if claim.is_exclusive()
            && let Some(last) = self.last_fence.get(key)
        {
            assert!(fence > *last, "step {step}: {fence:?} after {last:?}");
        }
        let last = self.last_fence.entry(key).or_insert(fence);
        *last = fence.max(*last);
    }

    async fn leave(&mut self, step: usize) {
        if self.claims.is_empty() {
            return;
        }
        let at = self.below(self.claims.len());
        let (session, claim) = self.claims[at].clone();
        // Now and then somebody else's session names the claim. Where the lease is the claim's
        // own, its id alone is what counts; else it has to be the session's, too.
        let by_session = self.stores[0].guarantees().lease == LeaseScope::Session;
        let stranger = by_session && self.below(4) == 0;
        let session = if stranger { (session + 1) % self.sessions.len() } else { session };
        let id = &self.sessions[session];
        let said = self.store(session).leave(id, &claim).await.expect("answers");
        let ruled = self.table.leave(clock::now(), id, &claim);
        assert_eq!(said, ruled, "step {step}");
        if said != Left::Gone {
            self.claims.swap_remove(at);
        }
    }

    async fn revoke(&mut self, step: usize) {
        if self.claims.is_empty() {
            return;
        }
        let at = self.below(self.claims.len());
        let (_, claim) = self.claims[at].clone();
        let said = self.stores[0].revoke(&claim.key, &claim.id).await.expect("answers");
        let ruled = self.table.revoke(clock::now(), &claim.key, claim.id).is_some();
        assert_eq!(said, ruled, "step {step}");
    }

    async fn renew(&mut self, step: usize) {
        let session = self.below(self.sessions.len());
        let mut roll: Vec<Claim> =
            self.claims.iter().filter(|(of, _)| *of == session).map(|(_, c)| c.clone()).collect();
        roll.truncate(self.stores[0].guarantees().renew_batch);
        let ids: Vec<ClaimId> = roll.iter().map(|claim| claim.id).collect();
        let id = &self.sessions[session];
        let said = self.store(session).renew(id, &roll).await.expect("answers");
        let ruled = self.table.renew(clock::now(), id, &ids);
        assert_eq!(said, ruled, "step {step}");
    }

    async fn replace_session(&mut self) {
        let at = self.below(self.sessions.len());
        let old = self.sessions[at].clone();
        self.store(at).close(&old).await.expect("closes");
        self.table.close(clock::now(), &old);
        self.claims.retain(|(session, _)| *session != at);
        let terms = terms(PATIENT, "random");
        let session = self.store(at).open(&terms).await.expect("opens");
        self.table.open(clock::now(), session.clone(), terms);
        self.sessions[at] = session;
    }

    async fn compare_line(&mut self, step: usize, on: &'static str) {
        let at = self.below(2);
        let said = self.stores[at].inspect(&key(on)).await.expect("answers");
        let ruled = self.table.inspect(clock::now(), &key(on));
        let shape = |line: &Line| {
            let side = |side: &[leasehold_core::Party]| -> Vec<_> {
                side.iter().map(|party| (party.claim, party.units, party.limit)).collect()
            };
            (side(&line.holders), side(&line.waiters))
        };
        assert_eq!(shape(&said), shape(&ruled), "step {step}: the line of {on:?}");
        for holder in &said.holders {
            if let (Some(claim), Some(fence)) = (holder.claim, holder.fence)
                && let Some(known) = self.fences.get(&claim)
            {
                assert_eq!(*known, fence, "step {step}");
            }
        }
    }

    async fn compare_keys(&mut self, step: usize) {
        let said = self.stores[1].keys("").await.expect("answers");
        assert_eq!(said, self.table.keys(clock::now(), ""), "step {step}");
    }
}
