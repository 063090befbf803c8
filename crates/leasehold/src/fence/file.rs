//! Files: a guard beside the file.
//!
//! `FILE.fence` holds the greatest fence that `FILE` has seen. [`write()`] checks it, advances it and
//! replaces the file, all under a lock on `FILE.fence.lock`; [`guarded`] does anything else there.
//!
//! - The fence is on disk before the write begins (written aside, synchronised, renamed, the
//!   directory synchronised), and so is the file before it is renamed: after a crash at any
//!   moment the file is the old one or the new one, whole, and no older holder is accepted.
//! - The lock is the kernel's (`flock`): it ends with its process. A process that is *stopped* in
//!   the middle keeps it, and others wait until it goes on or is killed: nothing can overtake it.
//! - All who write have to do it this way, on one machine. Network file systems that do not hand
//!   `flock` on, as some do, protect nothing.
//! - `FILE` may be a symbolic link: what it leads to is written, and guarded under one name.
//!   A replaced file keeps its permissions, but is a new one to hard links and to its owner.
//! - A garbled `FILE.fence` refuses everybody; deleting it forgets the greatest fence.
//!
//! ```
//! use leasehold::Fence;
//! use leasehold::fence::file;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("report.txt");
//! file::write(&path, Fence::new(34), b"new")?; // guard.fence()
//! let error = file::write(&path, Fence::new(33), b"old").unwrap_err();
//! assert_eq!(error.stale_fence().unwrap().greatest, Fence::new(34));
//! assert_eq!(std::fs::read(&path).unwrap(), b"new");
//! # Ok::<(), leasehold::Error>(())
//! ```

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use leasehold_core::Fence;

use crate::error::{Error, ErrorKind, Result};

/// Replaces the contents of `path`, unless it has seen a greater fence. Blocks.
///
/// # Errors
///
/// [`ErrorKind::Stale`] if it has, and then nothing changed. Another error may leave the fence
/// advanced and the file as it was.
pub fn write(path: &Path, token: Fence, contents: &[u8]) -> Result<()> {
    guarded(path, token, |path| replace(path, &beside(path, ".fence.data"), contents))
}

/// Does `work` to a file (or whatever is at `path`, which need not exist), unless it has seen a
/// greater fence. Nobody else is at work there meanwhile, and everybody with a smaller fence is
/// refused from then on. Blocks.
///
/// `work` is given the path with symbolic links resolved. What it leaves half done when the machine
/// fails is its own affair.
///
/// # Errors
///
/// [`ErrorKind::Stale`] if it has, and then `work` was not begun; those of `work`, after which the
/// fence is advanced all the same.
pub fn guarded<T>(
    path: &Path,
    token: Fence,
    work: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<T> {
    let path = &resolve(path).map_err(|error| failed(path, error))?;
    let named = |error| failed(path, error);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(beside(path, ".fence.lock"))
        .map_err(named)?;
    lock.lock().map_err(named)?;
    let kept = beside(path, ".fence");
    let greatest = read(&kept)?;
    token.check(&path.display().to_string(), greatest).map_err(Error::from)?;
    // Before the work: were it after, a crash in between would leave what this holder wrote
    // open to an older one.
    if greatest != Some(token) {
        replace(&kept, &beside(path, ".fence.next"), format!("{token}\n").as_bytes())
            .map_err(named)?;
    }
    work(path).map_err(named)
    // Closing the file ends the lock.
}

/// The greatest fence that `path` has seen. Waits for nobody.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] when it cannot be understood.
pub fn greatest(path: &Path) -> Result<Option<Fence>> {
    let path = resolve(path).map_err(|error| failed(path, error))?;
    read(&beside(&path, ".fence"))
}

fn read(kept: &Path) -> Result<Option<Fence>> {
    let text = match fs::read_to_string(kept) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(kept, error)),
    };
    // Without its line break it may be the beginning of a number.
    let fence = text.strip_suffix('\n').and_then(|text| text.parse().ok());
    fence.map(Some).ok_or_else(|| {
        let detail = format!("{} does not hold a fence: repair it by hand", kept.display());
        Error::new(ErrorKind::Corrupt, ATTEMPT, detail)
    })
}

/// Replaces a file as a whole: the old one or the new one is there at any moment.
fn replace(path: &Path, aside: &Path, contents: &[u8]) -> io::Result<()> {
    // One that a crash left is begun anew.
    let mut file = File::create(aside)?;
    match fs::metadata(path) {
        Ok(old) => file.set_permissions(old.permissions())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(aside, path)?;
    // Else the name may lead to the old file after a power loss.
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// The path without symbolic links, so that one file has one guard.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                return Err(io::Error::new(error.kind(), "the symbolic link leads nowhere"));
            }
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            Ok(std::path::absolute(path)?
                .parent()
                .unwrap_or(Path::new("/"))
                .canonicalize()?
                .join(name))
        }
        found => found,
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

const ATTEMPT: &str = "write under a fence";

fn failed(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Full
        }
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidInput => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    let detail = format!("{} cannot be written, or what guards it", path.display());
    Error::new(kind, ATTEMPT, detail).because(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_garbled_guard_refuses_everybody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for garbled in ["", "3", "x\n", "-1\n", "99999999999999999999999\n"] {
            fs::write(beside(&path, ".fence"), garbled).unwrap();
            let error = write(&path, Fence::new(u64::MAX), b"new").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{garbled:?}");
            assert!(!path.exists());
        }
        // Nor is one that cannot be read no guard.
        fs::remove_file(beside(&path, ".fence")).unwrap();
        fs::create_dir(beside(&path, ".fence")).unwrap();
        write(&path, Fence::new(u64::MAX), b"new").unwrap_err();
        assert!(!path.exists());
        assert!(greatest(&path).is_err());
    }

    #[test]
    fn every_way_to_a_file_leads_to_one_guard() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["f", "link"].map(|name| directory.path().join(name));
        write(&path, Fence::new(5), b"five").unwrap();
        symlink(&path, &link).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = write(&link, Fence::new(4), b"four").unwrap_err();
        assert_eq!(error.stale_fence().unwrap().greatest, Fence::new(5));
        write(&link, Fence::new(6), b"six").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"six");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(greatest(&path).unwrap(), Some(Fence::new(6)));
    }

    #[test]
    fn what_a_crash_left_aside_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for ending in [".fence.next", ".fence.data"] {
            fs::write(beside(&path, ending), "half of something much longer").unwrap();
        }
        write(&path, Fence::new(7), b"seven").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"seven");
        assert_eq!(greatest(&path).unwrap(), Some(Fence::new(7)));
    }

    #[test]
    fn a_file_is_replaced_and_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let [path, before] = ["f", "before"].map(|name| directory.path().join(name));
        write(&path, Fence::new(7), b"seven").unwrap();
        // Who has the old one open reads it to its end.
        fs::hard_link(&path, &before).unwrap();
        write(&path, Fence::new(8), b"8").unwrap();
        assert_eq!(fs::read(&before).unwrap(), b"seven");
        assert_eq!(fs::read(&path).unwrap(), b"8");
    }

    #[test]
    fn work_that_fails_has_advanced_the_fence() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let failing = guarded(&path, Fence::new(7), |_| Err::<(), _>(io::ErrorKind::Other.into()));
        assert!(failing.is_err());
        assert_eq!(write(&path, Fence::new(6), b"").unwrap_err().kind(), ErrorKind::Stale);
        let nowhere = directory.path().join("no/such/directory");
        assert_eq!(write(&nowhere, Fence::new(1), b"").unwrap_err().kind(), ErrorKind::Invalid);
    }
}
