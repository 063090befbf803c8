//! What a store brings to the suite: handles, and ways to hurt it.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

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

    /// A new way to the service for one worker, over a network of its own that can be troubled:
    /// `None` where there is none (a file), and where clients find their servers by themselves.
    fn link(&self) -> Option<Box<dyn Link>>;

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

/// What a network does to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// It lets everything pass.
    Clear,
    /// It holds everything back, and lets it pass when the weather clears: also requests that were
    /// given up long ago.
    Held,
    /// It swallows everything.
    Swallowed,
    /// It lets requests pass, and loses the answers.
    Mute,
    /// It lets answers arrive later by this much.
    Slow(Duration),
}

/// The way of one worker to the service.
pub trait Link: fmt::Debug + Send + Sync {
    /// [`Bench::worker`] by this way.
    fn worker(&self) -> Command;
    /// How many servers it leads to, each by a wire of its own.
    fn wires(&self) -> usize;
    /// Changes the weather on one wire.
    fn set(&self, wire: usize, weather: Weather);
    /// Resets all connections that are open on one wire.
    fn cut(&self, wire: usize);
}
