//! The file: its modes, and what may be wrong with it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use leasehold::core::{Key, Renewed};
use leasehold::stores::Sqlite;
use leasehold::{Error, ErrorKind, Store};

use crate::support::{LONG, Other, block_on, claim, hold_now, mode, role, say, terms};

async fn refusal(path: &Path) -> Error {
    let store = Sqlite::at(path).unwrap();
    let error = store.open(&terms(LONG)).await.unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains(path.to_str().unwrap()), "names the file: {shown}");
    // The same without a session.
    assert_eq!(store.keys("").await.unwrap_err().kind(), error.kind());
    error
}

#[tokio::test]
async fn what_it_makes_is_for_this_user_alone() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("state/leasehold/l.db");
    let store = Sqlite::at(&file).unwrap();
    assert!(!file.exists(), "a constructor does no IO");
    let session = store.open(&terms(LONG)).await.unwrap();
    hold_now(&store, &session, &claim("k")).await;
    for suffix in ["", "-wal", "-shm"] {
        let name = file.with_file_name(format!("l.db{suffix}"));
        assert_eq!(mode(&name), 0o600, "{}", name.display());
    }
    for directory in ["state", "state/leasehold", "state/leasehold/l.db-peers"] {
        assert_eq!(mode(&root.path().join(directory)), 0o700, "{directory}");
    }
}

#[tokio::test]
async fn a_mode_that_somebody_chose_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o660)).unwrap();
    let store = Sqlite::at(&file).unwrap();
    store.open(&terms(LONG)).await.unwrap();
    assert_eq!(mode(&file), 0o660);
    assert_eq!(mode(&root.path().join("l.db-wal")), 0o660);
    assert_eq!(mode(&root.path().join("l.db-peers")), 0o770);
}

#[tokio::test]
async fn garbage_is_corrupt_and_stays_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let garbage = b"this is not a database\n".repeat(1000);
    std::fs::write(&file, &garbage).unwrap();
    assert_eq!(refusal(&file).await.kind(), ErrorKind::Corrupt);
    assert_eq!(std::fs::read(&file).unwrap(), garbage);
}

#[tokio::test]
async fn a_damaged_file_is_corrupt() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    make(&file).await;
    // Into one file, and then all but its header is overwritten.
    sql(&file, "PRAGMA wal_checkpoint(TRUNCATE)");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100..].fill(0xaa);
    std::fs::write(&file, &bytes).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(file.with_file_name(format!("l.db{suffix}")));
    }
    assert_eq!(refusal(&file).await.kind(), ErrorKind::Corrupt);
}

/// A file that was used, and in which nothing is left to be done.
async fn make(file: &Path) {
    let store = Sqlite::at(file).unwrap();
    let session = store.open(&terms(LONG)).await.unwrap();
    store.close(&session).await.unwrap();
}

fn sql(file: &Path, text: &str) {
    let conn = rusqlite::Connection::open(file).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    let mut statement = conn.prepare(text).unwrap();
    let mut rows = statement.query([]).unwrap();
    while rows.next().unwrap().is_some() {}
}

#[tokio::test]
async fn a_newer_layout_is_refused_with_advice() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    make(&file).await;
    sql(&file, "PRAGMA user_version = 1000");
    let error = refusal(&file).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("update leasehold"), "{error}");
}

#[tokio::test]
async fn another_applications_database_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let marked = root.path().join("marked.db");
    sql(&marked, "PRAGMA application_id = 7");
    let unmarked = root.path().join("unmarked.db");
    sql(&unmarked, "CREATE TABLE precious (x)");
    for file in [marked, unmarked] {
        let before = std::fs::read(&file).unwrap();
        assert_eq!(refusal(&file).await.kind(), ErrorKind::Invalid);
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }
}

#[tokio::test]
async fn a_directory_is_no_file() {
    let root = tempfile::tempdir().unwrap();
    let error = refusal(root.path()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("directory"), "{error}");
    // Nor is a file a directory.
    let file = root.path().join("f");
    std::fs::write(&file, "").unwrap();
    assert_eq!(refusal(&file.join("l.db")).await.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_file_that_is_removed_in_use_ends_its_sessions_and_fences_go_on() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let store = Sqlite::at(&file).unwrap();
    let session = store.open(&terms(LONG)).await.unwrap();
    let before = hold_now(&store, &session, &claim("k")).await;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(file.with_file_name(format!("l.db{suffix}"))).unwrap();
    }
    let error = store.renew(&session, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(store.renew(&session, &[]).await.unwrap(), Renewed::Ended);
    let session = store.open(&terms(LONG)).await.unwrap();
    assert!(hold_now(&store, &session, &claim("k")).await > before);
}

#[tokio::test]
async fn a_file_that_stays_locked_is_an_error_that_may_pass() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    make(&file).await;
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = Sqlite::at(&file).unwrap();
    let error = store.open(&terms(LONG)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.effect(), leasehold::Effect::None);
    assert!(error.is_transient());
    conn.execute_batch("COMMIT").unwrap();
    store.open(&terms(LONG)).await.unwrap();
}

#[tokio::test]
async fn hostile_keys_stay_apart() {
    let root = tempfile::tempdir().unwrap();
    let store = Sqlite::at(root.path().join("l.db")).unwrap();
    let session = store.open(&terms(LONG)).await.unwrap();
    let longest = "鍵".repeat(170);
    let mut keys = vec![
        "k",
        "K",
        "k ",
        "k%",
        "k_",
        "k*",
        "'; DROP TABLE claims; --",
        "\n",
        "\u{feff}",
        "é",
        "e\u{301}",
        "1",
        "1.0",
        "0x31",
        &longest,
    ];
    for key in &keys {
        hold_now(&store, &session, &claim(key)).await;
    }
    keys.sort_unstable();
    let listed: Vec<Key> = store.keys("").await.unwrap();
    assert_eq!(listed.iter().map(Key::as_str).collect::<Vec<_>>(), keys);
    let with_prefix = store.keys("k").await.unwrap();
    assert_eq!(
        with_prefix.iter().map(Key::as_str).collect::<Vec<_>>(),
        ["k", "k ", "k%", "k*", "k_"]
    );
}

const NOBODY: u32 = 65534;

#[test]
fn what_this_user_may_not_write_is_a_clear_error() {
    if let Some(directory) = role() {
        for name in ["private.db", "new.db"] {
            let error = block_on(refusal(&Path::new(&directory).join(name)));
            assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error}");
            assert!(error.to_string().contains("mode"), "{name}: {error}");
        }
        return say("done");
    }
    let root = tempfile::tempdir().unwrap();
    let locks = root.path().join("locks");
    block_on(async {
        let store = Sqlite::at(locks.join("private.db")).unwrap();
        store.open(&terms(LONG)).await.unwrap();
    });
    // Everybody may look, nobody else may write.
    for path in [root.path(), &locks] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for suffix in ["", "-wal", "-shm"] {
        let file = locks.join(format!("private.db{suffix}"));
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    // This binary may lie where the other user cannot reach it.
    let binary = root.path().join("binary");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let mut command = Command::new(binary);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let test = "file::what_this_user_may_not_write_is_a_clear_error";
    let mut other = Other::run(command, test, locks.to_str().unwrap());
    assert_eq!(other.hear(), "done");
    other.join();
}
