//! Runs a case on a store, and the macros that make a test of each.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::{Bench, CASES};

/// Past this a case hangs.
const LIMIT: Duration = Duration::from_secs(240);

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
    runtime.block_on(async {
        let bench = bench().await;
        if tokio::time::timeout(LIMIT, (case.run)(&bench)).await.is_err() {
            panic!("{name} does not end: given up after {LIMIT:?}");
        }
    });
}

/// Makes a test of every case of the suite for one store, in a module of that name.
///
/// `$bench` is an async function without arguments that returns a fresh [`Bench`](crate::Bench).
///
/// ```ignore
/// leasehold_contract::suite!(memory, new_bench);
/// ```
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
