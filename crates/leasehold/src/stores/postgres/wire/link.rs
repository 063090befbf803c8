//! The two connections of a store handle, made on demand and made again when one of them ends.
//!
//! Claims go over one; sessions and notifications go over the other, so that a renewal does not
//! queue behind ten thousand requests for locks.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt, Shared};
use secrecy::ExposeSecret;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

use super::super::config::{Config, Host, TlsMode};
use super::lane::{Inbox, Lane, drive};
use super::refusal::Failure;
use super::setup;
use super::tls;
use crate::error::ErrorKind;

/// Both connections, to one server.
pub(super) struct Link {
    pub(super) claims: Lane,
    pub(super) control: Lane,
    /// The backend behind `control` when it was made.
    pub(super) backend: i32,
    /// A pooler stands between: nobody can listen.
    pooled: AtomicBool,
    broken: CancellationToken,
}

impl Link {
    pub(super) fn new(
        claims: Lane,
        control: Lane,
        backend: i32,
        broken: CancellationToken,
    ) -> Self {
        Self { claims, control, backend, pooled: AtomicBool::new(false), broken }
    }

    pub(super) fn is_pooled(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }

    /// Takes note of a pooler, and says so once.
    pub(super) fn found_pooler(&self, store: &impl fmt::Display, sign: &str) {
        if !self.pooled.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %store,
                "a transaction pooler stands before PostgreSQL ({sign}): waiters cannot be woken \
                 and ask again every {:?} instead; name the server itself in the URL, or a pool \
                 in session mode",
                super::POLL
            );
        }
    }
}

/// One attempt to connect, which any number of callers wait for, and none of them can cut short.
type Attempt = Shared<BoxFuture<'static, Result<Arc<Link>, Failure>>>;

enum State {
    Down,
    Connecting(Attempt),
    Up(Arc<Link>),
}

/// Makes the connections, one attempt at a time.
pub(super) struct Dialer {
    pub(super) config: Arc<Config>,
    pub(super) inbox: Arc<Inbox>,
    state: Mutex<State>,
    /// Whether the last connection made had a pooler before it.
    pooled: Arc<AtomicBool>,
}

impl Dialer {
    pub(super) fn new(config: Config, inbox: Inbox) -> Self {
        Self {
            config: Arc::new(config),
            inbox: Arc::new(inbox),
            state: Mutex::new(State::Down),
            pooled: Arc::default(),
        }
    }

    /// Whether the connections of now, or the last ones, go through a pooler.
    pub(super) fn is_pooled(&self) -> bool {
        match &*self.state() {
            State::Up(link) => link.is_pooled(),
            _ => self.pooled.load(Ordering::Relaxed),
        }
    }

    /// The connections; makes them if there are none that work.
    pub(super) async fn link(&self) -> Result<Arc<Link>, Failure> {
        let attempt = {
            let mut state = self.state();
            match &*state {
                State::Up(link) if !link.broken.is_cancelled() => return Ok(Arc::clone(link)),
                State::Connecting(attempt) => attempt.clone(),
                State::Up(_) | State::Down => {
                    let attempt = self.attempt();
                    *state = State::Connecting(attempt.clone());
                    attempt
                }
            }
        };
        let outcome = attempt.clone().await;
        let mut state = self.state();
        // The first of those who waited takes note, unless a later attempt is under way already.
        if matches!(&*state, State::Connecting(current) if current.ptr_eq(&attempt)) {
            *state = match &outcome {
                Ok(link) => {
                    self.pooled.store(link.is_pooled(), Ordering::Relaxed);
                    State::Up(Arc::clone(link))
                }
                Err(_) => State::Down,
            };
        }
        outcome
    }

    fn attempt(&self) -> Attempt {
        let (config, inbox) = (Arc::clone(&self.config), Arc::clone(&self.inbox));
        let task = tokio::spawn(async move { connect(&config, &inbox).await });
        let outcome = async move {
            task.await.unwrap_or_else(|_| {
                let detail = "the runtime that made the connection was shut down; ask again";
                Err(Failure::new(ErrorKind::Unavailable, detail))
            })
        };
        outcome.boxed().shared()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and every state is a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries the servers in turn; the first that may be written to is it.
async fn connect(config: &Config, inbox: &Arc<Inbox>) -> Result<Arc<Link>, Failure> {
    let mut failure = Failure::new(ErrorKind::Invalid, "the URL names no host");
    for host in &config.hosts {
        match setup::establish(config, host, inbox).await {
            Ok(link) => return Ok(Arc::new(link)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Opens one connection to `host` and moves its messages from now on.
pub(super) async fn dial(
    config: &Config,
    host: &Host,
    inbox: &Arc<Inbox>,
    broken: &CancellationToken,
) -> Result<Lane, Failure> {
    let tls = tls::client_config(&config.tls)?;
    let limit = config.connect_timeout;
    let settings = settings(config, host);
    let connecting = settings.connect(MakeRustlsConnect::new(tls));
    let connected = tokio::time::timeout(limit, connecting).await.map_err(|_| {
        Failure::new(ErrorKind::Unavailable, format!("no connection within {limit:?}"))
    })?;
    let (client, connection) =
        connected.map_err(|error| Failure::of_connect(&error, &config.schema))?;
    tokio::spawn(drive(connection, Arc::clone(inbox), broken.clone()));
    Ok(Lane::new(client, broken.clone(), config.request_timeout))
}

fn settings(config: &Config, host: &Host) -> tokio_postgres::Config {
    let mut settings = tokio_postgres::Config::new();
    settings.application_name(&config.application);
    // The kernel notices a dead peer too, if nobody asks anything.
    settings.tcp_user_timeout(config.request_timeout.max(config.connect_timeout));
    settings.keepalives_idle(config.request_timeout * 2);
    let mode = match config.tls.mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    };
    match host {
        Host::Tcp(name, port) => settings.host(name).port(*port).ssl_mode(mode),
        // The server has no TLS on a Unix socket.
        Host::Socket(path, port) => settings.host_path(path).port(*port).ssl_mode(SslMode::Disable),
    };
    if let Some(user) = &config.user {
        settings.user(user);
    }
    if let Some(password) = &config.password {
        settings.password(password.expose_secret());
    }
    if let Some(database) = &config.database {
        settings.dbname(database);
    }
    settings
}
