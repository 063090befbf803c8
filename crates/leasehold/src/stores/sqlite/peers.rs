//! Who is alive: each store handle with a session holds the kernel's lock on a file of its own, in
//! a directory beside the database. The kernel drops the lock when the process ends, however it
//! ends, and everyone can ask for it.
//!
//! A file's name is drawn at random and never used again, so a file that is not locked belongs to
//! a handle that is gone for ever. A file that is *missing* proves nothing: somebody may have
//! cleaned up the directory of living processes. Whoever removes the file of a dead process has
//! ended its sessions in the database before.
//!
//! `flock(2)` belongs to the open file description: a child that was forked without `exec` shares
//! it, and keeps its dead parent's holds until their TTL ends. Descriptors are close-on-exec.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, unlinkat};
use rustix::io::Errno;

use super::place::Place;
use super::trouble::Trouble;
use super::wake::Listener;
use crate::error::ErrorKind;
use crate::random;
use crate::stores::mailbox::Mailbox;

const LOCK: &str = ".lock";
const SOCKET: &str = ".wake";

/// How many files one sweep looks at, so that opening stays quick in a crowd.
const SWEEP: usize = 256;

/// `sun_path` has 108 bytes on Linux and 104 elsewhere, with the NUL.
const LONGEST_ADDRESS: usize = 103;

/// The directory of the peers' files.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    handle: OwnedFd,
    /// The mode of the files in it: that of the database, so that who may use one may use both.
    mode: u32,
}

/// What is known of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// The kernel says that its process ended, or closed its handle.
    Dead,
    /// It lives, or nothing is known.
    Alive,
}

impl Directory {
    /// Opens the directory that belongs to the database, and makes it if it is missing.
    pub(super) fn open(database: &Place) -> Result<Arc<Self>, Trouble> {
        let mut name = database.path.clone().into_os_string();
        name.push("-peers");
        let path = PathBuf::from(name);
        let mode = database.mode & 0o666;
        match std::fs::create_dir(&path) {
            // Who may read a file may search the directory. The umask must not take that away.
            Ok(()) => std::fs::set_permissions(
                &path,
                Permissions::from_mode(0o700 | mode | (mode & 0o444) >> 2),
            ),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| Trouble::io("make the directory", &path, error))?;
        let handle = rustix::fs::open(
            &path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| Trouble::io("open the directory", &path, error.into()))?;
        Ok(Arc::new(Self { path, handle, mode }))
    }

    /// Asks whether a peer lives.
    pub(super) fn life(&self, peer: &str) -> Life {
        match self.open_lock(peer).map(|file| flock(&file, FlockOperation::NonBlockingLockShared)) {
            Ok(Ok(())) => Life::Dead,
            _ => Life::Alive,
        }
    }

    /// Blocks until a peer ends. `false` if that cannot be waited for.
    pub(super) fn wait_for_end(&self, peer: &str) -> bool {
        let Ok(file) = self.open_lock(peer) else {
            return false;
        };
        loop {
            match flock(&file, FlockOperation::LockShared) {
                Err(Errno::INTR) => {}
                ended => return ended.is_ok(),
            }
        }
    }

    fn open_lock(&self, peer: &str) -> Result<OwnedFd, Errno> {
        // Never waits, whatever somebody put there under the name.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        openat(&self.handle, format!("{peer}{LOCK}"), flags, Mode::empty())
    }

    /// The peers whose files are left although they are gone. The files go when the result is
    /// dropped by [`Dead::remove`]; until then nobody else finds them.
    pub(super) fn dead(&self) -> Vec<Dead> {
        let Ok(entries) = std::fs::read_dir(&self.path) else {
            return Vec::new();
        };
        entries
            .flatten()
            .take(SWEEP)
            .filter_map(|entry| {
                let name = entry.file_name();
                let peer = name.to_str()?.strip_suffix(LOCK)?;
                let lock = self.open_lock(peer).ok()?;
                flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
                Some(Dead { peer: peer.to_owned(), _lock: lock })
            })
            .collect()
    }

    /// The address of a peer's socket, by way of the open directory where the path is too long.
    pub(super) fn socket(&self, peer: &str) -> PathBuf {
        let direct = self.path.join(format!("{peer}{SOCKET}"));
        if direct.as_os_str().len() <= LONGEST_ADDRESS {
            return direct;
        }
        Path::new("/proc/self/fd")
            .join(self.handle.as_raw_fd().to_string())
            .join(format!("{peer}{SOCKET}"))
    }

    fn remove(&self, peer: &str) {
        for suffix in [SOCKET, LOCK] {
            // What is left is swept by a later opener.
            let _ = unlinkat(&self.handle, format!("{peer}{suffix}"), AtFlags::empty());
        }
    }
}

