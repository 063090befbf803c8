//! The suite on a real Redis: a new server for each case.

mod links;

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Redis;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;

const PASSWORD: &str = "open-sesame-4711";

#[derive(Debug)]
struct RedisBench(leasehold_testbed::Redis);

impl Bench for RedisBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(Redis::new(&self.0.url()).expect("a URL"))
    }

    /// As an administrator with `redis-cli`.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        let deleted = self.0.cli(&["DEL", key.as_str()]);
        assert_eq!(deleted.trim(), "1", "one holder");
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

impl Server for RedisBench {
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

async fn bench() -> RedisBench {
    // Database 3, because 0 would hide a forgotten SELECT.
    RedisBench(leasehold_testbed::Redis::options().password(PASSWORD).database(3).start())
}

leasehold_contract::suite!(redis, bench);
