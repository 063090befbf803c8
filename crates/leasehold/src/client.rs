//! The way in: a store, a TTL, and the session that they make.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::line::Share;
use leasehold_core::{Key, KeyError, Note, Rate, Terms, Timing};
use tokio_util::sync::CancellationToken;

use crate::checkup;
use crate::election::Election;
use crate::error::{Error, ErrorKind, Result};
use crate::examination::Examination;
use crate::forget::{Forgotten, forget};
use crate::guard::Guard;
use crate::job::{self, Job, Run, Schedule};
use crate::limiter::{Away, Limiter, Limiters};
use crate::lock::Lock;
use crate::many;
use crate::property::{Properties, Property};
use crate::rwlock::RwLock;
use crate::semaphore::Semaphore;
use crate::session::{Handle, Settings};
use crate::slots::Slots;
use crate::store::Store;
use crate::stores;

/// A connection to a lock service, and the one session that carries all that is claimed through
/// it. Cloning is cheap, and clones share the session.
///
/// Nothing is connected before the first lock. The first lock starts one background task on the
/// tokio runtime it runs on; the task renews every hold and ends with the last handle (client,
/// mutex or guard).
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<Handle>,
    limiters: Arc<Limiters>,
}

impl Client {
    /// A client for the store at `url` with the default settings. No IO happens yet.
    ///
    /// | URL | store |
    /// |---|---|
    /// | `sqlite:` | the embedded store in the user's state directory |
    /// | `sqlite:PATH` | the embedded store in the file `PATH` |
    /// | `redis://…`, `rediss://…`, `redis+unix:///…` | a Redis server |
    /// | `redis+sentinel://…`, `rediss+sentinel://…` | the Redis server that sentinels call the primary |
    /// | `redis+cluster://…`, `rediss+cluster://…` | a Redis Cluster |
    /// | `postgres://…` | a PostgreSQL server |
    /// | `etcd://…`, `etcds://…` | an etcd cluster |
    /// | `zookeeper://…` | a ZooKeeper ensemble |
    /// | `memory:` | this process only, for tests |
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a URL that is none of these,
    /// [`ErrorKind::Unsupported`] for a store that this build does not contain.
    pub fn open(url: &str) -> Result<Self> {
        Self::builder().url(url).build()
    }

