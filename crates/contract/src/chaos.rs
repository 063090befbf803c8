//! A store that misbehaves on command: the same calls, with replies dropped, frozen or late.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use leasehold::{Error, ErrorKind, Examination, Guarantees, Result, Store, clock};
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Moment, Place, Provided, Reading, Record, Renewed,
    SessionId, Terms, Together,
};
use tokio::sync::watch;

/// A method of the contract that does IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Call {
    Open,
    Renew,
    Close,
    Enter,
    EnterAll,
    Changed,
    Disturbed,
    Leave,
    Amend,
    Read,
    Write,
    Revoke,
    Inspect,
    Keys,
    Examine,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Open,
        Self::Renew,
        Self::Close,
        Self::Enter,
        Self::EnterAll,
        Self::Changed,
        Self::Disturbed,
        Self::Leave,
        Self::Amend,
        Self::Read,
        Self::Write,
        Self::Revoke,
        Self::Inspect,
        Self::Keys,
        Self::Examine,
    ];
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It never reaches the store and never ends.
    Freeze,
    /// It never reaches the store and fails as if nobody listened.
    Fail,
    /// It is carried out, and then fails with an unknown outcome.
    DropReply,
    /// It is carried out, and its answer stays on the way until [`Chaos::let_go`].
    HoldReply,
    /// It stays on the way until [`Chaos::let_go`], also when its caller gives up, and is carried
    /// out then.
    HoldRequest,
}

/// A handle to a store through which every call can be made to fail. Clones share their switches.
#[derive(Clone)]
pub struct Chaos {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
}

struct Shared {
    switches: Mutex<Switches>,
    /// Counts [`Chaos::let_go`]: what is held back waits for the next number.
    gate: watch::Sender<u64>,
    /// Counts arrivals, so that a case can wait for one.
    arrived: watch::Sender<u64>,
    /// Counts requests that were held back and then carried out.
    landed: watch::Sender<usize>,
}

#[derive(Default)]
struct Switches {
    always: HashMap<Call, Fault>,
    once: HashMap<Call, Fault>,
    log: Vec<Sent>,
}

/// A call that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Which.
    pub call: Call,
    /// When.
    pub at: Moment,
    /// What was done to it.
    pub fault: Option<Fault>,
}

impl Chaos {
    /// Wraps a handle; everything goes through.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let shared = Shared {
            switches: Mutex::default(),
            gate: watch::Sender::new(0),
            arrived: watch::Sender::new(0),
            landed: watch::Sender::new(0),
        };
        Self { store, shared: Arc::new(shared) }
    }

    /// From now on `fault` happens to every such call.
    pub fn always(&self, call: Call, fault: Fault) {
        self.switches().always.insert(call, fault);
    }

    /// From now on `fault` happens to every call.
    pub fn all(&self, fault: Fault) {
        for call in Call::ALL {
            self.always(call, fault);
        }
    }

    /// `fault` happens to the next such call.
    pub fn once(&self, call: Call, fault: Fault) {
        self.switches().once.insert(call, fault);
    }

    /// From now on everything goes through. What is frozen stays so.
    pub fn heal(&self) {
        let mut switches = self.switches();
        switches.always.clear();
        switches.once.clear();
    }

    /// Lets go what is held back now.
    pub fn let_go(&self) {
        self.shared.gate.send_modify(|gate| *gate += 1);
    }

    /// The calls that arrived, in order.
    #[must_use]
    pub fn log(&self) -> Vec<Sent> {
        self.switches().log.clone()
    }

    /// How many such calls arrived.
    #[must_use]
    pub fn count(&self, call: Call) -> usize {
        self.switches().log.iter().filter(|sent| sent.call == call).count()
    }

    /// Resolves when at least `count` such calls have arrived. Cancel safe.
    pub async fn arrived(&self, call: Call, count: usize) {
        let mut arrivals = self.shared.arrived.subscribe();
        // The sender lives in `self`.
        let _ = arrivals.wait_for(|_| self.count(call) >= count).await;
    }

    /// Resolves when at least `count` requests that were held back have been carried out. Cancel
    /// safe.
    pub async fn landed(&self, count: usize) {
        let mut landings = self.shared.landed.subscribe();
        let _ = landings.wait_for(|landed| *landed >= count).await;
    }

    fn switches(&self) -> MutexGuard<'_, Switches> {
        self.shared.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(&self, call: Call) -> Option<Fault> {
        let mut switches = self.switches();
        let fault = switches.once.remove(&call).or_else(|| switches.always.get(&call).copied());
        switches.log.push(Sent { call, at: clock::now(), fault });
        drop(switches);
        self.shared.arrived.send_modify(|arrivals| *arrivals += 1);
        fault
    }

    async fn gate_opens(mut gate: watch::Receiver<u64>) {
        // The sender outlives this: the caller holds a clone of the chaos.
        let _ = gate.changed().await;
    }

    /// Takes a call through. `request` sends it; it is not called if it never leaves.
    async fn through<T: Send + 'static>(
        &self,
        call: Call,
        request: impl FnOnce(Arc<dyn Store>) -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let gate = self.shared.gate.subscribe();
        let attempt = "reach the store";
        match self.arrive(call) {
            None => request(self.store.clone()).await,
            Some(Fault::Freeze) => std::future::pending().await,
            Some(Fault::Fail) => {
                Err(Error::new(ErrorKind::Unavailable, attempt, "chaos refused it").at(self))
            }
            Some(Fault::DropReply) => {
                let _lost = request(self.store.clone()).await;
                let error = Error::new(ErrorKind::Unavailable, attempt, "chaos lost the reply");
                Err(error.at(self).outcome_unknown())
            }
            Some(Fault::HoldReply) => {
                let reply = request(self.store.clone()).await;
                Self::gate_opens(gate).await;
                reply
            }
            Some(Fault::HoldRequest) => {
                let (request, shared) = (request(self.store.clone()), Arc::clone(&self.shared));
                let carried = tokio::spawn(async move {
                    Self::gate_opens(gate).await;
                    let reply = request.await;
                    shared.landed.send_modify(|landed| *landed += 1);
                    reply
                });
                carried
                    .await
                    .unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
            }
        }
    }
}

