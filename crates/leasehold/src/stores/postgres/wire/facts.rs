//! What the server says of itself: its settings, its standbys, and how near it is to its limits.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::config::{Config, Host};
use super::lane::{Inbox, Lane};
use super::link::dial;
use super::{Answer, Failure, Wire, get};
use crate::error::ErrorKind;

const TIME: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// `reset_val` is what holds where a connection sets nothing of its own, as this store does.
const SETTINGS: &str = "SELECT name, reset_val FROM pg_settings WHERE name IN (\
     'server_version', 'fsync', 'full_page_writes', 'synchronous_commit', \
     'synchronous_standby_names', 'autovacuum', 'idle_session_timeout', 'max_connections', \
     'superuser_reserved_connections', 'reserved_connections')";

/// Who may not read the statistics of others sees the standbys, and NULL for all about them.
const STANDBYS: &str = "SELECT application_name, state, sync_state, \
     (extract(epoch FROM flush_lag) * 1000)::bigint FROM pg_stat_replication ORDER BY pid";

const CONNECTIONS: &str = "SELECT sum(numbackends)::bigint FROM pg_stat_database";
const UNFROZEN: &str = "SELECT max(age(datfrozenxid))::bigint FROM pg_database";
const RECOVERY: &str = "SELECT pg_is_in_recovery()";

/// What a server said.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Facts {
    pub(in super::super) settings: HashMap<String, String>,
    pub(in super::super) standbys: Vec<Standby>,
    /// How many connections it has.
    pub(in super::super) connections: i64,
    /// How many transactions ago the oldest row was frozen.
    pub(in super::super) unfrozen: i64,
    /// It is a standby itself.
    pub(in super::super) standby: bool,
}

/// A standby as its primary sees it. Nothing is known where this role may not look.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Standby {
    pub(in super::super) name: Option<String>,
    pub(in super::super) state: Option<String>,
    /// `async`, `potential`, `sync` or `quorum`.
    pub(in super::super) sync: Option<String>,
    /// How long ago what it has flushed was committed, where it is behind.
    pub(in super::super) lag_ms: Option<i64>,
}

/// A connection for looking only. It is not set up as the others are: that is a write, for which
/// a standby, or a primary that waits for one, is of no use.
pub(in super::super) struct Glance {
    lane: Lane,
    pub(in super::super) standby: bool,
    _end: DropGuard,
}

impl Wire {
    /// Looks at the first server that is no standby, or else at a standby.
    pub(in super::super) async fn glance(&self) -> Answer<Glance> {
        let mut failure = Failure::new(ErrorKind::Invalid, "the URL names no host");
        let mut found = None;
        for host in &self.config().hosts {
            match Glance::at(self.config(), host).await {
                Ok(glance) if !glance.standby => return Ok(glance),
                Ok(glance) => found = found.or(Some(glance)),
                Err(error) => failure = error,
            }
        }
        found.ok_or(failure)
    }

    /// Whether the connections that locks use can be made, and go through a pooler.
    pub(in super::super) async fn set_up(&self) -> Answer<bool> {
        self.dialer.link().await.map(|link| link.is_pooled())
    }
}

impl Glance {
    async fn at(config: &Config, host: &Host) -> Answer<Self> {
        let broken = CancellationToken::new();
        // Nobody speaks to it, and nobody has to be told when it ends.
        let inbox = Inbox {
            mailbox: Arc::default(),
            channel: String::new(),
            probed: tokio::sync::Notify::new(),
        };
        let lane = dial(config, host, &Arc::new(inbox), &broken).await?;
        let mut glance = Self { lane, standby: false, _end: broken.drop_guard() };
        glance.standby = glance.one(RECOVERY).await?;
        Ok(glance)
    }

    /// The server's clock, in microseconds since 1970.
    pub(in super::super) async fn time(&self) -> Answer<u64> {
        self.one::<i64>(TIME).await.map(i64::unsigned_abs)
    }

    pub(in super::super) async fn facts(&self) -> Answer<Facts> {
        let pair =
            |row: &Row| Ok((get(row, 0)?, get::<Option<String>>(row, 1)?.unwrap_or_default()));
        let settings = self.ask(SETTINGS).await?.iter().map(pair).collect::<Answer<_>>()?;
        let standby = |row: &Row| {
            Ok(Standby {
                name: get(row, 0)?,
                state: get(row, 1)?,
                sync: get(row, 2)?,
                lag_ms: get(row, 3)?,
            })
        };
        let standbys = self.ask(STANDBYS).await?.iter().map(standby).collect::<Answer<_>>()?;
        let (connections, unfrozen) = (self.one(CONNECTIONS).await?, self.one(UNFROZEN).await?);
        Ok(Facts { settings, standbys, connections, unfrozen, standby: self.standby })
    }

    async fn ask(&self, sql: &str) -> Answer<Vec<Row>> {
        self.lane.ask("", sql, &[]).await
    }

    async fn one<T: for<'a> FromSql<'a>>(&self, sql: &str) -> Answer<T> {
        get(self.ask(sql).await?.first().ok_or_else(Failure::nonsense)?, 0)
    }
}