    /// A client with other settings than the default.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A lock on `key` that one holder has at a time. No IO happens yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `key` is no key: see [`Key`].
    pub fn mutex<K>(&self, key: K) -> Result<Lock>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        self.lock(key, Share::MUTEX)
    }

    /// A lock on `key` that many readers or one writer have at a time. No IO happens yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `key` is no key, [`ErrorKind::Unsupported`] for a store that
    /// does not count.
    pub fn rwlock<K>(&self, key: K) -> Result<RwLock>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        self.lock(key, Share::READER).map(RwLock::new)
    }

    /// An election for the office `name`. No IO happens yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `name` is no key: see [`Key`].
    pub fn election<K>(&self, name: K) -> Result<Election>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        self.mutex(name).map(Election::new)
    }

    /// Locks many keys, all or nothing, without a deadlock in whatever order callers name them; the
    /// guards come in the order of `locks`. Each may have a share of its own: a mutex, a reader, units
    /// of a semaphore.
    ///
    /// If all are free they are locked in one step, and with one request: over `SQLite` and `memory:`
    /// always, over PostgreSQL and one Redis server up to 256 keys, over etcd up to 100, and over a Redis
    /// Cluster if all keys are in one slot (`{account}/1`, `{account}/2`). If one is not free nothing is
    /// kept, and they are waited for one by one in the order of their keys; so they are from the beginning
    /// where there is no such step (ZooKeeper, Redlock, more keys, locks of several clients).
    ///
    /// ```
    /// # leasehold::doc_test(async {
    /// # let client = leasehold::Client::open("memory:")?;
    /// let [from, to] = [client.mutex("account/2")?, client.mutex("account/1")?];
    /// let guards = client.lock_all([from, to]).await?;
    /// assert_eq!(guards[0].key().as_str(), "account/2"); // each with its own fence
    /// for guard in guards {
    ///     guard.release().await?;
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`], for each of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when a key is named twice; [`ErrorKind::Lost`] when one was lost while the
    /// others were waited for; and as for [`Lock::lock`], with the key that it was about. Nothing is held
    /// then, or is given back in the background.
    pub async fn lock_all(&self, locks: impl IntoIterator<Item = Lock>) -> Result<Vec<Guard>> {
        many::lock_all(&locks.into_iter().collect::<Vec<_>>()).await
    }

    /// Like [`Client::lock_all`], if all are free. `None`, and nothing is held, if one is not: somebody
    /// else holds it, waits for it, or is trying it at this moment.
    ///
    /// Where all are locked in one step, nobody is disturbed by a try that is refused, and of those who
    /// try free keys at the same moment one gets them. Else they are tried one by one in the order of
    /// their keys, and given back at the first that is not free; of those who try the same free keys one
    /// gets them then, too, except over Redlock, where two who try one key may refuse each other.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`], for each of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when a key is named twice; [`ErrorKind::Lost`] when one was lost before the
    /// store had answered for the others; and as for [`Lock::try_lock`], with the key that it was about.
    /// Nothing is held then, or is given back in the background.
    pub async fn try_lock_all(
        &self,
        locks: impl IntoIterator<Item = Lock>,
    ) -> Result<Option<Vec<Guard>>> {
        many::try_lock_all(&locks.into_iter().collect::<Vec<_>>()).await
    }

    /// A job that is done at most once in each period of `schedule`. No IO happens yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `key` is no key, [`ErrorKind::Unsupported`] for a store that keeps
    /// no records.
    pub fn job<K>(&self, key: K, schedule: Schedule) -> Result<Job>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        Job::new(self.mutex(key)?, schedule)
    }

    /// The jobs whose keys begin with `prefix`, in order, each with its last run. The list has room for
    /// some hundreds; a job beyond that is done, and not listed.
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses; [`ErrorKind::Unsupported`] where it keeps no
    /// records.
    pub async fn jobs(&self, prefix: &str) -> Result<Vec<(Key, Run)>> {
        job::all(&self.handle, prefix).await
    }

    /// `limit` units of `key`, of which each holder has some. No IO happens yet. All who use the
    /// key have to give the same limit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `key` is no key or `limit` is zero or greater than
    /// [`Semaphore::MAX_LIMIT`], [`ErrorKind::Unsupported`] for a store that does not count and
    /// a limit above 1.
    pub fn semaphore<K>(&self, key: K, limit: u32) -> Result<Semaphore>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        let lock = self.lock(key, Share { units: 1, limit })?;
        if (1..=Semaphore::MAX_LIMIT).contains(&limit) {
            return Ok(Semaphore::new(lock));
        }
        let detail =
            format!("a limit of {limit} is not between 1 and {max}", max = Semaphore::MAX_LIMIT);
        let error = self.handle.error(ErrorKind::Invalid, "make a semaphore of", detail);
        Err(error.about(lock.key()))
    }

    /// Units of `key`, of which the store knows how many there are, and an operator can change it. No
    /// IO happens yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `key` is no key, [`ErrorKind::Unsupported`] for a store that does
    /// not count or keeps no records.
    pub fn slots<K>(&self, key: K) -> Result<Slots>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        Slots::new(&self.lock(key, Share::WRITER)?)
    }

    /// Forgets what is remembered of `key`: the runs of a job, which is then done again, the history of
    /// an election, the count of a limiter, the number of slots.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open whether it was forgotten.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `key` is no key, [`ErrorKind::Unsupported`] for a store that keeps
    /// no records, [`ErrorKind::Disagrees`] while units of a semaphore are held; and when the store
    /// cannot be reached or refuses.
    pub async fn forget<K>(&self, key: K) -> Result<Forgotten>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        forget(&self.mutex(key)?).await
    }

    /// A rate, as in `"100/s"`, that all who use the store and the key keep to together: see
    /// [`limiter`](crate::limiter). What happens while the store is `away` has to be chosen. No IO
    /// happens yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `key` is no key or `rate` no [`Rate`],
    /// [`ErrorKind::Unsupported`] for a store that keeps no records.
    pub fn limiter<K, R>(&self, key: K, rate: R, away: Away) -> Result<Limiter>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
        R: TryInto<Rate>,
        R::Error: fmt::Display,
    {
        let key = self.key(key)?;
        let rate = rate.try_into().map_err(|error| {
            self.handle.error(ErrorKind::Invalid, "limit", error.to_string()).about(&key)
        })?;
        Limiter::new(self.store(), &self.limiters, key, rate, away)
    }

    fn key<K>(&self, key: K) -> Result<Key>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        key.try_into().map_err(|error| {
            let detail = error.into_key_error();
            self.handle.error(ErrorKind::Invalid, "use the key", detail)
        })
    }

    fn lock<K>(&self, key: K, share: Share) -> Result<Lock>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        let key = self.key(key)?;
        if share.limit > 1 && !self.store().guarantees().has(Property::Counting) {
            let detail = "this store keeps limits of 1 only; use another one for semaphores and \
                          for readers beside readers";
            let error = self.handle.error(ErrorKind::Unsupported, "claim a share of", detail);
            return Err(error.about(&key));
        }
        Ok(Lock::new(Arc::clone(&self.handle), key, share))
    }

    /// The store, to look at with [`Store::inspect`], [`Store::keys`] and [`Store::revoke`].
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        self.handle.store()
    }

    /// Examines the store for what this client wants of it: asks its servers what they say of
    /// themselves, measures how long they take to answer and how far their clocks are off, takes
    /// a lock that nobody else wants, and says in plain words which guarantees hold there for the
    /// client's TTL, and which do not. What `leasehold doctor` prints.
    ///
    /// Changes nothing that outlasts it, but what a lock leaves behind for a while on some stores.
    /// The lock's key is `prefix` and random digits: give a prefix where the server allows this
    /// user some keys only, else `""`.
    ///
    /// ```
    /// # leasehold::doc_test(async {
    /// use leasehold::{Client, Severity};
    ///
    /// let client = Client::open("memory:")?; // or your own
    /// let found = client.examine("").await?;
    /// for finding in found.of(Severity::Danger) {
    ///     eprintln!("{}: {} {:?}", finding.topic, finding.says, finding.change);
    /// }
    /// // `Unknown` is what could not be read: no reason to relax.
    /// let calm = found.worst() <= Severity::Note;
    /// # assert!(!calm, "memory: excludes nobody outside this process");
    /// # client.close().await
    /// # });
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The lock is given back in the background when the future is dropped.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or used at all, and [`ErrorKind::Invalid`] when `prefix`
    /// is no beginning of a [`Key`] or too long. That a lock cannot be taken is a finding.
    pub async fn examine(&self, prefix: &str) -> Result<Examination> {
        let settings = self.handle.settings();
        checkup::examine(self.store(), settings.timing, settings.terms.owner.clone(), prefix).await
    }

    pub(crate) const fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Cancelled when everything was given back, after the last handle is gone.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.handle.ended()
    }

    /// The durations that govern its leases.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.handle.settings().timing
    }

    /// Gives everything back and ends the background task. Guards that are left are lost.
    ///
    /// Dropping the last handle does the same in the background; at the end of a program nothing
    /// may be left to run it, so call this.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future goes on closing in the background.
    ///
    /// # Errors
    ///
    /// When the store did not confirm within 2 seconds. The TTL then ends what was held.
    pub async fn close(self) -> Result<()> {
        self.handle.close().await
    }
}

