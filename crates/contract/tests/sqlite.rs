//! The suite on the embedded store: a new file for each case.

use std::process::Command;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use leasehold::Store;
use leasehold::stores::Sqlite;
use leasehold_contract::{Bench, Link, Reach, Server};
use leasehold_core::Key;
use tempfile::TempDir;

#[derive(Debug)]
struct SqliteBench(TempDir);

impl SqliteBench {
    fn url(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("locks.db")
    }
}

impl Bench for SqliteBench {
    fn handle(&self) -> Arc<dyn Store> {
        Arc::new(Sqlite::new(&self.url()).expect("a URL"))
    }

    /// As an administrator with the `sqlite3` program.
    fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
        async move {
            let file = rusqlite::Connection::open(self.file()).expect("opens");
            file.busy_timeout(std::time::Duration::from_secs(30)).expect("waits");
            let ended = file
                .execute("DELETE FROM claims WHERE key = ?1 AND fence IS NOT NULL", [key.as_str()])
                .expect("deletes");
            assert_eq!(ended, 1, "one holder");
        }
        .boxed()
    }

    fn reach(&self) -> Reach {
        Reach::Processes
    }

    fn worker(&self) -> Command {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_contract-worker"));
        worker.arg(self.url());
        worker
    }

    fn server(&self) -> Option<&dyn Server> {
        None
    }

    fn link(&self) -> Option<Box<dyn Link>> {
        None
    }

    fn secret(&self) -> Option<&str> {
        None
    }
}

async fn bench() -> SqliteBench {
    SqliteBench(tempfile::tempdir().expect("a directory"))
}

leasehold_contract::suite!(sqlite, bench);
