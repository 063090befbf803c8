//! Wake-ups between the processes of one machine: datagrams to the socket of whoever is concerned.
//!
//! They are hints. One that is lost (a full queue, a stopped process, no socket) is made good by
//! the recheck of the waiter.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use leasehold_core::{ClaimId, Fence, Place, SessionId};

use super::peers::Directory;
use crate::stores::mailbox::Mailbox;

/// What somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// A claim was granted.
    Granted(ClaimId, Fence),
    /// A claim's place may have changed.
    Moved(ClaimId),
    /// A session should be renewed ahead of time.
    Disturbed(SessionId),
}

impl News {
    /// Puts it where its waiter looks.
    fn deliver(&self, mailbox: &Mailbox) {
        match self {
            Self::Granted(claim, fence) => mailbox.tell(*claim, Some(Place::Held(*fence))),
            Self::Moved(claim) => mailbox.tell(*claim, None),
            Self::Disturbed(session) => mailbox.disturb(session),
        }
    }
}

/// News and the peer whom it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) peer: String,
    pub(super) news: News,
}

impl Letter {
    /// Whether it tells a claim of its own place.
    pub(super) fn is_about(&self, id: ClaimId) -> bool {
        matches!(self.news, News::Granted(claim, _) | News::Moved(claim) if claim == id)
    }
}

/// Sends what a committed transaction has to tell. `own` is this handle's name.
pub(super) fn send(
    letters: Vec<Letter>,
    own: Option<&str>,
    directory: &Directory,
    mailbox: &Mailbox,
) {
    // One datagram a peer: the kernel queues no more than ten for a receiver
    // (net.unix.max_dgram_qlen).
    let mut others: BTreeMap<String, Vec<News>> = BTreeMap::new();
    for letter in letters {
        if own == Some(letter.peer.as_str()) {
            letter.news.deliver(mailbox);
        } else {
            others.entry(letter.peer).or_default().push(letter.news);
        }
    }
    if others.is_empty() {
        return;
    }
    let Ok(socket) = UnixDatagram::unbound() else {
        return;
    };
    if socket.set_nonblocking(true).is_err() {
        return;
    }
    for (peer, news) in others {
        // Refused when nobody listens there: then nobody waits, or polls.
        let _ = socket.send_to(&encode(&news), directory.socket(&peer));
    }
}

/// The longest datagram. What does not fit becomes "look at everything again".
const LONGEST: usize = 32 * 1024;

const GRANTED: u8 = 1;
const MOVED: u8 = 2;
const DISTURBED: u8 = 3;
const EVERYTHING: u8 = 4;

fn encode(news: &[News]) -> Vec<u8> {
    let mut message = Vec::new();
    for one in news {
        match one {
            News::Granted(claim, fence) => {
                message.push(GRANTED);
                message.extend_from_slice(claim.as_bytes());
                message.extend_from_slice(&fence.get().to_le_bytes());
            }
            News::Moved(claim) => {
                message.push(MOVED);
                message.extend_from_slice(claim.as_bytes());
            }
            News::Disturbed(session) => {
                let name = session.as_str().as_bytes();
                let Ok(length) = u8::try_from(name.len()) else {
                    return vec![EVERYTHING];
                };
                message.extend_from_slice(&[DISTURBED, length]);
                message.extend_from_slice(name);
            }
        }
        if message.len() > LONGEST {
            return vec![EVERYTHING];
        }
    }
    message
}

/// Tells the mailbox what a message says. One that cannot be read (of a later version, say) still
/// means that something happened.
fn read(message: &[u8], mailbox: &Mailbox) {
    let mut rest = message;
    while !rest.is_empty() {
        let Some((news, after)) = decode(rest) else {
            return mailbox.tell_all();
        };
        news.deliver(mailbox);
        rest = after;
    }
}