/// What can go wrong when something is made a [`Key`]. Sealed: for the types that [`Key`] itself
/// can be made of.
pub trait IntoKeyError: sealed::Sealed {
    /// The reason, as text.
    #[doc(hidden)]
    fn into_key_error(self) -> String;
}

impl IntoKeyError for KeyError {
    fn into_key_error(self) -> String {
        self.to_string()
    }
}

impl IntoKeyError for std::convert::Infallible {
    fn into_key_error(self) -> String {
        match self {}
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for leasehold_core::KeyError {}
    impl Sealed for std::convert::Infallible {}
}

/// Settings of a [`Client`]; see its methods for the defaults.
#[derive(Clone, Default)]
#[must_use]
pub struct ClientBuilder {
    store: Option<Arc<dyn Store>>,
    url: Option<String>,
    ttl: Option<Duration>,
    renew_every: Option<Duration>,
    drift: Option<Duration>,
    grace: Option<Duration>,
    max_hold: Option<Duration>,
    owner: Option<String>,
    detached: bool,
    demand: Properties,
}

impl ClientBuilder {
    /// The TTL when none is set: long enough for a garbage collection or a failover, short enough
    /// that a crash does not hold others up for minutes.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

    /// The store by its URL: see [`Client::open`]. Default: the embedded store, `sqlite:`.
    pub fn url(mut self, url: &str) -> Self {
        self.url = Some(url.to_owned());
        self
    }

    /// The store itself.
    pub fn store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// The store itself, shared with others.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// How long a hold lasts after its last renewal. Default: 30 seconds.
    ///
    /// A hold is renewed while its holder lives, so this bounds how long a crash blocks others,
    /// not how long a job may take.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How often a hold is renewed: above zero, under half of the TTL. Default: a third of it.
    pub const fn renew_every(mut self, renew_every: Duration) -> Self {
        self.renew_every = Some(renew_every);
        self
    }

