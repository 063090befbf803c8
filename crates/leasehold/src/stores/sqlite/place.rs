//! The file's place in the filesystem: its directory, its mode, and what it lies on.

use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::trouble::Trouble;
use crate::error::ErrorKind;
use crate::random;

/// A file that exists: its real path, and what tells it from another at the same path.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) owner: u32,
    identity: (u64, u64),
}

impl Place {
    /// Makes the file (0600) and its directory (0700) if they are missing, and refuses a place
    /// where locks do not hold.
    pub(super) fn prepare(path: &Path) -> Result<Self, Trouble> {
        let named = std::fs::metadata(path);
        if matches!(&named, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            create(path)?;
        }
        // Two names of one file must lead to one directory of peers, and to one WAL.
        let path =
            path.canonicalize().map_err(|error| Trouble::io("find the file", path, error))?;
        let found = std::fs::metadata(&path)
            .map_err(|error| Trouble::io("look at the file", &path, error))?;
        check_file(&path, &found)?;
        check_filesystem(&path)?;
        let identity = (found.dev(), found.ino());
        Ok(Self { mode: found.mode(), owner: found.uid(), identity, path })
    }

    /// Whether the path still leads to this file. If it was replaced, others use another file
    /// and nobody is excluded any more.
    pub(super) fn is_still_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }
}

