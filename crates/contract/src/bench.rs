//! What a store brings to the suite: handles, and ways to hurt it.

use std::fmt;
use std::process::Command;
use std::sync::Arc;

use futures::future::BoxFuture;
use leasehold::Store;
use leasehold_core::Key;

/// One fresh, empty lock service, for one case. Dropping it ends the service and what belongs to
/// it.
pub trait Bench: fmt::Debug + Send + Sync {
    /// A new handle to the service, as another process would make one: with a connection of its
    /// own where there are connections. Without IO; called within the runtime of the case.
    fn handle(&self) -> Arc<dyn Store>;

    /// Ends whatever is held on `key` behind leasehold's back, as an administrator does with the
    /// service's own tools.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()>;

    /// How far exclusion reaches.
    fn reach(&self) -> Reach;

    /// A command that runs [`worker::main`](crate::worker::main) on this store: on this very
    /// service if it [reaches](Bench::reach) beyond the process.
    fn worker(&self) -> Command;

    /// The server behind the store, if there is one to stop.
    fn server(&self) -> Option<&dyn Server>;

    /// A password that is part of how the service is reached: it must not be shown anywhere.
    fn secret(&self) -> Option<&str>;
}

/// How far a store's exclusion reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The process, and no further: another process has a service of its own.
    Process,
    /// Other processes too.
    Processes,
}

/// A server that can be stopped without the store's consent.
pub trait Server: fmt::Debug + Send + Sync {
    /// Stops it from answering, with its connections open: `SIGSTOP`.
    fn freeze(&self) -> BoxFuture<'_, ()>;
    /// Lets it go on: `SIGCONT`.
    fn thaw(&self) -> BoxFuture<'_, ()>;
    /// Ends it at once, its connections with it: `SIGKILL`.
    fn kill(&self) -> BoxFuture<'_, ()>;
    /// Starts it again at the same address, with what it kept.
    fn start(&self) -> BoxFuture<'_, ()>;
}
