//! Several processes: kills, stops, contention.

use std::path::Path;
use std::time::Duration;

use leasehold::core::{Enter, Left, Place, Renewed};
use leasehold::stores::Sqlite;
use leasehold::{ErrorKind, Store};
use rustix::process::Signal;

use crate::support::{
    LONG, Other, block_on, claim, hear, hold, hold_now, role, say, terms, wait_in_line,
};

/// Holds `k` in the file that the role names until the parent says something; then renews.
fn hold_in_another_process(role: &str, ttl: Duration, detached: bool) {
    block_on(async {
        let store = Sqlite::at(role).unwrap();
        let mut terms = terms(ttl);
        terms.detached = detached;
        let session = store.open(&terms).await.unwrap();
        let claim = claim("k");
        let fence = hold(&store, &session, &claim).await;
        say(&fence.to_string());
        while let Some(said) = hear() {
            match said.as_str() {
                "renew" => {
                    let all = std::slice::from_ref(&claim);
                    say(&format!("{:?}", store.renew(&session, all).await.unwrap()));
                }
                "leave" => say(&format!("{:?}", store.leave(&session, &claim).await.unwrap())),
                other => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_killed_holder_is_succeeded_long_before_its_ttl_ends() {
    if let Some(file) = role() {
        return hold_in_another_process(&file, LONG, false);
    }
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut other = Other::start(
        "processes::a_killed_holder_is_succeeded_long_before_its_ttl_ends",
        file.to_str().unwrap(),
    );
    let theirs: u64 = other.hear().parse().unwrap();
    block_on(async {
        let store = Sqlite::at(&file).unwrap();
        let session = store.open(&terms(LONG)).await.unwrap();
        let claim = claim("k");
        wait_in_line(&store, &session, &claim).await;
        other.kill();
        let ours = hold(&store, &session, &claim).await;
        assert!(ours.get() > theirs);
    });
}

#[test]
fn the_dead_among_the_waiters_are_passed_over() {
    if let Some(file) = role() {
        return block_on(async {
            let store = Sqlite::at(file).unwrap();
            let session = store.open(&terms(LONG)).await.unwrap();
            wait_in_line(&store, &session, &claim("k")).await;
            say("waiting");
            assert!(hear().is_none());
        });
    }
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    block_on(async {
        let store = Sqlite::at(&file).unwrap();
        let session = store.open(&terms(LONG)).await.unwrap();
        let first = claim("k");
        hold_now(&store, &session, &first).await;
        let start = || {
            let test = "processes::the_dead_among_the_waiters_are_passed_over";
            let mut other = Other::start(test, file.to_str().unwrap());
            assert_eq!(other.hear(), "waiting");
            other
        };
        let mut others = [start(), start(), start()];
        let last = claim("k");
        wait_in_line(&store, &session, &last).await;
        others.iter_mut().for_each(Other::kill);
        // One of the dead had its turn for a moment at most: the release passes over all three.
        assert_eq!(store.leave(&session, &first).await.unwrap(), Left::Released);
        let place = store.enter(&session, &last, Enter::Wait).await.unwrap();
        assert!(matches!(place, Place::Held(_)), "{place:?}");
        let line = store.inspect(&last.key).await.unwrap();
        assert_eq!((line.holders.len(), line.waiters.len()), (1, 0));
    });
}

#[test]
fn the_dead_are_never_shown() {
    if let Some(file) = role() {
        return hold_in_another_process(&file, LONG, false);
    }
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let test = "processes::the_dead_are_never_shown";
    let mut other = Other::start(test, file.to_str().unwrap());
    other.hear();
    block_on(async {
        let store = Sqlite::at(&file).unwrap();
        let key = claim("k").key;
        assert_eq!(store.keys("").await.unwrap(), std::slice::from_ref(&key));
        let holder = store.inspect(&key).await.unwrap().holders.remove(0);
        other.kill();
        assert!(store.keys("").await.unwrap().is_empty());
        assert!(store.inspect(&key).await.unwrap().holders.is_empty());
        assert!(!store.revoke(&key, &holder.claim.unwrap()).await.unwrap());
    });
}

#[test]
fn a_stopped_holder_is_succeeded_at_its_ttl_and_revives_nothing() {
    let ttl = Duration::from_secs(2);
    if let Some(file) = role() {
        return hold_in_another_process(&file, ttl, false);
    }
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut other = Other::start(
        "processes::a_stopped_holder_is_succeeded_at_its_ttl_and_revives_nothing",
        file.to_str().unwrap(),
    );
    let theirs: u64 = other.hear().parse().unwrap();
    other.signal(Signal::STOP);
    block_on(async {
        let store = Sqlite::at(&file).unwrap();
        let session = store.open(&terms(LONG)).await.unwrap();
        let claim = claim("k");
        let ours = hold(&store, &session, &claim).await;
        assert!(ours.get() > theirs);

        other.signal(Signal::CONT);
        other.say("renew");
        assert_eq!(other.hear(), format!("{:?}", Renewed::Ended));
        other.say("leave");
        assert_eq!(other.hear(), format!("{:?}", Left::Gone));
        let line = store.inspect(&claim.key).await.unwrap();
        assert_eq!(line.holders.len(), 1);
        assert_eq!(line.holders[0].fence, Some(ours));
        assert!(line.waiters.is_empty());
    });
    other.join();
}

#[test]
fn a_detached_hold_outlives_its_process_until_its_ttl() {
    let ttl = Duration::from_secs(2);
    if let Some(file) = role() {
        return hold_in_another_process(&file, ttl, true);
    }
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut other = Other::start(
        "processes::a_detached_hold_outlives_its_process_until_its_ttl",
        file.to_str().unwrap(),
    );
    let theirs: u64 = other.hear().parse().unwrap();
    let started = leasehold::clock::now();
    other.kill();
    block_on(async {
        let store = Sqlite::at(&file).unwrap();
        let session = store.open(&terms(LONG)).await.unwrap();
        let claim = claim("k");
        let place = store.enter(&session, &claim, Enter::Wait).await.unwrap();
        // On a machine so slow that the TTL has passed already, nothing is to be seen.
        if leasehold::clock::now().since(started) < ttl / 2 {
            assert!(matches!(place, Place::Waiting(_)), "{place:?}");
        }
        assert!(hold(&store, &session, &claim).await.get() > theirs);
    });
}

#[test]
fn a_time_namespace_does_not_shift_a_lease() {
    if let Some(file) = role() {
        return hold_in_another_process(&file, LONG, false);
    }
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut elsewhere = std::process::Command::new("unshare");
    elsewhere.args(["--time", "--boottime", "1000000", "--fork", "--kill-child"]);
    elsewhere.arg(std::env::current_exe().unwrap());
    let test = "processes::a_time_namespace_does_not_shift_a_lease";
    let mut other = Other::run(elsewhere, test, file.to_str().unwrap());
    other.hear();
    block_on(async {
        let store = Sqlite::at(&file).unwrap();
        let line = store.inspect(&claim("k").key).await.unwrap();
        let left = line.holders[0].left.unwrap();
        assert!(left <= LONG && left > LONG / 2, "{left:?}");
    });
}

/// Adds one to a number in a file, in two steps that others must not come between.
fn add_one(counter: &Path, fence: u64) {
    let text = std::fs::read_to_string(counter).unwrap();
    let (count, last) = text.split_once(' ').unwrap();
    let (count, last): (u64, u64) = (count.parse().unwrap(), last.parse().unwrap());
    assert!(fence > last, "fence {fence} after {last}");
    std::thread::yield_now();
    std::fs::write(counter, format!("{} {fence}", count + 1)).unwrap();
}

#[test]
fn contending_processes_never_meet_and_their_fences_grow() {
    const ROUNDS: u64 = 150;
    if let Some(directory) = role() {
        return block_on(async {
            let directory = Path::new(&directory);
            let store = Sqlite::at(directory.join("l.db")).unwrap();
            let session = store.open(&terms(LONG)).await.unwrap();
            for _ in 0..ROUNDS {
                let claim = claim("counter");
                let fence = hold(&store, &session, &claim).await;
                add_one(&directory.join("counter"), fence.get());
                assert_eq!(store.leave(&session, &claim).await.unwrap(), Left::Released);
            }
            store.close(&session).await.unwrap();
        });
    }
    let root = tempfile::tempdir().unwrap();
    let counter = root.path().join("counter");
    std::fs::write(&counter, "0 0").unwrap();
    let test = "processes::contending_processes_never_meet_and_their_fences_grow";
    let others = [(); 3].map(|()| Other::start(test, root.path().to_str().unwrap()));
    others.into_iter().for_each(Other::join);
    let result = std::fs::read_to_string(&counter).unwrap();
    assert_eq!(result.split_once(' ').unwrap().0, (3 * ROUNDS).to_string());
}

#[test]
fn processes_that_start_at_once_on_a_new_file_agree_on_it() {
    if let Some(file) = role() {
        return block_on(async {
            hear();
            let store = Sqlite::at(file).unwrap();
            let session = store.open(&terms(LONG)).await.unwrap();
            say(&hold(&store, &session, &claim("k")).await.to_string());
            store.close(&session).await.unwrap();
        });
    }
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("deep/down/l.db");
    let test = "processes::processes_that_start_at_once_on_a_new_file_agree_on_it";
    let mut others = [(); 6].map(|()| Other::start(test, file.to_str().unwrap()));
    for other in &mut others {
        other.say("go");
    }
    let mut fences: Vec<u64> =
        others.iter_mut().map(|other| other.hear().parse().unwrap()).collect();
    others.into_iter().for_each(Other::join);
    fences.sort_unstable();
    fences.dedup();
    assert_eq!(fences.len(), 6, "each grant has a fence of its own");
    let left: Vec<_> =
        std::fs::read_dir(root.path().join("deep/down/l.db-peers")).unwrap().collect();
    assert!(left.is_empty(), "closed sessions leave nothing: {left:?}");
}

/// Fills a small filesystem, and empties it again.
async fn use_a_full_disk(directory: &Path) {
    let store = Sqlite::at(directory.join("l.db")).unwrap();
    let session = store.open(&terms(LONG)).await.unwrap();
    let filler = directory.join("filler");
    let mut block = vec![0; 1 << 20];
    while !block.is_empty() {
        use std::io::Write as _;
        let mut file = std::fs::File::options().append(true).create(true).open(&filler).unwrap();
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    let mut held = Vec::new();
    let error = loop {
        let claim = claim(&format!("key {}", held.len()));
        match store.enter(&session, &claim, Enter::Try).await {
            Ok(Place::Held(_)) => held.push(claim),
            Ok(place) => panic!("{place:?}"),
            Err(error) => break error,
        }
        assert!(held.len() < 100_000, "the disk is never full");
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(error.effect(), leasehold::Effect::None, "{error}");
    assert!(error.to_string().contains("space"), "{error}");

    std::fs::remove_file(&filler).unwrap();
    assert_eq!(
        store.renew(&session, &held).await.unwrap(),
        Renewed::Extended { lost: Vec::new() },
        "what was granted is still there"
    );
    hold_now(&store, &session, &claim("after")).await;
}

fn mount(arguments: &[&str]) {
    let mounted = std::process::Command::new("mount").args(arguments).status();
    assert!(
        mounted.expect("the test needs mount(8)").success(),
        "the test must be able to mount: run it as root"
    );
}

#[test]
fn a_full_disk_is_a_clear_error_and_no_loss() {
    if let Some(directory) = role() {
        mount(&["-t", "tmpfs", "-o", "size=1m", "none", &directory]);
        block_on(use_a_full_disk(directory.as_ref()));
        return say("done");
    }
    let root = tempfile::tempdir().unwrap();
    let test = "processes::a_full_disk_is_a_clear_error_and_no_loss";
    let mut other = Other::start_with_mounts(test, root.path().to_str().unwrap());
    assert_eq!(other.hear(), "done");
    other.join();
}

#[test]
fn a_filesystem_that_is_mounted_read_only_is_a_clear_error() {
    if let Some(directory) = role() {
        let [written, read] = ["written", "read"].map(|name| format!("{directory}/{name}"));
        for directory in [&written, &read] {
            std::fs::create_dir(directory).unwrap();
        }
        block_on(async {
            let store = Sqlite::at(Path::new(&written).join("old.db")).unwrap();
            store.open(&terms(LONG)).await.unwrap();
        });
        mount(&["--bind", &written, &read]);
        mount(&["-o", "remount,bind,ro", &read]);
        for name in ["old.db", "new.db"] {
            block_on(async {
                let store = Sqlite::at(Path::new(&read).join(name)).unwrap();
                let error = store.open(&terms(LONG)).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Full, "{name}: {error}");
                assert!(error.to_string().contains("read-only"), "{name}: {error}");
            });
        }
        return say("done");
    }
    let root = tempfile::tempdir().unwrap();
    let test = "processes::a_filesystem_that_is_mounted_read_only_is_a_clear_error";
    let mut other = Other::start_with_mounts(test, root.path().to_str().unwrap());
    assert_eq!(other.hear(), "done");
    other.join();
}
