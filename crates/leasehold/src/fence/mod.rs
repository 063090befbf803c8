//! Refusing a stale writer, where it matters: at what the lock protects.
//!
//! A process that is paused for longer than its lease wakes up, knows nothing of it, and writes.
//! No lock can prevent that; what is written to can. Every grant has a [`Fence`](crate::Fence), and
//! there is one rule:
//!
//! *A resource keeps the greatest fence that it has seen and refuses a smaller one. An equal one is
//! the same holder, which writes again. Comparing, taking note and writing are one atomic step.*
//!
//! | what is written | how it refuses | in one step with the write |
//! |---|---|---|
//! | PostgreSQL, `SQLite` | [`sql`]: a function, or a trigger | the transaction |
//! | Redis | [`redis`](mod@redis): a script around the command | the script |
//! | etcd | `etcd::hold`: the transaction compares the hold itself | the transaction |
//! | ZooKeeper | `zookeeper::hold_node`: the transaction checks the hold's node | the transaction |
//! | a service over HTTP | `http`: a header and a tower layer | no: see there |
//! | a file | [`file`](mod@file): a guard beside it | a lock of the kernel, in that order |
//! | anything else | a [`Ledger`], or `leasehold fence check` | no: as for HTTP |
//!
//! The rule is [`Fence::check`](crate::Fence::check), for resources that keep the number themselves.
//! A refusal is a [`StaleFence`] everywhere; as the library's error it has the kind
//! [`ErrorKind::Stale`](crate::ErrorKind::Stale), and
//! [`Error::stale_fence`](crate::Error::stale_fence) finds it in there.
//!
//! What no fence protects: writers that do not send theirs, fences of *different* keys or stores on
//! one resource (they are not comparable: one resource, one lock), and a resource that forgets the
//! greatest it has seen, as after it was restored from a backup.

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod file;
#[cfg(feature = "tower")]
pub mod http;
mod ledger;
pub mod redis;
pub mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

pub use leasehold_core::StaleFence;
pub use ledger::{Ledger, MemoryLedger};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLedger;
