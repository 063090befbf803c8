//! The scripts, each of which is one atomic step of the store.

use std::sync::LazyLock;

/// A script, and the name that the server knows it by.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) hash: String,
}

macro_rules! script {
    ($($part:literal),+) => {
        LazyLock::new(|| {
            let text = concat!($(include_str!(concat!("scripts/", $part, ".lua")), "\n"),+);
            Script { text, hash: ::redis::Script::new(text).get_hash().to_owned() }
        })
    };
}

// The functions that only contention needs come after the uncontended case: defining them costs
// the server time.
pub(super) static ENTER: LazyLock<Script> = script!("common", "enter", "line", "enter_contended");
pub(super) static LEAVE: LazyLock<Script> = script!("common", "line", "leave");
pub(super) static BEAT: LazyLock<Script> = script!("common", "line", "beat");
pub(super) static REVOKE: LazyLock<Script> = script!("common", "line", "revoke");
pub(super) static INSPECT: LazyLock<Script> = script!("common", "line", "inspect");

pub(super) fn all() -> [&'static Script; 5] {
    [&*ENTER, &*LEAVE, &*BEAT, &*REVOKE, &*INSPECT]
}
