//! Runs a case on a store, and the macros that make a test of each.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::{Bench, CASES, turmoil};

/// Past this a case hangs.
const LIMIT: Duration = Duration::from_mins(4);

/// One promise of the contract, and how it is put to the test.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it says, as a test's name.
    pub name: &'static str,
    /// Panics when the store breaks the promise.
    pub run: for<'a> fn(&'a dyn Bench) -> BoxFuture<'a, ()>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// Runs the case of that name on a fresh bench, on two threads.
///
/// # Panics
///
/// When the store breaks the promise, when the case does not end, and when there is no such case.
pub fn run<B: Bench>(name: &str, bench: impl AsyncFnOnce() -> B) {
    let case = CASES
        .iter()
        .find(|case| case.name == name)
        .unwrap_or_else(|| panic!("the suite has no case called {name}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let whole = async {
        let bench = bench().await;
        // Whoever asks for more rounds of a case means it.
        let limit = LIMIT + Duration::from_secs(30) * turmoil::rounds();
        let ended = tokio::time::timeout(limit, (case.run)(&bench)).await;
        assert!(ended.is_ok(), "{name} does not end: given up after {limit:?}");
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(whole)));
    // A task that spins would hold up an orderly end for ever, and hide why the case failed.
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Makes a test of every case of the suite for one store, in a module of that name.
///
/// `$bench` is an async function without arguments that returns a fresh [`Bench`](crate::Bench).
///
/// See the example of the [crate](crate).
#[macro_export]
macro_rules! suite {
    ($store:ident, $bench:expr) => {
        $crate::each_case! { [$crate::__suite] [$store, $bench] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ([$store:ident, $bench:expr] $($module:ident: $($case:ident),+;)+) => {
        mod $store {
            #[allow(unused_imports)]
            use super::*;

            $($(
                #[test]
                fn $case() {
                    $crate::run(stringify!($case), $bench);
                }
            )+)+

            #[test]
            fn every_case_of_the_suite_is_a_test_here() {
                let here = [$($(stringify!($case)),+),+];
                let suite: Vec<&str> = $crate::CASES.iter().map(|case| case.name).collect();
                assert_eq!(here.as_slice(), suite);
            }
        }
    };
}
