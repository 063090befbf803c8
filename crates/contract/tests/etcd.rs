//! The suite on a real etcd: a new server for each case.

mod links;

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;

const PASSWORD: &str = "open-sesame-4711";

#[derive(Debug)]
struct EtcdBench(leasehold_testbed::Etcd);

impl Bench for EtcdBench {
    fn handle(&self) -> Arc<dyn Store> {
        leasehold::stores::connect(&self.0.url()).expect("a URL")
    }

    /// As an administrator with `etcdctl`: the oldest key below the lock's name holds.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        let below = format!("{key}/");
        let oldest = ["--sort-by=CREATE", "--order=ASCEND", "--limit=1", "--keys-only"];
        let mut list = vec!["get", "--prefix", &below];
        list.extend(oldest);
        let holder = self.0.ctl_says(&list);
        let deleted = self.0.ctl_says(&["del", holder.trim()]);
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
        Some(links::to(self.0.ports(), |ports| self.0.url_on(ports)))
    }

    fn secret(&self) -> Option<&str> {
        Some(PASSWORD)
    }
}

impl Server for EtcdBench {
    fn freeze(&self) -> BoxFuture<'_, ()> {
        async { self.0.members()[0].pause() }.boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, ()> {
        async { self.0.members()[0].resume() }.boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async { self.0.members()[0].kill() }.boxed()
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        async { self.0.members()[0].start_again() }.boxed()
    }
}

async fn bench() -> EtcdBench {
    EtcdBench(leasehold_testbed::Etcd::options().password(PASSWORD).start())
}

leasehold_contract::suite!(etcd, bench);