/// A peer that is gone, and whose file is still there.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) peer: String,
    _lock: OwnedFd,
}

impl Dead {
    /// Removes its files, after its sessions were ended.
    pub(super) fn remove(self, directory: &Directory) {
        directory.remove(&self.peer);
    }
}

/// This handle as the others see it: alive while this value is.
#[derive(Debug)]
pub(super) struct Peer {
    name: String,
    directory: Arc<Directory>,
    _lock: OwnedFd,
    listener: Option<Listener>,
}

impl Peer {
    /// Begins to be seen alive.
    pub(super) fn new(directory: &Arc<Directory>) -> Result<Self, Trouble> {
        let failed = |error: Errno| Trouble::io("make a file in", &directory.path, error.into());
        // A sweep may look at the file between its making and its locking, and take it for
        // a leftover; then another is made. Not twice in a row, by any chance worth counting.
        for _ in 0..100 {
            let name = draw_name()?;
            let file = format!("{name}{LOCK}");
            let lock = openat(
                &directory.handle,
                &file,
                OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC,
                Mode::from_raw_mode(directory.mode),
            )
            .map_err(failed)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if fstat(&lock).map_err(failed)?.st_nlink > 0 => {
                    let directory = Arc::clone(directory);
                    return Ok(Self { name, directory, _lock: lock, listener: None });
                }
                Ok(()) | Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Trouble::new(
            ErrorKind::Unavailable,
            format!("files in {} are locked as soon as they are made", directory.path.display()),
        ))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Begins to receive wake-ups, unless it does already. Without them waiters poll.
    pub(super) fn listen(&mut self, mailbox: &Arc<Mailbox>) -> io::Result<()> {
        if self.listener.is_none() {
            let address = self.directory.socket(&self.name);
            self.listener = Some(Listener::start(address, self.directory.mode, mailbox)?);
            // Nobody could be told until now. Waiters bind before they are seen, but a hold may
            // have been revoked already.
            mailbox.disturb_all();
        }
        Ok(())
    }

    pub(super) fn listens(&self) -> bool {
        self.listener.is_some()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The listener is ended by a message to its address, so before the address goes.
        self.listener = None;
        self.directory.remove(&self.name);
    }
}

fn draw_name() -> Result<String, Trouble> {
    random::seed().map(|bits| format!("{bits:016x}")).map_err(|error| {
        Trouble::new(ErrorKind::Unavailable, "could not draw a name").because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(root: &Path) -> Arc<Directory> {
        let place = Place::prepare(&root.join("l.db")).unwrap();
        Directory::open(&place).unwrap()
    }

    #[test]
    fn a_peer_is_alive_until_it_is_dropped_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let directory = directory(root.path());
        let mut peer = Peer::new(&directory).unwrap();
        peer.listen(&Arc::new(Mailbox::default())).unwrap();
        let name = peer.name().to_owned();
        assert_eq!(directory.life(&name), Life::Alive);
        assert!(directory.dead().is_empty());
        drop(peer);
        assert_eq!(std::fs::read_dir(&directory.path).unwrap().count(), 0);
    }

    #[test]
    fn an_unlocked_file_is_a_dead_peer_and_a_missing_one_proves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let directory = directory(root.path());
        std::fs::write(directory.path.join("00ff.lock"), "").unwrap();
        assert_eq!(directory.life("00ff"), Life::Dead);
        assert_eq!(directory.life("00fe"), Life::Alive);
        assert!(directory.wait_for_end("00ff"));
        assert!(!directory.wait_for_end("00fe"));

        let dead = directory.dead();
        assert_eq!(dead.len(), 1);
        dead.into_iter().for_each(|dead| dead.remove(&directory));
        assert_eq!(directory.life("00ff"), Life::Alive);
        assert!(directory.dead().is_empty());
    }

    #[test]
    fn the_directory_is_as_private_as_the_database() {
        for (file, expected) in [(0o600, 0o700), (0o660, 0o770), (0o644, 0o755)] {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("l.db");
            Place::prepare(&path).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(file)).unwrap();
            let directory = Directory::open(&Place::prepare(&path).unwrap()).unwrap();
            let mode = std::fs::metadata(&directory.path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{file:o}");
        }
    }

    #[test]
    fn sweeps_never_take_a_living_peer() {
        let root = tempfile::tempdir().unwrap();
        let directory = directory(root.path());
        std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                for _ in 0..2000 {
                    directory.dead().into_iter().for_each(|dead| dead.remove(&directory));
                }
            });
            while !sweeper.is_finished() {
                let peer = Peer::new(&directory).unwrap();
                assert!(directory.path.join(format!("{}{LOCK}", peer.name())).exists());
                assert_eq!(directory.life(peer.name()), Life::Alive);
            }
        });
    }
}
