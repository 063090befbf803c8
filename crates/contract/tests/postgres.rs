//! The suite on a real PostgreSQL: a new server for each case.

mod links;

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Postgres;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;
use leasehold_testbed::postgres::PASSWORD;

#[derive(Debug)]
struct PostgresBench(leasehold_testbed::Postgres);

impl Bench for PostgresBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(Postgres::new(&self.0.url()).expect("a URL"))
    }

    /// As an administrator with `psql`.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        let key = key.as_str().replace('\'', "''");
        let ended = self.0.psql(&format!(
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
        worker.arg(self.0.url());
        worker
    }

    fn server(&self) -> Option<&dyn Server> {
        Some(self)
    }

    fn link(&self) -> Option<Box<dyn Link>> {
        Some(links::to(&[self.0.port()], |ports| self.0.url_on(ports[0])))
    }

    fn secret(&self) -> Option<&str> {
        Some(PASSWORD)
    }
}

impl Server for PostgresBench {
    fn freeze(&self) -> BoxFuture<'_, ()> {
        async { self.0.pause() }.boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, ()> {
        async { self.0.resume() }.boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async { self.0.kill() }.boxed()
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        async { self.0.start_again() }.boxed()
    }
}

async fn bench() -> PostgresBench {
    PostgresBench(leasehold_testbed::Postgres::start())
}

leasehold_contract::suite!(postgres, bench);
