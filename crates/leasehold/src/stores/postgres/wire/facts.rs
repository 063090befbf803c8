//! What the server says of itself: its settings, its standbys, and how near it is to its limits.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::{Answer, Wire, get};

const TIME: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// `reset_val` is what holds where a connection sets nothing of its own, as this store does.
const SETTINGS: &str = "SELECT name, reset_val FROM pg_settings WHERE name IN (\
     'server_version', 'fsync', 'full_page_writes', 'synchronous_commit', \
     'synchronous_standby_names', 'autovacuum', 'idle_session_timeout', 'max_connections')";

/// Who may not read the statistics of others sees the standbys, and NULL for all about them.
const STANDBYS: &str = "SELECT application_name, state, sync_state, \
     (extract(epoch FROM flush_lag) * 1000)::bigint FROM pg_stat_replication ORDER BY pid";

const LIMITS: &str = "SELECT (SELECT sum(numbackends) FROM pg_stat_database)::bigint, \
     (SELECT max(age(datfrozenxid)) FROM pg_database)::bigint";

/// What a server said.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Facts {
    pub(in super::super) settings: HashMap<String, String>,
    pub(in super::super) standbys: Vec<Standby>,
    /// How many connections it has.
    pub(in super::super) connections: i64,
    /// How many transactions ago the oldest row was frozen.
    pub(in super::super) unfrozen: i64,
    /// A pooler stands between.
    pub(in super::super) pooled: bool,
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

impl Wire {
    /// The server's clock, in microseconds since 1970.
    pub(in super::super) async fn time(&self) -> Answer<u64> {
        let link = self.dialer.link().await?;
        let micros: i64 = get(&self.one(&link.control, TIME, &[]).await?, 0)?;
        Ok(micros.unsigned_abs())
    }

    pub(in super::super) async fn facts(&self) -> Answer<Facts> {
        let link = self.dialer.link().await?;
        let rows = self.ask(&link.control, SETTINGS, &[]).await?;
        let pair =
            |row: &Row| Ok((get(row, 0)?, get::<Option<String>>(row, 1)?.unwrap_or_default()));
        let settings = rows.iter().map(pair).collect::<Answer<_>>()?;
        let rows = self.ask(&link.control, STANDBYS, &[]).await?;
        let standby = |row: &Row| {
            Ok(Standby {
                name: get(row, 0)?,
                state: get(row, 1)?,
                sync: get(row, 2)?,
                lag_ms: get(row, 3)?,
            })
        };
        let standbys = rows.iter().map(standby).collect::<Answer<_>>()?;
        let limits = self.one(&link.control, LIMITS, &[]).await?;
        let (connections, unfrozen) = (get(&limits, 0)?, get(&limits, 1)?);
        Ok(Facts { settings, standbys, connections, unfrozen, pooled: self.polls() })
    }
}
