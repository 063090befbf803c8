//! ZooKeeper (3.6 and up): lines of ephemeral sequential nodes, beside those of Curator and kazoo.
//!
//! # URL
//!
//! `zookeeper://[USER:PASSWORD@]HOST[:2181][,HOST…][/CHROOT][?OPTIONS]`, or `zookeepers://` with
//! TLS (port 2281 unless given). Options:
//!
//! | option | meaning |
//! |---|---|
//! | `dialect=curator` (default), `dialect=kazoo` | whose recipe our nodes look like |
//! | `tick=2s` | the servers' `tickTime`; without it, it is found out when the first session opens |
//! | `ca=FILE`, `cert=FILE`, `key=FILE` | with `zookeepers:` only, PEM: whom to trust, and who we are |
//!
//! # On the servers
//!
//! The key `jobs/42` is the node `/jobs/42` below the chroot: the path to give to Curator or
//! kazoo. What ZooKeeper does not allow in a path is percent-encoded, and so are `%`, an empty
//! part (`%00`) and whatever would be mistaken for a contender, so different keys are different
//! nodes. These nodes and their parents (the chroot too, if it is not there) are *containers*: the
//! servers delete them when they have been empty for a while. A claim is an ephemeral sequential
//! child, with its owner and note as data: `zkCli.sh ls /jobs/42` shows the line, `get` shows who.
//!
//! Records are below `/%leasehold`, where no key leads: `/%leasehold/records/<hh>/jobs%2F42`, with
//! the whole key in the last part and a hash of it before. A record is a node with its bytes behind
//! a line that says for how long it is kept; its version is the transaction that wrote it (`mzxid`).
//! The time that counts for records is the leader's clock: it is learned by writing the node
//! `/%leasehold/clock`, so a reading costs a commit. What is over is seen by nobody, and deleted a
//! while later by whoever makes another record. Let nobody write these nodes by hand.
//!
//! Without a user in the URL everybody may do everything with these nodes, as is the default of
//! Curator and kazoo. With one, nobody but that user may: all who share locks need the same user,
//! and peers by their own recipes too. Needed on the chroot: create, delete and read.
//!
//! # Interoperation
//!
//! A leasehold mutex and Curator's `InterProcessMutex` (`dialect=curator`) or kazoo's `Lock`
//! (`dialect=kazoo`) on the same path exclude each other, both ways. No name satisfies both,
//! because Curator ignores kazoo's; leasehold itself respects both, their read/write locks, the
//! leader latch and the Java recipe, whatever it writes; so leaders of ours and of kazoo's `Election`
//! or Curator's `LeaderSelector` exclude each other, too. It takes each of those for exclusive, so
//! it waits for a foreign *reader* where it could stand beside it. Semaphores and read/write locks
//! of leasehold and of others are not of one kind: do not put them on one path. Do not use
//! Curator on a path that is above another key's: it counts every child as a contender.
//!
//! # What is promised
//!
//! - **A hold lasts as long as its session**, which the servers end no earlier than the TTL after
//!   the last acknowledged renewal was sent. A renewal is acknowledged only when a majority agreed
//!   on a write of ours *after* our member has had the time to tell the leader that it heard us
//!   (five eighths of a tick): a member that is cut off goes on answering pings for `syncLimit`
//!   ticks, and such answers are not believed. There are no pings besides the renewals. The TTL
//!   has to span five ticks, so that this leaves time to try again: 10 s with `tickTime=2000`.
//! - **The fence is the number of the transaction that created the claim's node** (`czxid`). It
//!   grows through releases, restarts and elections, and when a parent is deleted and its
//!   sequence numbers start over.
//! - **First come, first served**, in the order of the sequence numbers, also across a wrap of
//!   their 32 bits, where other recipes lose their order.
//! - **Wake-ups are watches**: of the predecessor for a mutex and a writer, of the nearest writer
//!   for a reader, and for a semaphore of as many as have to stay for it to stay blocked. Waiting
//!   costs no requests. When the last one in the way leaves, that event *is* the grant.
//! - **A lost connection** loses no hold by itself: the session is taken up at another member, and
//!   everybody looks again. A lost answer is found again by the claim's id, on nodes of this very
//!   session only.
//! - Uncontended acquire and release are a commit each. `try_lock` reads the line first, and adds
//!   a node only if it would be granted: a round trip more, and never in anybody's way.
//!
//! # What is not promised
//!
//! - *How far clocks may differ*: rates, by the drift margin; set clocks do not matter, except to
//!   the `age` and `left` that `inspect` shows. They compare this machine's clock with the leader's;
//!   `left` is what was left at least if the session was never renewed.
//! - *A tick that is not what it seems.* Without `tick=` it is taken for half of the shortest
//!   session timeout that the servers grant. Who sets `minSessionTimeout` below two ticks has to
//!   give `tick=`, or a member that is cut off between two pings of the leader can cost up to half
//!   a tick of the promised TTL.
//! - *A leader that pauses its pings but not its expiry* for more than an eighth of a tick does the
//!   same. The fence protects from both.
//! - *Fences and versions of records after loss of the data*: an ensemble restored from an old
//!   snapshot counts from there.
//! - *A session ends sooner than asked for?* Never silently: servers that grant less than the TTL
//!   (`maxSessionTimeout`) are refused at the first use. They may grant more (`minSessionTimeout`),
//!   and then a crashed holder blocks that much longer, up to a tick on top; and servers that were
//!   down start every session's timeout anew when they return.
//! - *Fewer units, for others*: a name cannot change, so units that a hold gave up stand in its
//!   node's data, where leasehold looks. Who does not (an older leasehold) waits for longer
//!   than it would have to, and never for less. Each note that is amended costs those who watch
//!   the node a request, and wakes nobody.
//! - *One time through an election*: the servers' clocks may differ, and `at` of a record's reading
//!   is the current leader's. Keep them synchronised, or a record may be over that much too early.
//! - *Large semaphores with many waiters*: up to `limit` waiters are woken by one release.
//! - Whoever can read a claim's name and may delete nodes can end it, as with every recipe.

