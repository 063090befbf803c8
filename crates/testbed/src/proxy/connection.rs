//! One connection through the proxy.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Direction, Mode, Shared, Switch};

/// How many chunks may be under way each way before the sender has to wait.
const CHUNKS: usize = 1024;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides said that they were done.
    Closed,
    /// The proxy broke it, or one side broke it and the other must feel that.
    Reset,
    /// An answer was dropped.
    Dropped,
}

struct Connection {
    shared: Arc<Shared>,
    switch: watch::Receiver<Switch>,
    /// Something was swallowed.
    holed: AtomicBool,
    /// The next answer is to be lost.
    doomed: AtomicBool,
}

pub(super) async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let switch = shared.switch.subscribe();
    let (holed, doomed) = (AtomicBool::new(false), AtomicBool::new(false));
    let connection = Connection { shared: shared.clone(), switch, holed, doomed };
    shared.open.fetch_add(1, SeqCst);
    let end = connection.run(&mut client).await;
    shared.open.fetch_sub(1, SeqCst);
    match end {
        End::Closed => {}
        End::Reset => {
            // Turns the close that follows into a reset.
            let _ = client.set_zero_linger();
        }
        End::Dropped => {
            drop(client);
            shared.dropped_replies.send_modify(|count| *count += 1);
        }
    }
}

impl Connection {
    async fn run(&self, client: &mut TcpStream) -> End {
        let mode = self.switch.borrow().mode;
        if mode == Mode::Refuse {
            return End::Reset;
        }
        let server_port = self.shared.server_port;
        let mut server = tokio::select! {
            server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)) => match server {
                Ok(server) => server,
                Err(_) => return End::Reset,
            },
            () = self.broken() => return End::Reset,
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let end = tokio::select! {
            end = self.relay(client, &mut server) => end,
            () = self.broken() => End::Reset,
        };
        match end {
            End::Closed => {}
            End::Reset => {
                let _ = server.set_zero_linger();
            }
            // No reset here, which might overtake requests that the server has yet to read.
            End::Dropped => {
                tokio::spawn(drain(server));
            }
        }
        end
    }

    /// Resolves when this connection is to be reset.
    async fn broken(&self) {
        let mut switch = self.switch.clone();
        let cuts = switch.borrow_and_update().cuts;
        while switch.changed().await.is_ok() {
            let now = *switch.borrow_and_update();
            if now.cuts != cuts || (now.mode != Mode::BlackHole && self.holed.load(SeqCst)) {
                return;
            }
        }
    }

    async fn relay(&self, client: &mut TcpStream, server: &mut TcpStream) -> End {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let requests = self.pump(Direction::Requests, from_client, to_server);
        let replies = self.pump(Direction::Replies, from_server, to_client);
        match tokio::try_join!(requests, replies) {
            Ok(_) => End::Closed,
            Err(end) => end,
        }
    }

    /// Reads and writes at once, so that chunks that are delayed do not delay each other.
    async fn pump(
        &self,
        direction: Direction,
        from: ReadHalf<'_>,
        to: WriteHalf<'_>,
    ) -> Result<(), End> {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let (read, write) =
            (self.read(direction, from, sender), self.write(direction, to, receiver));
        tokio::try_join!(read, write).map(|_| ())
    }

    async fn read(
        &self,
        direction: Direction,
        mut from: ReadHalf<'_>,
        chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    ) -> Result<(), End> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await.map_err(|_| End::Reset)?;
            if read == 0 {
                return Ok(());
            }
            let due = Instant::now() + self.switch.borrow().delay[direction as usize];
            if chunks.send((due, buffer[..read].to_vec())).await.is_err() {
                return Err(End::Reset);
            }
        }
    }

    async fn write(
        &self,
        direction: Direction,
        mut to: WriteHalf<'_>,
        mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    ) -> Result<(), End> {
        let mut switch = self.switch.clone();
        while let Some((due, chunk)) = chunks.recv().await {
            sleep_until(due).await;
            let held = switch.wait_for(|switch| switch.mode != Mode::Hold).await;
            let mode = held.map_err(|_| End::Reset)?.mode;
            if mode == Mode::BlackHole {
                self.holed.store(true, SeqCst);
                continue;
            }
            // `broken` will see it too, but what is ready to be sent must not be faster.
            if self.holed.load(SeqCst) {
                return Err(End::Reset);
            }
            match direction {
                Direction::Requests if self.shared.takes_doomed(&chunk) => {
                    self.doomed.store(true, SeqCst);
                }
                Direction::Replies if mode == Mode::DropReplies || self.doomed.load(SeqCst) => {
                    return Err(End::Dropped);
                }
                _ => {}
            }
            to.write_all(&chunk).await.map_err(|_| End::Reset)?;
            let bytes = u64::try_from(chunk.len()).expect("a chunk is small");
            self.shared.bytes[direction as usize].fetch_add(bytes, SeqCst);
        }
        let held = switch.wait_for(|switch| !holds_back(switch.mode)).await;
        held.map_err(|_| End::Reset)?;
        to.shutdown().await.map_err(|_| End::Reset)
    }
}

/// Whether the end of a stream is kept from the other side, as its bytes are.
fn holds_back(mode: Mode) -> bool {
    matches!(mode, Mode::Hold | Mode::BlackHole)
}

/// Tells the server that no more requests come, and lets it finish those that it has.
async fn drain(mut server: TcpStream) -> io::Result<()> {
    server.shutdown().await?;
    tokio::io::copy(&mut server, &mut tokio::io::sink()).await.map(|_| ())
}
