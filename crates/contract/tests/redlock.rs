//! The suite on five real Redis servers that vote.

mod links;

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Redlock;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;
use leasehold_testbed::{Redis, RedisQuorum};

const PASSWORD: &str = "open-sesame-4711";

#[derive(Debug)]
struct RedlockBench(RedisQuorum);

impl Bench for RedlockBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(Redlock::new(&self.0.url()).expect("a URL"))
    }

    /// As an administrator with `redis-cli`, on every server.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        let deleted = self.0.iter().map(|redis| redis.cli(&["DEL", key.as_str()]));
        let holders = deleted.filter(|deleted| deleted.trim() == "1").count();
        assert!(holders * 2 > self.0.len(), "a majority held it: {holders}");
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
        let servers: Vec<u16> = self.0.iter().map(Redis::port).collect();
        Some(links::to(&servers, |ports| self.0.url_on(|server, _| ports[server])))
    }

    fn secret(&self) -> Option<&str> {
        Some(PASSWORD)
    }
}

/// All five at once: what becomes of a quorum without one of them is the subject of the store's own
/// tests.
impl Server for RedlockBench {
    fn freeze(&self) -> BoxFuture<'_, ()> {
        async { self.0.iter().for_each(Redis::pause) }.boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, ()> {
        async { self.0.iter().for_each(Redis::resume) }.boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async { self.0.iter().for_each(Redis::kill) }.boxed()
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        async { self.0.iter().for_each(Redis::start_again) }.boxed()
    }
}

async fn bench() -> RedlockBench {
    // What was answered is on the disk: the fence of a quorum needs it.
    let options = Redis::options().password(PASSWORD).database(3).append_only();
    RedlockBench(options.start_quorum(5))
}

leasehold_contract::suite!(redlock, bench);