mod config;
mod examine;
mod hold;
mod judge;
mod label;
mod ledger;
mod line;
mod names;
mod records;
mod session;
mod store;
mod survey;
mod wire;

use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use leasehold_core::{Claim, Note, SessionId, Terms};
use tokio::sync::OnceCell;

use self::config::Config;
use self::ledger::{Ledger, Seat};
use self::records::Records;
use self::session::{Session, Sessions, credentials, session_id};
use self::wire::{Credentials, Failure, Link, Opened, Pace};
use crate::error::{Error, ErrorKind, Result};
use crate::stores::mailbox::Mailbox;

/// A TTL has to span this many ticks of the servers, so that a renewal, which waits for half
/// a tick, leaves time for another.
const TICKS_MIN: u32 = 5;

/// A handle to an ensemble. Clones are the same handle.
#[derive(Clone)]
pub struct ZooKeeper {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    mailbox: Arc<Mailbox>,
    sessions: Mutex<Sessions>,
    /// One at a time takes up a session: two connections would take it from each other.
    resuming: tokio::sync::Mutex<()>,
    tick: OnceCell<Duration>,
    /// How many records were made.
    made: AtomicU32,
}

impl ZooKeeper {
    /// The shortest TTL that any ensemble keeps. Most ask for more: five ticks of the servers,
    /// which is 10 s with the usual `tickTime=2000`.
    pub const MIN_TTL: Duration = Duration::from_millis(500);

