//! The suite on a real ZooKeeper: a new server for each case.

mod links;

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::ZooKeeper;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;

const PASSWORD: &str = "open-sesame-4711";
const CHROOT: &str = "/apps/locks";

#[derive(Debug)]
struct ZooKeeperBench(leasehold_testbed::ZooKeeper);

impl ZooKeeperBench {
    fn url(&self) -> String {
        url(&self.0.hosts())
    }
}

fn url(hosts: &str) -> String {
    format!("zookeeper://suite:{PASSWORD}@{hosts}{CHROOT}")
}

impl Bench for ZooKeeperBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(ZooKeeper::new(&self.url()).expect("a URL"))
    }

    /// As an administrator with `zkCli.sh`.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        let log_in = format!("addauth digest suite:{PASSWORD}");
        let line = format!("{CHROOT}/{key}");
        let listed = self.0.cli(&[&log_in, &format!("ls {line}")]);
        let names = listed
            .lines()
            .find_map(|line| line.strip_prefix('[')?.strip_suffix(']'))
            .filter(|names| names.contains("-lock-"))
            .unwrap_or_else(|| panic!("a list of nodes: {listed}"));
        let sequence = |name: &&str| name[name.len() - 10..].to_owned();
        let head = names.split(", ").min_by_key(sequence).expect("one holder");
        let delete = format!("delete {line}/{head}");
        let _nothing = self.0.cli(&[&log_in, &delete]);
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
        Some(links::to(&[self.0.port(0)], |ports| url(&format!("127.0.0.1:{}", ports[0]))))
    }

    fn secret(&self) -> Option<&str> {
        Some(PASSWORD)
    }
}

impl Server for ZooKeeperBench {
    fn freeze(&self) -> BoxFuture<'_, ()> {
        async { self.0.pause(0) }.boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, ()> {
        async { self.0.resume(0) }.boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async { self.0.kill(0) }.boxed()
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        async { self.0.start_again(0) }.boxed()
    }
}

async fn bench() -> ZooKeeperBench {
    // Short ticks, because a session has to span several of them.
    let tick = std::time::Duration::from_millis(100);
    ZooKeeperBench(leasehold_testbed::ZooKeeper::options().tick(tick).start())
}

leasehold_contract::suite!(zookeeper, bench);
