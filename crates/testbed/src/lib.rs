//! Real lock services for the tests of leasehold: started on free ports, paused, killed, cut off,
//! and gone when the test is gone, even if that was killed by `SIGKILL`.
//!
//! - [`Redis`]: a Redis server with whatever a test needs: TLS, passwords, a Unix socket.
//! - [`RedisQuorum`]: several that vote.
//! - [`RedisSentinel`]: two of them and the sentinels that swap their roles.
//! - [`RedisCluster`]: six of them, which share the keys among three primaries.
//! - [`Postgres`]: a PostgreSQL server, and [`PgBouncer`] before it.
//! - [`ZooKeeper`]: one ZooKeeper server or three, with TLS.
//! - [`Etcd`]: an etcd cluster of one or more members.
//! - [`Proxy`]: a TCP proxy that cuts, delays and swallows what passes through it.
//! - [`Worker`]: the test itself, run again as another process that can be killed.
//! - [`Peer`]: a process that locks by a library of others.
//! - [`Server`]: what all servers have in common. A new kind of server is a [`Spec`]: a command,
//!   and how to tell that it is ready.
//!
//! Everything here panics with an explanation when it fails, as suits a test: it never skips.
//! The constructors block for the milliseconds that a server takes to start, so they serve
//! asynchronous tests and others alike.

#![expect(
    clippy::missing_panics_doc,
    reason = "everything here panics when it fails: said once, above"
)]

pub mod certificates;
mod cluster;
mod etcd;
mod missing;
pub mod peer;
pub mod pgbouncer;
mod port;
pub mod postgres;
mod process;
pub mod proxy;
mod redis;
mod sentinel;
mod server;
pub mod worker;
mod zookeeper;

pub use certificates::Certificates;
pub use cluster::RedisCluster;
pub use etcd::{Etcd, EtcdOptions};
pub use missing::require;
pub use peer::Peer;
pub use pgbouncer::PgBouncer;
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use process::{Output, Process, is_alive};
pub use proxy::Proxy;
pub use redis::{Redis, RedisOptions, RedisQuorum};
pub use sentinel::RedisSentinel;
pub use server::{Memory, ReadyProbe, Server, Spec};
pub use worker::Worker;
pub use zookeeper::{ZooKeeper, ZooKeeperOptions};
