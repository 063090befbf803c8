//! One PostgreSQL database (12 or newer; tested with 15).
//!
//! # URLs
//!
//! `postgres://[user[:password]@][host[:port][,host[:port]…]][/database][?parameters]`, or
//! `postgresql://…`. With several hosts the first that can be reached and is no standby is used,
//! also after a failover. A host that begins with `/` (as `%2F`, or by `?host=/…`) is the directory
//! of a Unix socket. Without a user it is the operating system's.
//!
//! | parameter | |
//! |---|---|
//! | `sslmode` | `disable`, `prefer` (unless given), `require`, `verify-ca`, `verify-full`, as libpq has them: only the last two keep out an impostor |
//! | `sslrootcert` | a PEM file, or `system` (unless given; libpq looks in the home directory instead) |
//! | `sslcert`, `sslkey` | a certificate of ours and its key |
//! | `connect_timeout` | seconds until a connection stands: 10 |
//! | `timeout` | seconds without an answer until a connection counts as dead: 5 |
//! | `schema` | where the tables live: `leasehold`. Another name is another lock service |
//! | `host`, `port`, `user`, `password`, `dbname`, `application_name` | as in libpq |
//!
//! # What it keeps
//!
//! In a schema of its own: a row for each session (`sessions`), a row for each claim (`claims`:
//! who has a `fence` holds, who has none waits), a row for each record (`records`), a sequence of
//! fences and one row of `state`. Look at them with
//! `SELECT * FROM leasehold.claims ORDER BY key, ticket`; deleting a row ends the hold.
//! A handle uses two connections, however many locks it holds. No session advisory locks: those die
//! with a connection, and come without a fence.
//!
//! The tables make themselves with the first connection, if the role may create a schema. If not,
//! an owner runs [`SCHEMA_SQL`] once, and then, for each role that locks:
//!
//! ```sql
//! GRANT USAGE ON SCHEMA leasehold TO app;
//! GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA leasehold TO app;
//! GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA leasehold TO app;
//! ```
//!
//! Tables of an earlier version are brought up to date by the first connection of a role that owns
//! them, or by [`SCHEMA_SQL`] run by hand: what is held stays, and so does who may lock. Processes
//! with an earlier leasehold go on with the connections that they have, and are refused when they
//! connect again: update all who use a schema within a short time.
//!
//! # What it promises
//!
//! - One at a time, readers beside readers and semaphores, first come, first served, among all
//!   who use the same schema. Acquire, release and the renewal of everything are one statement
//!   each. The order of arrival is decided under a lock on the key, by the server's clock read
//!   after that lock is held; each statement commits before it answers (`synchronous_commit` is
//!   raised to `on` where it is less).
//! - Nothing that lapsed comes back: who passes over a dead claim first writes down that its
//!   session is dead, and a renewal that crosses with this finds it.
//! - A crash or a restart of the server forgets no hold and no fence, given `fsync = on`.
//! - Fences grow through release, lapse, deletion of rows and a reset of the sequence: with each
//!   new connection and each new session they are raised to the server's clock in microseconds if
//!   they are behind it.
//! - **Records** are read and written in one statement each, and what was written is on the disk (and
//!   on synchronous standbys) when it is answered. A write under a hold is judged under the key's
//!   lock: none of a former holder comes after the next grant. Versions are drawn from the fences,
//!   so they grow through expiry, deletion and the same losses.
//! - The releasing statement hands over to the next live claim and tells that one process by
//!   `NOTIFY`; nobody is told when nobody waits. When a connection is lost, every waiter looks again
//!   over the next one.
//!
//! # What it does not promise
//!
//! - **Promotion of an asynchronous replica may lose the last commits**: two may then hold. A holder
//!   that was forgotten learns of it at its next renewal. The fences of the new primary are above
//!   those of the lost grants if its clock is not behind by more than the failover took, and
//!   everybody reconnects; behind a pooler that hides the failover, only from the next new session
//!   on. Use a synchronous replica (`synchronous_standby_names`) and neither happens.
//! - Restoring a backup brings old holds back until their TTL is over, and the fences are raised as
//!   above.
//! - **A step of the server's clock** forwards ends leases early, which nobody sees coming; a step
//!   backwards makes those of dead processes last longer by as much. The fence protects against
//!   the first. Records are kept by the same clock.
//! - **Behind a transaction pooler** (PgBouncer's `pool_mode = transaction`) nobody can be woken:
//!   it is noticed, warned of, and waiters ask again every 200 ms. Nothing else changes. The
//!   limits on lock waits and statements that are otherwise set for the connection are not set
//!   there, because they would stay with a backend that others use.
//! - Whoever may write to the tables may end and forge holds.
//! - A statement whose connection was lost may still be carried out by its old backend, for as long
//!   as `statement_timeout` allows (four fifths of `timeout`); a claim that was given up meanwhile
//!   is left again.

mod config;
mod examine;
mod store;
mod wire;

pub use store::Postgres;

/// The SQL that makes the tables and functions, in the schema `leasehold`. It may be run again.
pub const SCHEMA_SQL: &str = include_str!("schema.sql");

/// [`SCHEMA_SQL`] for a schema of another name, as `?schema=` allows it.
#[must_use]
pub fn schema_sql(schema: &str) -> String {
    SCHEMA_SQL.replace("leasehold", schema)
}
