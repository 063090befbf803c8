//! One participant of a case: a session on a handle, driven call by call.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use leasehold::{Client, Result, Store, clock};
use leasehold_core::{
    Ahead, Claim, ClaimId, Enter, Fence, Key, Left, Line, Moment, Note, Place, Renewed, SessionId,
    Terms, Together,
};

use crate::Bench;

/// A TTL that no case outlasts: whoever has it needs no renewals.
pub(crate) const PATIENT: Duration = Duration::from_mins(15);

/// How long a case waits for what must happen. Far more than a loaded machine needs: it only
/// turns a hang into a failure.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A TTL that a case waits out: long enough that a loaded machine gets some calls in.
pub(crate) fn brief(store: &dyn Store) -> Duration {
    (store.guarantees().min_ttl * 2).max(Duration::from_secs(1))
}

/// `future`, which must end soon.
pub(crate) async fn soon<F: IntoFuture>(what: &str, future: F) -> F::Output {
    let outcome = tokio::time::timeout(SOON, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

/// Sleeps until `moment` has passed on the library's clock.
pub(crate) async fn sleep_until(moment: Moment) {
    while clock::now() < moment {
        // sleep: time itself is the subject.
        tokio::time::sleep(moment.since(clock::now())).await;
    }
}

pub(crate) fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system's random source works");
    bytes
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

/// A new mutex claim.
pub(crate) fn claim(key_text: &str) -> Claim {
    Claim::exclusive(ClaimId::from_random(random_bytes()), key(key_text), note("from the suite"))
}

/// A new claim of `units` of `limit`.
pub(crate) fn share(key_text: &str, units: u32, limit: u32) -> Claim {
    let positive = |n| NonZeroU32::new(n).expect("above zero");
    Claim::counting(
        ClaimId::from_random(random_bytes()),
        key(key_text),
        Note::default(),
        positive(units),
        positive(limit),
    )
    .expect("fits")
}

/// Whether the store enters several lines in one step, where in a cluster the keys are in one slot: all
/// but those that say why not.
pub(crate) fn enters_in_one_step(store: &dyn Store) -> bool {
    let name = store.to_string();
    !["zookeeper", "redlock"].iter().any(|scheme| name.starts_with(scheme))
}

pub(crate) fn note(text: &str) -> Note {
    Note::new(text).expect("a valid note")
}

/// A client on a handle.
pub(crate) fn client(store: Arc<dyn Store>, ttl: Duration) -> Client {
    Client::builder().shared_store(store).ttl(ttl).build().expect("a client")
}

/// A client that is told of a loss half a TTL before its deadline: enough for a machine that
/// stalls between the signal and the look at the clock.
pub(crate) fn careful_client(store: Arc<dyn Store>, ttl: Duration) -> Client {
    let builder = Client::builder().shared_store(store).ttl(ttl).grace(ttl / 2);
    builder.build().expect("a client")
}

pub(crate) fn terms(ttl: Duration, owner: &str) -> Terms {
    Terms { ttl, owner: note(owner), detached: false }
}

/// A session on a handle.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) session: SessionId,
}

impl Actor {
    /// A session that no case outlasts, on a handle of its own.
    pub(crate) async fn patient(bench: &dyn Bench) -> Self {
        Self::open(bench.handle(), PATIENT).await
    }

    /// A session that lapses soon unless renewed, on a handle of its own.
    pub(crate) async fn brief(bench: &dyn Bench) -> Self {
        let store = bench.handle();
        let ttl = brief(&*store);
        Self::open(store, ttl).await
    }

    pub(crate) async fn open(store: Arc<dyn Store>, ttl: Duration) -> Self {
        let session = store.open(&terms(ttl, "an actor")).await.expect("opens a session");
        Self { store, session }
    }

    pub(crate) async fn enter(&self, claim: &Claim, enter: Enter) -> Result<Place> {
        soon("enter", self.store.enter(&self.session, claim, enter)).await
    }

    /// Asks for all of the claims in one step; `None` if they are entered one by one here.
    pub(crate) async fn enters_all(&self, claims: &[Claim]) -> Result<Option<Together>> {
        let entering = self.store.enter_all(&self.session, claims);
        let together = soon("enter all", entering).await?;
        assert_eq!(together == Together::Apart, !enters_in_one_step(&*self.store), "{together:?}");
        Ok(Some(together).filter(|together| *together != Together::Apart))
    }

    pub(crate) async fn tries(&self, claim: &Claim) -> Place {
        self.enter(claim, Enter::Try).await.expect("the store answers a try")
    }

    /// A try that must be granted.
    pub(crate) async fn holds(&self, claim: &Claim) -> Fence {
        match self.tries(claim).await {
            Place::Held(fence) => fence,
            other => panic!("{:?} is free, and yet: {other:?}", claim.key),
        }
    }

    /// A try that must be refused.
    pub(crate) async fn refused(&self, claim: &Claim) -> Ahead {
        match self.tries(claim).await {
            Place::Refused(ahead) => ahead,
            other => panic!("{:?} is not free, and yet: {other:?}", claim.key),
        }
    }

    /// An enter that must stand in line.
    pub(crate) async fn waits(&self, claim: &Claim) -> Ahead {
        match self.enter(claim, Enter::Wait).await.expect("the store answers an enter") {
            Place::Waiting(ahead) => ahead,
            other => panic!("{:?} is not free, and yet: {other:?}", claim.key),
        }
    }

    /// Waits until the claim holds, as a client does: hint, then look.
    pub(crate) async fn until_held(&self, claim: &Claim) -> Fence {
        soon(&format!("a grant of {:?}", claim.key), self.held_at_last(claim)).await
    }

    async fn held_at_last(&self, claim: &Claim) -> Fence {
        let recheck = self.store.guarantees().recheck;
        loop {
            match self.store.enter(&self.session, claim, Enter::Wait).await.expect("answers") {
                Place::Held(fence) => return fence,
                Place::Waiting(_) => {}
                refused @ Place::Refused(_) => panic!("a wait was refused: {refused:?}"),
            }
            let changed = self.store.changed(&self.session, claim);
            if let Ok(answer) = tokio::time::timeout(recheck, changed).await {
                answer.expect("a wait is told of changes");
            }
        }
    }

    /// Tries again and again, as a passer-by does, until the claim holds.
    pub(crate) async fn until_free(&self, key_text: &str) -> (Claim, Fence) {
        let attempts = async {
            loop {
                let attempt = claim(key_text);
                if let Place::Held(fence) = self.tries(&attempt).await {
                    return (attempt, fence);
                }
                // sleep: a store without a line is asked again.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(&format!("{key_text:?} becomes free"), attempts).await
    }

    pub(crate) async fn leave(&self, claim: &Claim) -> Left {
        soon("leave", self.store.leave(&self.session, claim)).await.expect("the store answers")
    }

    pub(crate) async fn amend(&self, claim: &Claim) -> bool {
        soon("amend", self.store.amend(&self.session, claim)).await.expect("the store answers")
    }

    pub(crate) async fn renew(&self, roll: &[Claim]) -> Renewed {
        soon("renew", self.store.renew(&self.session, roll)).await.expect("the store answers")
    }

    pub(crate) async fn inspect(&self, key_text: &str) -> Line {
        soon("inspect", self.store.inspect(&key(key_text))).await.expect("the store answers")
    }

    /// The claims that hold `key_text`, and those that wait, first come first.
    pub(crate) async fn line(&self, key_text: &str) -> (Vec<ClaimId>, Vec<ClaimId>) {
        let line = self.inspect(key_text).await;
        let ids = |side: Vec<leasehold_core::Party>| {
            side.into_iter().map(|party| party.claim.expect("a claim of ours")).collect()
        };
        (ids(line.holders), ids(line.waiters))
    }

    pub(crate) async fn close(&self) {
        soon("close", self.store.close(&self.session)).await.expect("the store answers");
    }
}

/// Whether a renewal says that the claim is lost.
pub(crate) fn is_lost(renewed: &Renewed, claim: &Claim) -> bool {
    match renewed {
        Renewed::Ended => true,
        Renewed::Extended { lost } => lost.contains(&claim.id),
    }
}

/// Renews `roll` at a quarter of `ttl` for as long as it is polled, and panics when a claim is
/// lost although every renewal was in time. Too late a renewal, on a machine that stalls, proves
/// nothing and ends the process's turn: the function returns.
pub(crate) async fn keep_renewed(actor: &Actor, roll: &[Claim], ttl: Duration) {
    let mut acknowledged: Moment = clock::now();
    loop {
        // sleep: renews at a fraction of the TTL, as a session would.
        tokio::time::sleep(ttl / 4).await;
        let sent = clock::now();
        let renewed = actor.renew(roll).await;
        if clock::now().since(acknowledged) >= ttl * 3 / 4 {
            return;
        }
        for claim in roll {
            assert!(!is_lost(&renewed, claim), "lost although renewed in time: {renewed:?}");
        }
        acknowledged = sent;
    }
}
