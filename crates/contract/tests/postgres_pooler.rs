//! The suite on a real PostgreSQL behind PgBouncer in transaction mode, where nobody can be woken: a
//! new pair of servers for each case.

mod links;

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Postgres;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;
use leasehold_testbed::PgBouncer;
use leasehold_testbed::postgres::PASSWORD;

#[derive(Debug)]
struct PoolerBench {
    // Ends first.
    pooler: PgBouncer,
    server: leasehold_testbed::Postgres,
}

impl PoolerBench {
    fn url(&self) -> String {
        self.server.url_on(self.pooler.port())
    }
}

impl Bench for PoolerBench {
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
        Some(links::to(&[self.pooler.port()], |ports| self.server.url_on(ports[0])))
    }

    fn secret(&self) -> Option<&str> {
        Some(PASSWORD)
    }
}

impl Server for PoolerBench {
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

async fn bench() -> PoolerBench {
    let server = leasehold_testbed::Postgres::start();
    PoolerBench { pooler: PgBouncer::before(&server, "transaction"), server }
}

leasehold_contract::suite!(postgres_pooler, bench);
