//! What is checked and set before a new pair of connections is used.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::super::config::{Config, Host};
use super::super::schema_sql;
use super::lane::{Inbox, Lane, PROBE};
use super::link::{Link, dial};
use super::refusal::Failure;
use crate::error::ErrorKind;

/// The version of the tables that this build reads and writes.
const VERSION: i32 = 3;
/// The oldest server that has every function used, as `server_version_num` counts.
const OLDEST: i32 = 120_000;
/// How long a message to ourselves may take before nobody can listen here.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// The lock that whoever makes the tables holds.
const SCHEMA_LOCK: i64 = 3_061_745_991_864_270_411;

const BACKEND: &str = "SELECT pg_backend_pid()";
const SERVER: &str = "SELECT current_setting('server_encoding'), pg_is_in_recovery(), \
     current_setting('server_version_num')::int, pg_backend_pid()";

/// Connects to one server and makes sure that it can keep our promises.
pub(super) async fn establish(
    config: &Config,
    host: &Host,
    inbox: &Arc<Inbox>,
) -> Result<Link, Failure> {
    let broken = CancellationToken::new();
    // Whichever way this fails or is dropped, the connections end.
    let guard = broken.clone().drop_guard();
    let claims = dial(config, host, inbox, &broken).await?;
    let first = check_server(&claims).await?;
    let control = dial(config, host, inbox, &broken).await?;
    let second = backend(&control).await?;
    let again = backend(&claims).await?;
    let link = Link::new(claims, control, second, broken);
    // Two connections with one backend, or one with two: a pooler deals them out by transaction.
    // Found before anything is set or listened to, which would stay with somebody else's backend.
    if second == first || again != first {
        link.found_pooler(config, "connections share backends");
        prepare_schema(config, &link.claims).await?;
    } else {
        set_session(config, &link.claims).await?;
        set_session(config, &link.control).await?;
        prepare_schema(config, &link.claims).await?;
        if !listen(config, &link, inbox).await? {
            link.found_pooler(config, "a notification to ourselves did not arrive");
        }
    }
    guard.disarm();
    Ok(link)
}

async fn check_server(lane: &Lane) -> Result<i32, Failure> {
    let rows = lane.ask("", SERVER, &[]).await?;
    let row = rows.first().ok_or_else(nonsense)?;
    let encoding: String = row.try_get(0).map_err(|_| nonsense())?;
    if encoding != "UTF8" {
        let detail = format!(
            "the database is encoded in {encoding}, which cannot hold every key; use a database \
             made with ENCODING 'UTF8'"
        );
        return Err(Failure::new(ErrorKind::Unsupported, detail));
    }
    let version: i32 = row.try_get(2).map_err(|_| nonsense())?;
    if version < OLDEST {
        let detail = format!("the server is PostgreSQL {}; use 12 or newer", version / 10_000);
        return Err(Failure::new(ErrorKind::Unsupported, detail));
    }
    if row.try_get(1).map_err(|_| nonsense())? {
        let detail = "the server is a standby; name the primary, or all servers: \
                      postgres://h1,h2/db";
        return Err(Failure::new(ErrorKind::Unavailable, detail));
    }
    row.try_get(3).map_err(|_| nonsense())
}

async fn backend(lane: &Lane) -> Result<i32, Failure> {
    let rows = lane.ask("", BACKEND, &[]).await?;
    rows.first().and_then(|row| row.try_get(0).ok()).ok_or_else(nonsense)
}

/// Makes the tables if they are not there, and brings those of an earlier version up to date, under
/// a lock: however many come at the same time.
async fn prepare_schema(config: &Config, lane: &Lane) -> Result<(), Failure> {
    let schema = config.schema.as_str();
    let mut found = version(schema, lane).await?;
    if matches!(found, None | Some(1..VERSION)) {
        let create = format!("SELECT pg_advisory_xact_lock({SCHEMA_LOCK}); {}", schema_sql(schema));
        lane.run(schema, &create).await.map_err(|failure| match (failure.kind, found) {
            (ErrorKind::Denied, Some(older)) => failure.detailed(outdated(schema, older)),
            _ => failure,
        })?;
        found = version(schema, lane).await?;
    }
    match found {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => {
            let detail = format!(
                "the tables in the schema {schema} are of version {newer}, this leasehold knows \
                 version {VERSION}: a newer schema; update leasehold here, or give this one \
                 tables of its own: ?schema=another_name"
            );
            return Err(Failure::new(ErrorKind::Corrupt, detail));
        }
        _ => {
            let detail = format!(
                "the tables in the schema {schema} are of no known version; give leasehold a \
                 schema of its own: ?schema=another_name"
            );
            return Err(Failure::new(ErrorKind::Corrupt, detail));
        }
    }
    // A new connection may be to another server, one that lost the last commits.
    lane.ask(schema, &format!("SELECT {schema}.raise_fences()::text"), &[]).await?;
    Ok(())
}

fn outdated(schema: &str, older: i32) -> String {
    format!(
        "the tables in the schema {schema} are of version {older}, and this leasehold needs version \
         {VERSION}. Let their owner run the SQL of leasehold::stores::postgres::SCHEMA_SQL once (or \
         connect once as that role); what is held stays, and so does who may lock"
    )
}

async fn version(schema: &str, lane: &Lane) -> Result<Option<i32>, Failure> {
    let table = format!("{schema}.state");
    let exists = "SELECT to_regclass($1) IS NOT NULL";
    let rows = lane.ask(schema, exists, &[(&table, Type::TEXT)]).await?;
    let exists: bool = rows.first().and_then(|row| row.try_get(0).ok()).ok_or_else(nonsense)?;
    if !exists {
        return Ok(None);
    }
    let rows = lane.ask(schema, &format!("SELECT version FROM {table}"), &[]).await?;
    Ok(Some(rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0)))
}

/// Settings of our own for the session, which a role's or a database's defaults do not override.
async fn set_session(config: &Config, lane: &Lane) -> Result<(), Failure> {
    let timeout = config.request_timeout.as_millis();
    let set = format!(
        "SET default_transaction_isolation = 'read committed'; \
         SET lock_timeout = {lock}; SET statement_timeout = {statement}; \
         SET idle_in_transaction_session_timeout = {timeout}; \
         SET search_path = pg_catalog; \
         SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
         SET jit = off",
        // The server gives up first, so that the outcome is known.
        lock = (timeout / 2).max(1),
        statement = (timeout * 4 / 5).max(1),
    );
    lane.run(&config.schema, &set).await
}

/// Listens, and sees whether a message arrives. What a pooler hides otherwise, this shows.
async fn listen(config: &Config, link: &Link, inbox: &Inbox) -> Result<bool, Failure> {
    let schema = config.schema.as_str();
    link.control.run(schema, &format!("LISTEN {}", inbox.channel)).await?;
    let notify = "SELECT pg_notify($1, $2)::text";
    let params = [
        (&inbox.channel as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
        (&PROBE, Type::TEXT),
    ];
    link.claims.ask(schema, notify, &params).await?;
    Ok(tokio::time::timeout(PROBE_PATIENCE, inbox.probed.notified()).await.is_ok())
}

fn nonsense() -> Failure {
    Failure::new(ErrorKind::Corrupt, "the server answers as PostgreSQL does not")
}