/// Makes an empty file of mode 0600 that appears at `path` at once and complete.
///
/// It must not be opened here under its final name: closing any descriptor of a database drops
/// the POSIX locks that other connections of this process have on it
/// (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).
fn create(path: &Path) -> Result<(), Trouble> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| Trouble::io("make the directory", directory, error))?;
    let unique = random::token().map_err(|error| {
        Trouble::new(ErrorKind::Unavailable, "could not draw a name").because(error)
    })?;
    let fresh = directory.join(format!(".leasehold-{unique}"));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(|error| Trouble::io("make a file in", directory, error))?;
    let moved = move_unless_there(&fresh, path);
    if moved.is_err() {
        // Nothing depends on the leftover.
        let _ = std::fs::remove_file(&fresh);
    }
    match moved {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Trouble::io("make the file", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn move_unless_there(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some filesystems do not know the flag; a second name for a moment serves as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        moved => Ok(moved?),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn move_unless_there(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

fn check_file(path: &Path, found: &Metadata) -> Result<(), Trouble> {
    let shown = path.display();
    if !found.is_file() {
        let what = if found.is_dir() { "a directory" } else { "not a regular file" };
        return Err(Trouble::new(
            ErrorKind::Invalid,
            format!("{shown} is {what}; name a file, as in {shown}/leasehold.db"),
        ));
    }
    if found.nlink() > 1 {
        // SQLite keeps a WAL beside each name, and two WALs of one file destroy it
        // (<https://www.sqlite.org/howtocorrupt.html>, section 2.5).
        return Err(Trouble::new(
            ErrorKind::Invalid,
            format!("{shown} has several hard links, which SQLite cannot share; keep one name"),
        ));
    }
    if found.mode() & 0o002 != 0 {
        tracing::warn!(
            file = %shown,
            "everybody on this machine may write to the lock file, and so end or forge locks; \
             consider chmod 600"
        );
    }
    Ok(())
}

/// How far a filesystem keeps locks and shared memory sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sound {
    /// A filesystem of this machine.
    Yes,
    /// Depends on what is behind it.
    Doubtful(&'static str),
    /// Other machines write to it, and do not see this one's shared memory.
    No(&'static str),
}

/// Judges by the magic number of `statfs(2)`.
const fn soundness(magic: u64) -> Sound {
    match magic & 0xffff_ffff {
        0x6969 => Sound::No("NFS"),
        0x517b => Sound::No("SMB"),
        0xff53_4d42 => Sound::No("CIFS"),
        0xfe53_4d42 => Sound::No("SMB2"),
        0x0102_1997 => Sound::No("9P"),
        0x5346_414f | 0x6b41_4653 => Sound::No("AFS"),
        0x7375_7245 => Sound::No("Coda"),
        0x564c => Sound::No("NCP"),
        0x00c3_6400 => Sound::No("Ceph"),
        0x0bd0_0bd0 => Sound::No("Lustre"),
        0x0116_1970 => Sound::No("GFS2"),
        0x7461_636f => Sound::No("OCFS2"),
        0x4750_4653 => Sound::No("GPFS"),
        0x6573_5546 => Sound::Doubtful("FUSE"),
        0x786f_4256 => Sound::Doubtful("VirtualBox shared folder"),
        0xbacb_acbc => Sound::Doubtful("VMware shared folder"),
        _ => Sound::Yes,
    }
}

/// The magic number of the filesystem that a file lies on.
#[cfg(target_os = "linux")]
fn magic(path: &Path) -> Result<u64, Trouble> {
    let found = rustix::fs::statfs(path)
        .map_err(|error| Trouble::io("ask for the filesystem of", path, error.into()))?;
    #[expect(clippy::cast_sign_loss, reason = "a magic number is a pattern of bits")]
    Ok(found.f_type as u64 & 0xffff_ffff)
}

/// How far the filesystem of a file can be trusted, and its magic number; `None` where the system
/// does not tell.
pub(super) fn filesystem(path: &Path) -> Option<(Sound, u64)> {
    #[cfg(target_os = "linux")]
    return magic(path).ok().map(|magic| (soundness(magic), magic));
    #[cfg(not(target_os = "linux"))]
    return None;
}

#[cfg(target_os = "linux")]
fn check_filesystem(path: &Path) -> Result<(), Trouble> {
    match soundness(magic(path)?) {
        Sound::Yes => Ok(()),
        Sound::Doubtful(name) => {
            tracing::warn!(
                file = %path.display(),
                filesystem = name,
                "if other machines can write to this filesystem, locks do not hold between them; \
                 use a local directory, or a store with a server"
            );
            Ok(())
        }
        Sound::No(name) => Err(Trouble::new(
            ErrorKind::Unsupported,
            format!(
                "{} lies on a network filesystem ({name}), where locks do not hold between \
                 machines; use a local directory, or a store with a server",
                path.display()
            ),
        )),
    }
}

#[cfg(not(target_os = "linux"))]
fn check_filesystem(_path: &Path) -> Result<(), Trouble> {
    Ok(())
}

/// Whether the filesystem is mounted read-only, as opposed to a file that this user may not write.
pub(super) fn is_mounted_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_filesystems_are_refused_and_unknown_ones_warned_about() {
        let network =
            [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x00c3_6400, 0x0bd0_0bd0];
        for magic in network {
            assert!(matches!(soundness(magic), Sound::No(_)), "{magic:x}");
        }
        // As a sign-extended 32-bit number: how statfs gives CIFS on some machines.
        assert_eq!(soundness(0xffff_ffff_ff53_4d42), Sound::No("CIFS"));
        assert!(matches!(soundness(0x6573_5546), Sound::Doubtful(_)));
        // ext4, xfs, btrfs, tmpfs, overlayfs, zfs, f2fs.
        for magic in
            [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010]
        {
            assert_eq!(soundness(magic), Sound::Yes, "{magic:x}");
        }
    }

    #[test]
    fn a_second_hard_link_and_a_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.db");
        Place::prepare(&file).unwrap();
        std::fs::hard_link(&file, directory.path().join("b.db")).unwrap();
        assert_eq!(Place::prepare(&file).unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(Place::prepare(directory.path()).unwrap_err().kind, ErrorKind::Invalid);
    }

    #[test]
    fn a_replaced_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.db");
        let place = Place::prepare(&file).unwrap();
        assert!(place.is_still_there());
        std::fs::write(directory.path().join("other"), "").unwrap();
        std::fs::rename(directory.path().join("other"), &file).unwrap();
        assert!(!place.is_still_there());
    }
}
