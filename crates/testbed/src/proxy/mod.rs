//! A TCP proxy that does to connections what networks do.
//!
//! ```no_run
//! use leasehold_testbed::{Proxy, Redis, proxy::Mode};
//!
//! let redis = Redis::start();
//! let proxy = Proxy::before(redis.port());
//! let url = redis.url_on(proxy.port());
//! // … connect to `url`, and then:
//! proxy.set(Mode::BlackHole);
//! proxy.cut();
//! ```

mod connection;

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// What the proxy does with what passes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It forwards everything.
    Forward,
    /// It holds everything back, and forwards it when the mode changes to [`Mode::Forward`]:
    /// a network that is down for a while, as TCP sees it.
    Hold,
    /// It swallows everything, in existing connections and in new ones, which it accepts. A
    /// connection that lost bytes this way is reset when the mode changes, because what is left
    /// of its stream is nonsense.
    BlackHole,
    /// It resets new connections as soon as they are made. Existing ones go on: see
    /// [`Proxy::cut`].
    Refuse,
    /// It forwards requests and swallows the answers; a connection is closed when its first
    /// answer has been swallowed. The server has carried the request out by then.
    DropReplies,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Replies,
}

/// What has passed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Connections that clients made.
    pub connections: u64,
    /// Those of them that are still open.
    pub open: u64,
    /// Bytes that reached the server.
    pub request_bytes: u64,
    /// Bytes that reached clients.
    pub reply_bytes: u64,
    /// Connections that were closed in place of an answer.
    pub dropped_replies: u64,
}

/// What all connections watch.
#[derive(Debug, Clone, Copy)]
struct Switch {
    mode: Mode,
    /// How late each chunk arrives, by direction.
    delay: [Duration; 2],
    /// Each cut has a number, so that no connection misses one.
    cuts: u64,
}

#[derive(Debug)]
struct Shared {
    server_port: u16,
    switch: watch::Sender<Switch>,
    /// The request whose answer is to be lost, once.
    doomed: std::sync::Mutex<Option<Vec<u8>>>,
    connections: AtomicU64,
    open: AtomicU64,
    bytes: [AtomicU64; 2],
    dropped_replies: watch::Sender<u64>,
}

/// A running proxy. It works on a thread of its own, in tests with and without a runtime, and
/// ends with this value; then its connections are reset.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Starts one on a free port of 127.0.0.1, before the server on `server_port`.
    #[must_use]
    pub fn before(server_port: u16) -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("no free port");
        listener.set_nonblocking(true).expect("a listener can be made non-blocking");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared {
            server_port,
            switch: watch::Sender::new(Switch {
                mode: Mode::Forward,
                delay: [Duration::ZERO; 2],
                cuts: 0,
            }),
            doomed: std::sync::Mutex::new(None),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            bytes: [AtomicU64::new(0), AtomicU64::new(0)],
            dropped_replies: watch::Sender::new(0),
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .expect("cannot start a thread");
        runtime.spawn(accept(listener, shared.clone()));
        Self { port, shared, runtime: Some(runtime) }
    }

    /// The port to connect to, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what happens to everything from now on, in existing connections too.
    pub fn set(&self, mode: Mode) {
        self.shared.switch.send_modify(|switch| switch.mode = mode);
    }

    /// Delivers everything later by this much, one way. Chunks overlap in their delay, as on a
    /// long wire.
    pub fn delay(&self, direction: Direction, by: Duration) {
        self.shared.switch.send_modify(|switch| switch.delay[direction as usize] = by);
    }

    /// Resets all connections that are open now.
    pub fn cut(&self) {
        self.shared.switch.send_modify(|switch| switch.cuts += 1);
    }

    /// Loses the answer to the next request that contains `request`, on whichever connection it
    /// comes: the server gets it and carries it out, and the connection is closed in place of
    /// the answer. Once; the other connections notice nothing.
    ///
    /// The request must arrive in one piece, as those of a few hundred bytes do.
    pub fn drop_reply_to(&self, request: &[u8]) {
        let before = self.shared.doomed().replace(request.to_owned());
        assert!(before.is_none(), "an earlier drop_reply_to still waits for its request");
    }

    /// Waits until as many answers have been dropped in all, and blocks until then.
    pub async fn dropped(&self, replies: u64) {
        let mut dropped = self.shared.dropped_replies.subscribe();
        let wait = dropped.wait_for(|count| *count >= replies);
        let waited = tokio::time::timeout(Duration::from_mins(1), wait).await;
        waited.expect("no reply was dropped for a minute").expect("the proxy runs");
    }

    /// What has passed so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Shared { connections, open, bytes, dropped_replies, .. } = &*self.shared;
        Counts {
            connections: connections.load(SeqCst),
            open: open.load(SeqCst),
            request_bytes: bytes[Direction::Requests as usize].load(SeqCst),
            reply_bytes: bytes[Direction::Replies as usize].load(SeqCst),
            dropped_replies: *dropped_replies.borrow(),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for its thread is not allowed within an asynchronous test.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn doomed(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.doomed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether this is the request whose answer is to be lost; asks once.
    fn takes_doomed(&self, request: &[u8]) -> bool {
        let mut doomed = self.doomed();
        let found = doomed.as_ref().is_some_and(|part| {
            part.is_empty() || request.windows(part.len()).any(|window| window == part)
        });
        if found {
            *doomed = None;
        }
        found
    }
}

async fn accept(listener: StdListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
    loop {
        // Fails when the peer is gone before it was accepted, or when files run out: go on.
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, SeqCst);
        tokio::spawn(connection::serve(client, shared.clone()));
    }
}
