//! The suite on a real Redis Cluster of three primaries and their replicas.

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Redis;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;
use leasehold_testbed::RedisCluster;

const PASSWORD: &str = "open-sesame-4711";

#[derive(Debug)]
struct ClusterBench(RedisCluster);

impl Bench for ClusterBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(Redis::new(&self.0.url()).expect("a URL"))
    }

    /// As an administrator with `redis-cli`.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        let node = &self.0.nodes()[self.0.serving(key.as_str(), 0)];
        assert_eq!(node.cli(&["DEL", key.as_str()]).trim(), "1", "one holder");
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

/// All nodes at once: what a failover does to holds is the subject of the store's own tests.
impl Server for ClusterBench {
    fn freeze(&self) -> BoxFuture<'_, ()> {
        async { self.0.nodes().iter().for_each(leasehold_testbed::Redis::pause) }.boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, ()> {
        async {
            self.0.nodes().iter().for_each(leasehold_testbed::Redis::resume);
            self.0.until_well();
        }
        .boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async { self.0.nodes().iter().for_each(leasehold_testbed::Redis::kill) }.boxed()
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        async {
            self.0.nodes().iter().for_each(leasehold_testbed::Redis::start_again);
            self.0.until_well();
        }
        .boxed()
    }
}

async fn bench() -> ClusterBench {
    ClusterBench(RedisCluster::start(&leasehold_testbed::Redis::options().password(PASSWORD)))
}

leasehold_contract::suite!(redis_cluster, bench);