    /// The ensemble that `url` names. Parses and checks; no IO happens before the store is used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a URL that cannot be read.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                config: Arc::new(Config::parse(url)?),
                mailbox: Arc::default(),
                sessions: Mutex::default(),
                resuming: tokio::sync::Mutex::default(),
                tick: OnceCell::new(),
                made: AtomicU32::default(),
            }),
        })
    }

    /// The path of a claim's node, if this handle has put it there.
    pub(crate) fn node_of_claim(&self, session: &SessionId, claim: &Claim) -> Option<String> {
        match self.carried(session)?.ledger.seat(claim.id)? {
            Seat::Known { node, .. } => Some(node.path),
            Seat::Doubtful => None,
        }
    }

    fn config(&self) -> &Config {
        &self.shared.config
    }

    fn records<'a>(&'a self, link: &'a Link) -> Records<'a> {
        Records { link, config: self.config(), made: &self.shared.made }
    }

    fn mailbox(&self) -> &Mailbox {
        &self.shared.mailbox
    }

    /// Begins a session.
    async fn begin(&self, terms: &Terms) -> Result<SessionId> {
        const ATTEMPT: &str = "open a session";
        let ttl = terms.ttl;
        let refused = |detail| Err(Error::new(ErrorKind::Invalid, ATTEMPT, detail));
        if ttl < Self::MIN_TTL {
            let min = Self::MIN_TTL;
            return refused(format!("a TTL of {ttl:?} is below the minimum of {min:?}"));
        }
        let tick = self.tick(ttl).await.map_err(|failure| failure.while_trying(ATTEMPT))?;
        if ttl < tick * TICKS_MIN {
            let min = tick * TICKS_MIN;
            return refused(format!(
                "a TTL of {ttl:?} is too short for servers with a tickTime of {tick:?}: at least \
                 {min:?}; if their tickTime is shorter than that, say so by `?tick=`"
            ));
        }
        let opened = self.link(None, ttl, terms.owner.clone(), tick).await;
        let (session, granted) = opened.map_err(|failure| failure.while_trying(ATTEMPT))?;
        if granted < ttl {
            // It would lapse by itself, too.
            let _ = session.close().await;
            return refused(format!(
                "the servers grant sessions of at most {granted:?}, not {ttl:?}; shorten the TTL, \
                 or raise their maxSessionTimeout (20 ticks unless configured)"
            ));
        }
        let id = session_id(&session.credentials, ttl);
        self.sessions().insert(id.clone(), Arc::new(session));
        Ok(id)
    }

    /// The session of this name: one that this handle carries, or else taken up again from
    /// wherever it was.
    async fn session(&self, id: &SessionId) -> Result<Arc<Session>, Failure> {
        if let Some(session) = self.carried(id) {
            return Ok(session);
        }
        let _turn = self.shared.resuming.lock().await;
        if let Some(session) = self.carried(id) {
            return Ok(session);
        }
        let (credentials, ttl) = credentials(id).ok_or(Failure::Ended)?;
        let tick = self.tick(ttl).await?;
        let (session, _) = self.link(Some(credentials), ttl, Note::default(), tick).await?;
        let session = Arc::new(session);
        self.sessions().insert(id.clone(), Arc::clone(&session));
        Ok(session)
    }

    fn carried(&self, id: &SessionId) -> Option<Arc<Session>> {
        let mut sessions = self.sessions();
        if sessions.get(id).is_some_and(|session| !session.link.is_usable()) {
            sessions.remove(id);
        }
        sessions.get(id).cloned()
    }

    fn forget(&self, id: &SessionId) {
        self.sessions().remove(id);
        self.mailbox().forget_session(id);
    }

    /// Opens a session or takes one up; with the timeout that was granted.
    async fn link(
        &self,
        resumed: Option<Credentials>,
        ttl: Duration,
        owner: Note,
        tick: Duration,
    ) -> Result<(Session, Duration), Failure> {
        let ledger: Arc<OnceLock<Arc<Ledger>>> = Arc::default();
        let listener = {
            let ledger = Arc::clone(&ledger);
            // Before the ledger is there, nobody has entered and nothing is watched.
            Box::new(move |event| {
                if let Some(ledger) = ledger.get() {
                    ledger.told(event);
                }
            })
        };
        let pace = Pace { timeout: ttl, patience: patience(ttl) };
        let config = Arc::clone(&self.shared.config);
        let Opened { link, credentials, timeout } =
            wire::open(Arc::clone(&config), resumed, pace, listener).await?;
        let id = session_id(&credentials, ttl);
        self.mailbox().expect_session(&id);
        let ours = Arc::new(Ledger::new(id, Arc::clone(&self.shared.mailbox)));
        let ours = Arc::clone(ledger.get_or_init(|| ours));
        // The leader asks each member twice in a tick whom it has heard; an eighth is for the way.
        let relay = tick * 5 / 8;
        Ok((Session { config, owner, ttl, credentials, link, ledger: ours, relay }, timeout))
    }

    /// The servers' `tickTime`: from the URL, or else half of the shortest session timeout that
    /// they grant, which is what it is unless they are configured otherwise.
    async fn tick(&self, ttl: Duration) -> Result<Duration, Failure> {
        if let Some(tick) = self.config().tick {
            return Ok(tick);
        }
        let asking = async {
            let shortest = Duration::from_millis(1);
            let (link, granted) = self.passing_link(shortest, patience(ttl)).await?;
            let _ = link.ask(wire::Request::Close).await;
            Ok(granted / 2)
        };
        self.shared.tick.get_or_try_init(|| asking).await.copied()
    }

    /// Does something that needs a connection, but no session in particular.
    async fn visit<T>(
        &self,
        errand: impl AsyncFnOnce(&Link) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let carried = self.sessions().values().find(|session| session.link.is_usable()).cloned();
        if let Some(session) = carried {
            return errand(&session.link).await;
        }
        let (link, _) = self.passing_link(VISIT, patience(VISIT)).await?;
        let outcome = errand(&link).await;
        let _ = link.ask(wire::Request::Close).await;
        outcome
    }

    async fn passing_link(
        &self,
        timeout: Duration,
        patience: Duration,
    ) -> Result<(Link, Duration), Failure> {
        let pace = Pace { timeout, patience };
        let config = Arc::clone(&self.shared.config);
        let opened = wire::open(config, None, pace, Box::new(|_| {})).await?;
        Ok((opened.link, opened.timeout))
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // Nothing panics while it is locked.
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session timeout of a visit.
const VISIT: Duration = Duration::from_secs(30);

/// How long a member may leave us without an answer before another is tried: short enough for
/// several within a TTL, long enough for a garbage collection.
fn patience(ttl: Duration) -> Duration {
    (ttl / 8).clamp(Duration::from_millis(500), Duration::from_secs(5))
}

impl fmt::Display for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config().fmt(f)
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper").field("config", self.config()).finish_non_exhaustive()
    }
}
