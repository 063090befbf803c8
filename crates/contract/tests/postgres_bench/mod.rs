//! What the suites on PostgreSQL are run on, with and without a pooler.

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Postgres;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;
use leasehold_testbed::PgBouncer;
use leasehold_testbed::postgres::PASSWORD;

use crate::links;

/// A server of its own, and the pooler before it if there is one.
#[derive(Debug)]
pub(crate) struct PostgresBench {
    // Ends first.
    pooler: Option<PgBouncer>,
    server: leasehold_testbed::Postgres,
}

impl PostgresBench {
    pub(crate) fn start(pool_mode: Option<&str>) -> Self {
        let server = leasehold_testbed::Postgres::start();
        Self { pooler: pool_mode.map(|mode| PgBouncer::before(&server, mode)), server }
    }

    fn port(&self) -> u16 {
        self.pooler.as_ref().map_or_else(|| self.server.port(), PgBouncer::port)
    }

    fn url(&self) -> String {
        self.server.url_on(self.port())
    }
}

impl Bench for PostgresBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(Postgres::new(&self.url()).expect("a URL"))
    }

    /// As an administrator with `psql`.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        let key = key.as_str().replace('\'', "''");
        let ended = self.server.psql(&format!(
            "WITH ended AS (DELETE FROM leasehold.claims WHERE key = '{key}' \
             AND fence IS NOT NULL RETURNING 1) SELECT count(*) FROM ended"
        ));
        assert_eq!(ended, "1", "one holder");
        futures::future::ready(()).boxed()
    }

    fn reach(&self) -> Reach {
        Reach::Processes
    }

    fn worker(&self) -> Command {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_contract-worker"));
        worker.arg(self.url());
        worker
    }

    fn server(&self) -> Option<&dyn Server> {
        Some(self)
    }

    fn link(&self) -> Option<Box<dyn Link>> {
        Some(links::to(&[self.port()], |ports| self.server.url_on(ports[0])))
    }

    fn secret(&self) -> Option<&str> {
        Some(PASSWORD)
    }
}

impl Server for PostgresBench {
    fn freeze(&self) -> BoxFuture<'_, ()> {
        async { self.server.pause() }.boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, ()> {
        async { self.server.resume() }.boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async { self.server.kill() }.boxed()
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        async { self.server.start_again() }.boxed()
    }
}
