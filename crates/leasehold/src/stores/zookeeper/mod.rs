#![doc = include_str!("../zookeeper.md")]

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
use crate::property::{Properties, Property};
use crate::stores::mailbox::Mailbox;

/// What it promises; the page above says under which conditions, and what not.
pub(super) const PROPERTIES: Properties = Properties::of(&[
    Property::Processes,
    Property::Machines,
    Property::ForeignClients,
    Property::Line,
    Property::Wakes,
    Property::Counting,
    Property::Records,
    Property::SurvivesCrash,
    Property::SurvivesPowerLoss,
    Property::SurvivesMemberLoss,
    Property::SurvivesFailover,
    Property::FencesSurviveCrash,
    Property::FencesSurviveFailover,
]);

/// The `tickTime` of servers that are not configured otherwise.
const USUAL_TICK: Duration = Duration::from_secs(2);

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
