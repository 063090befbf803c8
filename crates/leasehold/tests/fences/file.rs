//! Files.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use leasehold::fence::file;
use leasehold::{ErrorKind, Fence, Guard};
use leasehold_testbed::{Worker, test_name, worker};

use crate::{Resource, a_paused_holder_is_refused, assert_never_decreases, numbers};

struct Report(PathBuf);

impl Resource for Report {
    type Hold = Fence;

    async fn open(_lock: &str, address: &str) -> Self {
        Self(address.into())
    }

    fn hold(&self, guard: &Guard) -> Fence {
        guard.fence()
    }

    async fn write(&self, hold: &Fence, value: &str) -> Result<(), String> {
        file::write(&self.0, *hold, value.as_bytes()).map_err(|error| {
            let stale = error.stale_fence().expect("nothing else goes wrong here");
            assert_eq!(error.kind(), ErrorKind::Stale);
            stale.to_string()
        })
    }

    async fn read(&self) -> String {
        fs::read_to_string(&self.0).unwrap()
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn a_holder_that_was_paused_past_its_lease_is_refused() {
    let start = || {
        let home = tempfile::tempdir().unwrap();
        let [lock, file] = ["locks.db", "report"].map(|name| home.path().join(name));
        (home, format!("sqlite:{}", lock.display()), file.display().to_string())
    };
    a_paused_holder_is_refused::<Report, _>(&test_name!(), start, "it has seen");
}

fn append(path: &Path, token: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{token}")
}

#[test]
fn what_several_processes_write_never_decreases() {
    if let Some(task) = worker::task() {
        let (seed, path) = task.split_once(' ').unwrap();
        for token in numbers(seed.parse().unwrap(), 100).take(60) {
            let done =
                file::guarded(Path::new(path), Fence::new(token), |path| append(path, token));
            assert!(done.is_ok() || done.is_err_and(|error| error.kind() == ErrorKind::Stale));
        }
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let start = |seed| Worker::start(&test_name!(), &format!("{seed} {}", log.display()));
    let workers: Vec<Worker> = (1..=4).map(start).collect();
    workers.into_iter().for_each(Worker::finish);
    let text = fs::read_to_string(&log).unwrap();
    let accepted: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_never_decreases(&accepted);
    assert_eq!(file::greatest(&log).unwrap().map(Fence::get), accepted.last().copied());
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    if let Some(path) = worker::task() {
        let first = file::greatest(Path::new(&path)).unwrap().map_or(1, |seen| seen.get() + 1);
        for token in first.. {
            let contents = format!("{token}\n").repeat(2000);
            file::write(Path::new(&path), Fence::new(token), contents.as_bytes()).unwrap();
            worker::say(&token.to_string());
        }
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("report");
    for round in 0..12 {
        let mut writer = Worker::start(&test_name!(), path.to_str().unwrap());
        let mut acknowledged: u64 = 0;
        for _ in 0..=round {
            acknowledged = writer.line().parse().unwrap();
        }
        writer.kill();
        let seen = file::greatest(&path).unwrap().expect("it wrote").get();
        assert!(seen >= acknowledged, "{seen} {acknowledged}");
        let text = fs::read_to_string(&path).unwrap();
        let written: u64 = text.lines().next().unwrap().parse().unwrap();
        assert!((acknowledged..=seen).contains(&written), "{acknowledged} {written} {seen}");
        assert_eq!(text, format!("{written}\n").repeat(2000), "half a file");
        let error = file::write(&path, Fence::new(acknowledged - 1), b"stale").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
    }
}