impl Store for Chaos {
    fn guarantees(&self) -> Guarantees {
        self.store.guarantees()
    }

    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>> {
        let terms = terms.clone();
        self.through(Call::Open, |store| async move { store.open(&terms).await }.boxed()).boxed()
    }

    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        roll: &'a [Claim],
    ) -> BoxFuture<'a, Result<Renewed>> {
        let (session, roll) = (session.clone(), roll.to_vec());
        self.through(Call::Renew, |store| async move { store.renew(&session, &roll).await }.boxed())
            .boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        let session = session.clone();
        self.through(Call::Close, |store| async move { store.close(&session).await }.boxed())
            .boxed()
    }

    fn enter<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
        enter: Enter,
    ) -> BoxFuture<'a, Result<Place>> {
        let (session, claim) = (session.clone(), claim.clone());
        self.through(Call::Enter, move |store| {
            async move { store.enter(&session, &claim, enter).await }.boxed()
        })
        .boxed()
    }

    fn enter_all<'a>(
        &'a self,
        session: &'a SessionId,
        claims: &'a [Claim],
    ) -> BoxFuture<'a, Result<Together>> {
        let (session, claims) = (session.clone(), claims.to_vec());
        self.through(Call::EnterAll, |store| {
            async move { store.enter_all(&session, &claims).await }.boxed()
        })
        .boxed()
    }

    fn changed<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>> {
        let (session, claim) = (session.clone(), claim.clone());
        self.through(Call::Changed, |store| {
            async move { store.changed(&session, &claim).await }.boxed()
        })
        .boxed()
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        let session = session.clone();
        async move {
            let told = self.through(Call::Disturbed, |store| {
                async move {
                    store.disturbed(&session).await;
                    Ok(())
                }
                .boxed()
            });
            if told.await.is_err() {
                // A hint that is lost is silence, not a failure.
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    fn leave<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        let (session, claim) = (session.clone(), claim.clone());
        self.through(Call::Leave, |store| {
            async move { store.leave(&session, &claim).await }.boxed()
        })
        .boxed()
    }

    fn amend<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        let (session, claim) = (session.clone(), claim.clone());
        self.through(Call::Amend, |store| {
            async move { store.amend(&session, &claim).await }.boxed()
        })
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        let key = key.clone();
        self.through(Call::Read, |store| async move { store.read(&key).await }.boxed()).boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        provided: Provided<'a>,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>> {
        let (key, record) = (key.clone(), record.clone());
        // What is provided borrows, and a request that is held back outlives its caller.
        let held = match provided {
            Provided::Unchanged(version) => Err(version),
            Provided::Held(session, claim) => Ok((session.clone(), claim.clone())),
        };
        self.through(Call::Write, move |store| {
            async move {
                let provided = match &held {
                    Err(version) => Provided::Unchanged(*version),
                    Ok((session, claim)) => Provided::Held(session, claim),
                };
                store.write(&key, provided, &record).await
            }
            .boxed()
        })
        .boxed()
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        let (key, claim) = (key.clone(), *claim);
        self.through(Call::Revoke, move |store| {
            async move { store.revoke(&key, &claim).await }.boxed()
        })
        .boxed()
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        let key = key.clone();
        self.through(Call::Inspect, |store| async move { store.inspect(&key).await }.boxed())
            .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        let prefix = prefix.to_owned();
        self.through(Call::Keys, |store| async move { store.keys(&prefix).await }.boxed()).boxed()
    }

    fn examine(&self, ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        self.through(Call::Examine, move |store| async move { store.examine(ttl).await }.boxed())
            .boxed()
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chaos").field(&self.store).finish()
    }
}
