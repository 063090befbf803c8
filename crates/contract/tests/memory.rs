//! The suite on the store in memory.

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Memory;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;

#[derive(Debug)]
struct MemoryBench(Memory);

impl Bench for MemoryBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    /// Memory has no back door: an operator goes through the store.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        async move {
            for holder in self.0.inspect(key).await.expect("answers").holders {
                let claim = holder.claim.expect("a claim of ours");
                self.0.revoke(key, &claim).await.expect("revokes");
            }
        }
        .boxed()
    }

    fn reach(&self) -> Reach {
        Reach::Process
    }

    fn worker(&self) -> Command {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_contract-worker"));
        worker.arg("memory:");
        worker
    }

    fn server(&self) -> Option<&dyn Server> {
        None
    }

    fn link(&self) -> Option<Box<dyn Link>> {
        None
    }

    fn secret(&self) -> Option<&str> {
        None
    }
}

async fn bench() -> MemoryBench {
    MemoryBench(Memory::new())
}

leasehold_contract::suite!(memory, bench);
