//! What a lock costs, counted in the file: `SQLite` writes each commit to the log beside it.

use std::path::Path;

use leasehold::Store;
use leasehold::core::{Enter, Left, Place};
use leasehold::stores::Sqlite;

use crate::support::{LONG, claim, hold_now, terms, wait_in_line};

/// How many transactions that wrote something the log has. Its header is 32 bytes long; a frame is
/// 24 and a page, with the size of the database in its second word if a commit ends with it, and
/// the log's salt in its third and fourth (section 4.1 of the file format).
fn commits(file: &Path) -> usize {
    let log = std::fs::read(file.with_extension("db-wal")).unwrap();
    let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let frame = 24 + usize::try_from(word(8)).unwrap();
    let starts = (32..).step_by(frame).take_while(|start| start + frame <= log.len());
    starts.filter(|start| log[start + 8..start + 16] == log[16..24] && word(start + 4) != 0).count()
}

#[tokio::test]
async fn an_uncontended_pair_is_two_commits_and_a_hand_over_no_more() {
    const PAIRS: usize = 10;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("locks.db");
    let store = Sqlite::at(&file).unwrap();
    let session = store.open(&terms(LONG)).await.unwrap();
    let pair = async || {
        let held = claim("key");
        hold_now(&store, &session, &held).await;
        assert_eq!(store.leave(&session, &held).await.unwrap(), Left::Released);
    };
    // The first one reserves fences.
    pair().await;
    let before = commits(&file);
    for _ in 0..PAIRS {
        pair().await;
    }
    assert_eq!(commits(&file) - before, 2 * PAIRS);

    let (held, refused) = (claim("key"), claim("key"));
    hold_now(&store, &session, &held).await;
    let before = commits(&file);
    let place = store.enter(&session, &refused, Enter::Try).await.unwrap();
    assert!(matches!(place, Place::Refused(_)), "{place:?}");
    assert_eq!(
        commits(&file) - before,
        1,
        "a refused try joins the line and leaves it in one step"
    );
    let waiters = [claim("key"), claim("key"), claim("key")];
    for waiter in &waiters {
        wait_in_line(&store, &session, waiter).await;
    }
    let before = commits(&file);
    store.leave(&session, &held).await.unwrap();
    assert_eq!(commits(&file) - before, 1, "the release grants the next in the same step");
    let granted = store.enter(&session, &waiters[0], Enter::Wait).await.unwrap();
    assert!(matches!(granted, Place::Held(_)), "{granted:?}");
}

#[tokio::test]
async fn many_locks_are_one_commit_and_nobody_sees_a_part_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("locks.db");
    let [client, other] = [(); 2]
        .map(|()| leasehold::Client::builder().store(Sqlite::at(&file).unwrap()).build().unwrap());
    for client in [&client, &other] {
        client.mutex("first").unwrap().lock().await.unwrap().release().await.unwrap();
    }
    let before = commits(&file);
    let locks: Vec<_> = (0..300).map(|n| client.mutex(format!("k{n}")).unwrap()).collect();
    let guards = client.lock_all(locks).await.unwrap();
    assert_eq!((guards.len(), commits(&file) - before), (300, 1));
    let tried = ["free", "k7"].map(|key| other.mutex(key).unwrap());
    assert!(other.try_lock_all(tried).await.unwrap().is_none());
    assert_eq!(commits(&file) - before, 2, "a refusal enters and leaves in one step");
}