    /// How far the clocks of this machine and of the store may run apart within one TTL; a hold
    /// ends that much earlier here than there. Default: a tenth of the TTL.
    pub const fn drift(mut self, drift: Duration) -> Self {
        self.drift = Some(drift);
        self
    }

    /// How long before the deadline the loss is signalled: a millisecond at least. Default: a
    /// twentieth of the TTL.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// The longest time that a hold is kept, whatever is renewed: so that a job that hangs frees
    /// its lock. Longer than the grace. Default: no limit.
    pub const fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self
    }

    /// Who the holder says it is, for others to read. Default: host name and process id.
    pub fn owner(mut self, owner: &str) -> Self {
        self.owner = Some(owner.to_owned());
        self
    }

    /// Whether holds may outlive this process: see [`Guard::detach`](crate::Guard::detach).
    /// A store that notices a process's death then does not act on it. Default: no.
    pub const fn detached(mut self, detached: bool) -> Self {
        self.detached = detached;
        self
    }

    /// What the store has to have: a property, several, or both from several calls. Default:
    /// nothing.
    ///
    /// ```
    /// use leasehold::{Client, Property};
    /// let wanted = Property::Line | Property::SurvivesFailover;
    /// let error = Client::builder().url("memory:").demand(wanted).build().unwrap_err();
    /// assert!(error.to_string().contains("survives-failover"), "{error}");
    /// ```
    ///
    /// What only a connection tells (whether a pooler keeps wake-ups away, say) is judged when the
    /// first session opens: then the lock fails with [`ErrorKind::Unsupported`]. Whether a server
    /// is configured to keep what its kind promises is told by [`Client::examine`].
    pub fn demand(mut self, properties: impl Into<Properties>) -> Self {
        self.demand = self.demand | properties;
        self
    }

    /// Checks the settings and makes the client. No IO happens yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for durations that do not fit each other or the store, and for a URL
    /// or an owner that is not valid; [`ErrorKind::Unsupported`] for a store that this build does
    /// not contain, and for one that lacks what is [demanded](Self::demand): the error names all
    /// that is missing, and which stores have it.
    pub fn build(self) -> Result<Client> {
        let store = match (self.store, &self.url) {
            (Some(_), Some(_)) => {
                let detail = "both a store and a URL were given; give one";
                return Err(Error::new(ErrorKind::Invalid, "build the client", detail));
            }
            (Some(store), None) => store,
            (None, url) => stores::connect(url.as_deref().unwrap_or("sqlite:"))?,
        };
        let invalid =
            |detail: String| Error::new(ErrorKind::Invalid, "build the client", detail).at(&store);
        let ttl = self.ttl.unwrap_or(Self::DEFAULT_TTL);
        let timing = Timing::custom(ttl, self.renew_every, self.drift, self.grace)
            .map_err(|error| invalid(error.to_string()))?;
        let guarantees = store.guarantees();
        let missing = self.demand - guarantees.properties;
        if !missing.is_empty() {
            let detail = stores::without(missing);
            let error = Error::new(ErrorKind::Unsupported, "build the client", detail);
            return Err(error.at(&store));
        }
        let min_ttl = guarantees.min_ttl;
        if ttl < min_ttl {
            return Err(invalid(format!(
                "a TTL of {ttl:?} is below the store's minimum of {min_ttl:?}"
            )));
        }
        if let Some(max_hold) = self.max_hold.filter(|max_hold| *max_hold <= timing.grace()) {
            let grace = timing.grace();
            return Err(invalid(format!(
                "a longest hold of {max_hold:?} is not longer than the grace of {grace:?}"
            )));
        }
        let owner = self.owner.unwrap_or_else(this_process);
        let owner = Note::new(&owner).map_err(|error| invalid(format!("the owner: {error}")))?;
        let terms = Terms { ttl, owner, detached: self.detached };
        let settings = Settings { timing, terms, max_hold: self.max_hold, demand: self.demand };
        Ok(Client { handle: Handle::new(store, settings), limiters: Arc::default() })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it may contain a password.
        f.debug_struct("ClientBuilder")
            .field("store", &self.store)
            .field("ttl", &self.ttl)
            .field("renew_every", &self.renew_every)
            .field("drift", &self.drift)
            .field("grace", &self.grace)
            .field("max_hold", &self.max_hold)
            .field("owner", &self.owner)
            .field("detached", &self.detached)
            .field("demand", &self.demand)
            .finish_non_exhaustive()
    }
}

fn this_process() -> String {
    let system = rustix::system::uname();
    format!("{}:{}", system.nodename().to_string_lossy(), std::process::id())
}
