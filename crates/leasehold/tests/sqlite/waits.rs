//! Waits, wake-ups, and futures that are dropped.

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use leasehold::Store;
use leasehold::core::{Enter, Left, Place, Renewed};
use leasehold::stores::Sqlite;

use crate::support::{LONG, PATIENCE, claim, hold, hold_now, terms, wait_in_line};

/// Two handles in one process are as strange to each other as two processes.
fn handles(file: &Path) -> (Sqlite, Sqlite) {
    (Sqlite::at(file).unwrap(), Sqlite::at(file).unwrap())
}

/// Waits to be told the grant; asking again is not allowed.
async fn told(
    store: &Sqlite,
    session: &leasehold::core::SessionId,
    claim: &leasehold::core::Claim,
) {
    let told =
        async { while !matches!(store.changed(session, claim).await, Ok(Some(Place::Held(_)))) {} };
    tokio::time::timeout(PATIENCE, told).await.expect("told of the grant");
}

async fn the_releaser_tells(file: &Path) {
    let (ours, theirs) = handles(file);
    let (a, b) = (ours.open(&terms(LONG)).await.unwrap(), theirs.open(&terms(LONG)).await.unwrap());
    let (first, second) = (claim("k"), claim("k"));
    let before = hold_now(&ours, &a, &first).await;
    wait_in_line(&theirs, &b, &second).await;
    assert_eq!(ours.leave(&a, &first).await.unwrap(), Left::Released);
    told(&theirs, &b, &second).await;
    let after = hold_now(&theirs, &b, &second).await;
    assert!(after > before);
}

#[tokio::test]
async fn a_release_tells_the_next_in_line_at_another_handle() {
    let root = tempfile::tempdir().unwrap();
    the_releaser_tells(&root.path().join("l.db")).await;
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_works_as_well() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("d".repeat(200)).join("e".repeat(200));
    the_releaser_tells(&deep.join("l.db")).await;
}

#[tokio::test]
async fn two_names_of_one_file_are_one_store() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("real")).unwrap();
    std::os::unix::fs::symlink(root.path().join("real"), root.path().join("link")).unwrap();
    let ours = Sqlite::at(root.path().join("real/l.db")).unwrap();
    let theirs = Sqlite::at(root.path().join("link/l.db")).unwrap();
    let (a, b) = (ours.open(&terms(LONG)).await.unwrap(), theirs.open(&terms(LONG)).await.unwrap());
    let (first, second) = (claim("k"), claim("k"));
    hold_now(&ours, &a, &first).await;
    wait_in_line(&theirs, &b, &second).await;
    ours.leave(&a, &first).await.unwrap();
    told(&theirs, &b, &second).await;
}

#[tokio::test]
async fn a_handle_that_is_dropped_ends_its_sessions() {
    let root = tempfile::tempdir().unwrap();
    let (ours, theirs) = handles(&root.path().join("l.db"));
    let (a, b) = (ours.open(&terms(LONG)).await.unwrap(), theirs.open(&terms(LONG)).await.unwrap());
    hold_now(&ours, &a, &claim("k")).await;
    let second = claim("k");
    wait_in_line(&theirs, &b, &second).await;
    drop(ours);
    hold(&theirs, &b, &second).await;
}

#[tokio::test]
async fn a_wait_ends_when_the_holder_lapses() {
    let root = tempfile::tempdir().unwrap();
    let (ours, theirs) = handles(&root.path().join("l.db"));
    let short = Duration::from_millis(300);
    let (a, b) =
        (ours.open(&terms(short)).await.unwrap(), theirs.open(&terms(LONG)).await.unwrap());
    let first = claim("k");
    hold_now(&ours, &a, &first).await;
    hold(&theirs, &b, &claim("k")).await;
    assert_eq!(ours.renew(&a, &[first]).await.unwrap(), Renewed::Ended);
}

#[tokio::test]
async fn a_leave_after_a_cancelled_enter_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Sqlite::at(root.path().join("l.db")).unwrap();
    let session = store.open(&terms(LONG)).await.unwrap();
    for _ in 0..200 {
        let claim = claim("k");
        // Sent by the first poll; carried out before the leave, whenever that is.
        let _ = store.enter(&session, &claim, Enter::Wait).now_or_never();
        assert_eq!(store.leave(&session, &claim).await.unwrap(), Left::Released);
    }
    assert!(store.keys("").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_revoked_holder_is_told() {
    let root = tempfile::tempdir().unwrap();
    let (ours, theirs) = handles(&root.path().join("l.db"));
    let a = ours.open(&terms(LONG)).await.unwrap();
    let held = claim("k");
    hold_now(&ours, &a, &held).await;
    let disturbed = async {
        tokio::time::timeout(PATIENCE, ours.disturbed(&a)).await.expect("disturbed");
    };
    let revoked = async {
        // News are for those who listen; the holder begins to a moment after it asked.
        let socket = root.path().join("l.db-peers");
        while !std::fs::read_dir(&socket).unwrap().any(|entry| {
            entry.unwrap().path().extension().is_some_and(|extension| extension == "wake")
        }) {
            tokio::task::yield_now().await;
        }
        assert!(theirs.revoke(&held.key, &held.id).await.unwrap());
        assert!(!theirs.revoke(&held.key, &held.id).await.unwrap());
    };
    tokio::join!(disturbed, revoked);
    let renewed = ours.renew(&a, std::slice::from_ref(&held)).await.unwrap();
    assert_eq!(renewed, Renewed::Extended { lost: vec![held.id] });
}

#[tokio::test]
async fn a_hundred_tasks_hold_one_after_another_in_the_order_they_came() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let stores: Vec<Sqlite> = (0..4).map(|_| Sqlite::at(&file).unwrap()).collect();
    let mut waiting = Vec::new();
    for number in 0..100 {
        let store = stores[number % stores.len()].clone();
        let session = store.open(&terms(LONG)).await.unwrap();
        let claim = claim("k");
        // One after another, so that the order of arrival is known.
        store.enter(&session, &claim, Enter::Wait).await.unwrap();
        waiting.push(tokio::spawn(async move {
            let fence = hold(&store, &session, &claim).await;
            assert_eq!(store.leave(&session, &claim).await.unwrap(), Left::Released);
            fence
        }));
    }
    let mut fences = Vec::new();
    for task in waiting {
        fences.push(task.await.unwrap());
    }
    assert!(fences.is_sorted_by(|earlier, later| earlier < later), "{fences:?}");
}

#[tokio::test]
async fn a_session_that_was_closed_or_never_opened_cannot_enter() {
    let root = tempfile::tempdir().unwrap();
    let store = Sqlite::at(root.path().join("l.db")).unwrap();
    let session = store.open(&terms(LONG)).await.unwrap();
    store.close(&session).await.unwrap();
    store.close(&session).await.unwrap();
    for session in [session, leasehold::core::SessionId::new("x")] {
        let error = store.enter(&session, &claim("k"), Enter::Wait).await.unwrap_err();
        assert_eq!(error.kind(), leasehold::ErrorKind::SessionEnded);
        assert_eq!(error.effect(), leasehold::Effect::None);
        assert_eq!(store.renew(&session, &[]).await.unwrap(), Renewed::Ended);
        assert_eq!(store.leave(&session, &claim("k")).await.unwrap(), Left::Gone);
    }
}
