//! Sessions, claims, and processes that run a part of this very test binary.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold::Store;
use leasehold::core::{Claim, ClaimId, Enter, Fence, Key, Note, Place, SessionId, Terms};
use leasehold::stores::Sqlite;

/// So long that nothing in these tests may be explained by its end.
pub(crate) const LONG: Duration = Duration::from_mins(10);

/// When a test that waits for an event gives up: far below [`LONG`], far above what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn terms(ttl: Duration) -> Terms {
    Terms { ttl, owner: Note::new("tester").unwrap(), detached: false }
}

pub(crate) fn claim(key: &str) -> Claim {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    id[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    Claim::exclusive(ClaimId::from_random(id), Key::new(key).unwrap(), Note::default())
}

/// Waits for its turn.
pub(crate) async fn hold(store: &Sqlite, session: &SessionId, claim: &Claim) -> Fence {
    let granted = async {
        loop {
            match store.enter(session, claim, Enter::Wait).await.unwrap() {
                Place::Held(fence) => return fence,
                Place::Waiting(_) => {}
                Place::Refused(_) => panic!("refused although it waits"),
            }
            if let Some(Place::Held(fence)) = store.changed(session, claim).await.unwrap() {
                return fence;
            }
        }
    };
    tokio::time::timeout(PATIENCE, granted).await.expect("granted in the end")
}

/// Holds at once.
pub(crate) async fn hold_now(store: &Sqlite, session: &SessionId, claim: &Claim) -> Fence {
    match store.enter(session, claim, Enter::Try).await.unwrap() {
        Place::Held(fence) => fence,
        place => panic!("not held at once: {place:?}"),
    }
}

pub(crate) async fn wait_in_line(store: &Sqlite, session: &SessionId, claim: &Claim) {
    let place = store.enter(session, claim, Enter::Wait).await.unwrap();
    assert!(matches!(place, Place::Waiting(_)), "{place:?}");
}

const ROLE: &str = "LEASEHOLD_TEST_ROLE";
const MARK: &str = "@@";

/// What the process was started for: the role, and the file.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Says something to the parent.
pub(crate) fn say(text: &str) {
    println!("{MARK}{text}");
    std::io::stdout().flush().unwrap();
}

/// The next thing that the parent says; `None` once it is gone.
pub(crate) fn hear() -> Option<String> {
    let mut line = String::new();
    let length = std::io::stdin().read_line(&mut line).unwrap();
    (length > 0).then(|| line.trim_end().to_owned())
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Another process; killed with this value. If this process is killed it reads the end of its
/// input, and ends.
pub(crate) struct Other {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Other {
    /// Runs `test` in another process, where [`role`] answers `role`.
    pub(crate) fn start(test: &str, role: &str) -> Self {
        Self::run(Command::new(std::env::current_exe().unwrap()), test, role)
    }

    /// The same in a mount namespace of its own, so that what it mounts ends with it.
    pub(crate) fn start_with_mounts(test: &str, role: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command.arg(std::env::current_exe().unwrap());
        Self::run(command, test, role)
    }

    /// The same with another program, which is to be this binary or to start it.
    pub(crate) fn run(mut command: Command, test: &str, role: &str) -> Self {
        let mut child = command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("could not start {command:?}: {error}"));
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// The next thing that it says.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).unwrap();
            assert!(length > 0, "the other process ended without a word");
            // The harness writes on the same lines.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{text}").unwrap();
        input.flush().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself, well.
    pub(crate) fn join(mut self) {
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
