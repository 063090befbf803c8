//! What the file and the place it lies in mean for locks.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::POLL;
use super::place::{Sound, filesystem};
use super::wire::Facts;
use crate::examination::{Examination, Examined, Finding};

/// Less free space than this is too little for a log that grows while somebody reads.
const ROOM: u64 = 16 << 20;
/// More than this is a file that holds what no locks leave behind.
const LARGE: u64 = 256 << 20;
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of `linux/magic.h`.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY: u64 = 0x794c_7630;

/// Judges the file at `path`. `told` says whether a socket for wake-ups could be bound.
pub(super) fn judge(path: &Path, file: Examined, facts: &Facts, told: bool) -> Examination {
    let mut found = Examination::default();
    found.servers.push(file);
    found.add(Finding::note(
        "reach",
        "Locks exclude the processes of this machine that use this file, and no other machine.",
    ));
    found.add(judge_filesystem(filesystem(path)));
    let space = rustix::fs::statvfs(path).ok().map(|space| space.f_bavail * space.f_frsize);
    found.add(judge_space(space));
    found.findings.extend(judge_access(path));
    found.findings.extend(judge_file(facts));
    found.add(if told {
        Finding::fine("wake-ups", "Waiters are woken by a datagram as soon as a lock is free.")
    } else {
        let says = format!(
            "No socket could be bound beside the file (see the log), so waiters ask every \
             {POLL:?} instead of being woken. Locks are as safe as with one."
        );
        Finding::note("wake-ups", says)
    });
    found
}

fn judge_filesystem(filesystem: Option<(Sound, u64)>) -> Finding {
    const LOCAL: &str = "a directory on a disk of this machine, or a store with a server";
    match filesystem {
        None => Finding::unknown(
            "filesystem",
            "What the file lies on is not told by this system. On a network filesystem locks do \
             not hold between machines.",
        ),
        Some((Sound::No(name) | Sound::Doubtful(name), _)) => Finding::danger(
            "filesystem",
            format!(
                "The file lies on {name}. Where other machines can write to it, locks do not hold \
                 between them, and SQLite's shared memory may not hold on this one either."
            ),
        )
        .change(LOCAL),
        Some((Sound::Yes, magic)) if IN_MEMORY.contains(&magic) => Finding::note(
            "filesystem",
            "The file lies in memory (tmpfs) and vanishes when the machine stops, as every holder \
             does. Fences then go on from the clock.",
        ),
        Some((Sound::Yes, OVERLAY)) => Finding::note(
            "filesystem",
            "The file lies on an overlay, as the own files of a container do: processes in \
             another container have another file, and are not excluded.",
        )
        .change("a volume that all containers mount"),
        Some((Sound::Yes, magic)) => {
            let name = match magic {
                0xef53 => "ext4".to_owned(),
                0x5846_5342 => "xfs".to_owned(),
                0x9123_683e => "btrfs".to_owned(),
                0x2fc1_2fc1 => "zfs".to_owned(),
                0xf2f5_2010 => "f2fs".to_owned(),
                other => format!("filesystem {other:#x}"),
            };
            Finding::fine("filesystem", format!("The file lies on a local filesystem ({name})."))
        }
    }
}

fn judge_space(free: Option<u64>) -> Finding {
    match free {
        None => Finding::unknown("space", "How much space is left beside the file is not told."),
        Some(free) if free < ROOM => Finding::warning(
            "space",
            format!(
                "{} KiB are left beside the file: without space no lock can be taken.",
                free >> 10
            ),
        )
        .change("make room on its filesystem"),
        Some(free) => {
            Finding::fine("space", format!("{} MiB are left beside the file.", free >> 20))
        }
    }
}

/// Who else may end or forge locks.
fn judge_access(path: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let directory = path.parent().unwrap_or(Path::new("/"));
    let (Ok(file), Ok(parent)) = (std::fs::metadata(path), std::fs::metadata(directory)) else {
        let says = "Who may write to the file could not be read.";
        return vec![Finding::unknown("access", says)];
    };
    if file.mode() & 0o002 != 0 {
        found.push(
            Finding::warning(
                "access",
                "Everybody on this machine may write to the file, and so end or forge locks.",
            )
            .change(format!("chmod o-w {}", path.display())),
        );
    }
    // In a directory with the sticky bit (/tmp) nobody may replace another's file.
    if parent.mode() & 0o002 != 0 && parent.mode() & 0o1000 == 0 {
        found.push(
            Finding::warning(
                "access",
                "Everybody on this machine may replace the file, because of its directory: who \
                 holds in the old one then excludes nobody.",
            )
            .change(format!("chmod o-w {}", directory.display())),
        );
    }
    if found.is_empty() {
        let who = if file.mode() & 0o020 == 0 { "its owner" } else { "its owner and group" };
        let says = format!("Only {who} may write to the file (and root).");
        found.push(Finding::fine("access", says));
    }
    found
}

fn judge_file(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![if facts.integrity == "ok" {
        Finding::fine("integrity", "SQLite's quick check finds no damage in the file.")
    } else {
        Finding::danger(
            "integrity",
            format!("The file is damaged: {}.", facts.integrity.escape_debug()),
        )
        .change("stop all its users and move it away with its -wal and -shm; fences go on growing")
    }];
    found.push(if facts.journal == "wal" {
        Finding::fine(
            "durability",
            "The journal is a WAL, and fences are reserved by synced commits: a loss of power \
             ends every holder and sets no fence back.",
        )
    } else {
        let says = format!("The journal is not a WAL but {}.", facts.journal.escape_debug());
        Finding::danger("durability", format!("{says} Somebody changed it while it was in use."))
            .change("PRAGMA journal_mode = WAL;")
    });
    let size = facts.pages.saturating_mul(facts.page_size);
    if size > LARGE {
        let says = format!("The file has {} MiB, which makes every lock slower.", size >> 20);
        found.push(
            Finding::note("size", says).change("sqlite3 FILE VACUUM   # while nobody uses it"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examination::Severity::{Danger, Fine, Note, Unknown, Warning};

    #[test]
    fn filesystems_are_told_apart() {
        for (filesystem, severity) in [
            (Some((Sound::No("NFS"), 0x6969)), Danger),
            (Some((Sound::Doubtful("FUSE"), 0x6573_5546)), Danger),
            (Some((Sound::Yes, IN_MEMORY[0])), Note),
            (Some((Sound::Yes, OVERLAY)), Note),
            (Some((Sound::Yes, 0xef53)), Fine),
            (None, Unknown),
        ] {
            assert_eq!(judge_filesystem(filesystem).severity, severity);
        }
    }

    #[test]
    fn little_space_and_damage_are_seen() {
        assert_eq!(judge_space(Some(ROOM - 1)).severity, Warning);
        assert_eq!(judge_space(Some(ROOM)).severity, Fine);
        assert_eq!(judge_space(None).severity, Unknown);
        let good = Facts {
            journal: "wal".to_owned(),
            integrity: "ok".to_owned(),
            pages: 10,
            page_size: 1024,
        };
        let severities = |facts: &Facts| {
            judge_file(facts).iter().map(|found| found.severity).collect::<Vec<_>>()
        };
        assert_eq!(severities(&good), [Fine, Fine]);
        let damaged = Facts { integrity: "row 1 missing".to_owned(), ..good.clone() };
        assert_eq!(severities(&damaged), [Danger, Fine]);
        let other = Facts { journal: "delete".to_owned(), pages: LARGE / 1024 + 1, ..good };
        assert_eq!(severities(&other), [Fine, Danger, Note]);
    }
}
