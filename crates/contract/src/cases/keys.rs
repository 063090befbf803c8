//! Any text is a key of its own.

use std::collections::BTreeSet;

use leasehold::{Effect, ErrorKind};
use leasehold_core::{Enter, Fence, Key, Left, Note, Place};

use crate::Bench;
use crate::actor::{Actor, claim, is_lost, key, note, soon};

/// Keys that some store, shell, language or terminal would take for something else. Different
/// ones stay different, however alike they look.
fn hostile() -> Vec<String> {
    let mut keys: Vec<String> = [
        "a}b",
        "a{b",
        "{}x",
        "{}",
        "{u}:1",
        "{u}:2",
        "{a}{b}",
        "}{",
        "{",
        "}",
        "{{a}}",
        "x{y", //
        "*",
        "?",
        "[",
        "]",
        "[a-z]",
        "*?[",
        "a*",
        "\\",
        "\\*",
        "\\\\",
        "^",
        "$", //
        "'",
        "''",
        "\"",
        "`",
        "';--",
        "'); DROP TABLE claims;--",
        "\" OR \"\"=\"",
        "%",
        "_",
        "%s", //
        "\n",
        "\r\n",
        "\t",
        " ",
        "  ",
        "a ",
        " a",
        "a",
        "A",
        "a\n",
        "\u{1b}[31mred",
        "\u{7f}", //
        "../../etc/passwd",
        "/",
        "//",
        "./",
        ".",
        "..",
        "C:\\",
        "a/b",
        "a//b",
        "a:b",
        ":",
        "::", //
        "]]--",
        "return redis.call('FLUSHALL')",
        "KEYS[1]",
        "{{7*7}}",
        "${HOME}",
        "$(reboot)", //
        "leasehold:",
        "leasehold:line:k",
        "lock:k",
        "0",
        "-1",
        "1e309", //
        "nil",
        "null",
        "NULL",
        "true",
        "undefined",
        "NaN", //
        "é",
        "e\u{301}",
        "ﬁ",
        "fi",
        "ß",
        "SS",
        "ss",
        "İ",
        "i",
        "ı",
        "Å",
        "\u{212b}",
        "Å", //
        "👩‍🔧",
        "👩",
        "🔧",
        "鍵",
        "\u{202e}abc",
        "\u{feff}",
        "\u{feff}k",
        "k\u{200b}",
        "k",
        "\u{1}", //
        "\u{fffd}",
        "\u{10ffff}",
        "\u{e000}",
        "\u{d7ff}",
        "\u{80}",
        "\u{ff}",
    ]
    .map(str::to_owned)
    .into();
    keys.push("k".repeat(512));
    keys.push("k".repeat(511));
    keys.push("鍵".repeat(170));
    keys.push(format!("{}}}", "{".repeat(511)));
    keys.push("'".repeat(512));
    keys.push("\\".repeat(512));
    keys.sort();
    keys.dedup();
    keys
}

pub(crate) async fn hostile_keys_are_keys_like_any_other(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let keys = hostile();
    let holds: Vec<_> = keys.iter().map(|text| claim(text)).collect();
    let mut fences: Vec<Fence> = Vec::new();
    // All at once: were two of them one, the second would be refused.
    for hold in &holds {
        fences.push(alice.holds(hold).await);
    }
    let mut listed: Vec<String> = Vec::new();
    for found in alice.store.keys("").await.expect("lists") {
        listed.push(found.as_str().to_owned());
    }
    assert_eq!(listed, keys, "all are listed, verbatim and in the order of their bytes");
    let waiters: Vec<_> = keys.iter().map(|text| claim(text)).collect();
    for (hold, waiter) in holds.iter().zip(&waiters) {
        let ahead = bob.waits(waiter).await;
        assert_eq!(ahead.holder.and_then(|holder| holder.claim), Some(hold.id), "{:?}", hold.key);
        assert_eq!(bob.line(hold.key.as_str()).await.0, vec![hold.id], "{:?}", hold.key);
    }
    let renewed = alice.renew(&holds).await;
    for hold in &holds {
        assert!(!is_lost(&renewed, hold), "{:?}", hold.key);
        alice.leave(hold).await;
    }
    for (waiter, before) in waiters.iter().zip(fences) {
        assert!(bob.until_held(waiter).await > before, "{:?}", waiter.key);
    }
}

