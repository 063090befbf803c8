//! The suite on two real Redis servers and the three sentinels that watch over them.

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Redis;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;
use leasehold_testbed::RedisSentinel;

const PASSWORD: &str = "open-sesame-4711";

#[derive(Debug)]
struct SentinelBench(RedisSentinel);

impl SentinelBench {
    /// What the suite hurts is the primary; the sentinels then put the other in its place.
    fn primary(&self) -> &leasehold_testbed::Redis {
        &self.0.servers()[self.0.primary()]
    }
}

impl Bench for SentinelBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(Redis::new(&self.0.url()).expect("a URL"))
    }

    /// As an administrator with `redis-cli`.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        let deleted = self.primary().cli(&["DEL", key.as_str()]);
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
        None
    }

    fn secret(&self) -> Option<&str> {
        Some(PASSWORD)
    }
}

/// Both servers at once: what a failover does to holds is the subject of the store's own tests.
impl Server for SentinelBench {
    fn freeze(&self) -> BoxFuture<'_, ()> {
        async { self.0.servers().iter().for_each(leasehold_testbed::Redis::pause) }.boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, ()> {
        async { self.0.servers().iter().for_each(leasehold_testbed::Redis::resume) }.boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async { self.0.servers().iter().for_each(leasehold_testbed::Redis::kill) }.boxed()
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        async { self.0.servers().iter().for_each(leasehold_testbed::Redis::start_again) }.boxed()
    }
}

async fn bench() -> SentinelBench {
    let options = leasehold_testbed::Redis::options().password(PASSWORD).database(3);
    SentinelBench(RedisSentinel::start(&options))
}

leasehold_contract::suite!(redis_sentinel, bench);