fn decode(message: &[u8]) -> Option<(News, &[u8])> {
    let (kind, rest) = message.split_first()?;
    match *kind {
        GRANTED => {
            let (claim, rest) = rest.split_first_chunk::<16>()?;
            let (fence, rest) = rest.split_first_chunk::<8>()?;
            let fence = Fence::new(u64::from_le_bytes(*fence));
            Some((News::Granted(ClaimId::from_random(*claim), fence), rest))
        }
        MOVED => {
            let (claim, rest) = rest.split_first_chunk::<16>()?;
            Some((News::Moved(ClaimId::from_random(*claim)), rest))
        }
        DISTURBED => {
            let (length, rest) = rest.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*length))?;
            Some((News::Disturbed(SessionId::new(std::str::from_utf8(name).ok()?)), rest))
        }
        _ => None,
    }
}

/// A socket and the thread that reads it. A thread, not a task: a runtime may end before the
/// store does.
#[derive(Debug)]
pub(super) struct Listener {
    address: PathBuf,
    ended: Arc<AtomicBool>,
}

impl Listener {
    /// Binds the socket and begins to read it.
    pub(super) fn start(address: PathBuf, mode: u32, mailbox: &Arc<Mailbox>) -> io::Result<Self> {
        let socket = UnixDatagram::bind(&address)?;
        std::fs::set_permissions(&address, Permissions::from_mode(mode))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (flag, mailbox) = (Arc::clone(&ended), Arc::clone(mailbox));
        thread::Builder::new()
            .name("leasehold-wake".into())
            .stack_size(128 * 1024)
            .spawn(move || listen(&socket, &flag, &mailbox))?;
        Ok(Self { address, ended })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // The thread looks at the flag after each message. If the queue is full it has one.
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.set_nonblocking(true);
            let _ = socket.send_to(&[], &self.address);
        }
    }
}

fn listen(socket: &UnixDatagram, ended: &AtomicBool, mailbox: &Mailbox) {
    let mut buffer = vec![0; LONGEST + 512];
    loop {
        let received = socket.recv(&mut buffer);
        if ended.load(Ordering::Acquire) {
            return;
        }
        match received {
            Ok(length) => read(&buffer[..length], mailbox),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "wake-ups cannot be received any more; waiters poll");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(byte: u8) -> ClaimId {
        ClaimId::from_random([byte; 16])
    }

    fn decoded(mut message: &[u8]) -> Option<Vec<News>> {
        let mut all = Vec::new();
        while !message.is_empty() {
            let (news, rest) = decode(message)?;
            all.push(news);
            message = rest;
        }
        Some(all)
    }

    #[test]
    fn messages_round_trip_and_the_cut_ones_mean_look_again() {
        let news = [
            News::Granted(claim(1), Fence::new(u64::MAX)),
            News::Moved(claim(2)),
            News::Disturbed(SessionId::new("séance")),
            News::Disturbed(SessionId::new("")),
        ];
        let message = encode(&news);
        assert_eq!(decoded(&message).unwrap(), news);
        assert_eq!(decoded(&message[..message.len() - 1]), None);
        assert_eq!(decoded(&[EVERYTHING]), None);
        assert_eq!(decoded(&[200, 1, 2]), None);
        let crowd = vec![News::Moved(claim(3)); 10_000];
        assert_eq!(encode(&crowd), [EVERYTHING]);
    }

    #[tokio::test]
    async fn news_reach_the_mailbox_through_the_socket() {
        let root = tempfile::tempdir().unwrap();
        let mailbox = Arc::new(Mailbox::default());
        mailbox.expect(claim(1));
        mailbox.expect(claim(2));
        let address = root.path().join("s");
        let listener = Listener::start(address.clone(), 0o600, &mailbox).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let granted = News::Granted(claim(1), Fence::new(7));
        sender.send_to(&encode(&[granted]), &address).unwrap();
        assert_eq!(mailbox.told(claim(1)).await, Some(Place::Held(Fence::new(7))));
        sender.send_to(&[EVERYTHING], &address).unwrap();
        assert_eq!(mailbox.told(claim(2)).await, None);
        drop(listener);
        // The thread drops the socket as it ends; then nobody is there to receive.
        while sender.send_to(&[EVERYTHING], &address).is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