pub(crate) async fn keys_are_listed_by_literal_prefix(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    let keys = hostile();
    for text in &keys {
        alice.holds(&claim(text)).await;
    }
    for prefix in
        ["", "a", "*", "[a", "\\", "{", "%", "_", "'", "leasehold:", "none of them", "é", "e"]
    {
        let listed = alice.store.keys(prefix).await.expect("lists");
        let expected: Vec<Key> =
            keys.iter().filter(|text| text.starts_with(prefix)).map(|text| key(text)).collect();
        assert_eq!(listed, expected, "beginning with {prefix:?}");
    }
}

pub(crate) async fn a_name_that_the_store_keeps_for_itself_is_refused_or_free(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    for text in ["leasehold:{x}:meta:k", "leasehold:{7wo}:line:k", "leasehold:{}:wait:k"] {
        let hold = claim(text);
        match alice.enter(&hold, Enter::Wait).await {
            Ok(place) => {
                assert!(matches!(place, Place::Held(_)), "{place:?}");
                assert_eq!(alice.leave(&hold).await, Left::Released);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
                assert_eq!(error.effect(), Effect::None, "{error}");
                assert_eq!(error.key(), Some(&hold.key), "{error}");
                assert_eq!(error.store(), Some(alice.store.to_string().as_str()), "{error}");
            }
        }
    }
}

pub(crate) async fn owners_and_notes_come_back_verbatim(bench: &dyn Bench) {
    let texts = ["", "plain", "'; DROP TABLE x;--", "\u{1b}[2J\n\t\"{}\\", "👩‍🔧 鍵", "a:b,c=d|e%00"];
    let longest = "n".repeat(Note::MAX_BYTES);
    for (n, text) in texts.into_iter().chain([longest.as_str()]).enumerate() {
        let store = bench.handle();
        let session =
            store.open(&crate::actor::terms(crate::actor::PATIENT, text)).await.expect("opens");
        let actor = Actor { store, session };
        let k = format!("{n}");
        let mut hold = claim(&k);
        hold.note = note(text);
        actor.holds(&hold).await;
        let line = actor.inspect(&k).await;
        assert_eq!(line.holders[0].owner.as_str(), text);
        assert_eq!(line.holders[0].note.as_str(), text);
    }
}

pub(crate) async fn ten_thousand_keys_at_once(bench: &dyn Bench) {
    const KEYS: usize = 10_000;
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let holds: Vec<_> = (0..KEYS).map(|n| claim(&format!("job/{n:05}"))).collect();
    for some in holds.chunks(100) {
        futures::future::join_all(some.iter().map(|hold| alice.holds(hold))).await;
    }
    for attempt in holds.iter().step_by(997) {
        bob.refused(&claim(attempt.key.as_str())).await;
    }
    let batch = alice.store.guarantees().renew_batch.min(KEYS);
    for roll in holds.chunks(batch) {
        let renewed = alice.renew(roll).await;
        for hold in roll.iter().step_by(101) {
            assert!(!is_lost(&renewed, hold), "{renewed:?}");
        }
    }
    let listed = soon("a list of ten thousand", alice.store.keys("job/")).await.expect("lists");
    assert!(listed.iter().eq(holds.iter().map(|hold| &hold.key)), "{} listed", listed.len());
    let distinct: BTreeSet<&Key> = listed.iter().collect();
    assert_eq!(distinct.len(), KEYS);
    alice.close().await;
    for freed in holds.iter().step_by(997) {
        bob.holds(&claim(freed.key.as_str())).await;
    }
}
