//! The scripts, each of which is one atomic step of the store.

use std::sync::LazyLock;

/// A script, and the name that the server knows it by.
#[derive(Debug)]
pub(in crate::stores) struct Script {
    pub(in crate::stores) text: &'static str,
    pub(in crate::stores) hash: String,
}

impl Script {
    pub(in crate::stores) fn new(text: &'static str) -> Self {
        Self { text, hash: ::redis::Script::new(text).get_hash().to_owned() }
    }
}

macro_rules! script {
    ($($part:literal),+) => {
        LazyLock::new(|| {
            Script::new(concat!($(include_str!(concat!("scripts/", $part, ".lua")), "\n"),+))
        })
    };
}

// The functions that only contention needs come after the uncontended case: defining them costs
// the server time.
pub(in crate::stores) static ENTER: LazyLock<Script> =
    script!("common", "enter", "line", "ask", "enter_contended");
pub(in crate::stores) static ENTER_ALL: LazyLock<Script> =
    script!("common", "line", "ask", "enter_all");
pub(in crate::stores) static LEAVE: LazyLock<Script> =
    script!("leave", "common", "line", "leave_contended");
pub(in crate::stores) static AMEND: LazyLock<Script> = script!("common", "line", "amend");
pub(in crate::stores) static BEAT: LazyLock<Script> = script!("common", "line", "beat");
pub(in crate::stores) static REVOKE: LazyLock<Script> = script!("common", "line", "revoke");
pub(in crate::stores) static INSPECT: LazyLock<Script> = script!("common", "line", "inspect");
pub(in crate::stores) static READ: LazyLock<Script> = script!("read");
pub(in crate::stores) static WRITE: LazyLock<Script> = script!("common", "line", "write");

pub(in crate::stores) fn all() -> [&'static Script; 9] {
    [&*ENTER, &*ENTER_ALL, &*LEAVE, &*AMEND, &*BEAT, &*REVOKE, &*INSPECT, &*READ, &*WRITE]
}
