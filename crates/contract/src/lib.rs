//! The suite that every store of leasehold passes: usable for a store of your own.
//!
//! A store brings a [`Bench`]: fresh handles to a fresh service, and ways to hurt it. The macro
//! [`suite!`] then makes a test of every case; the list of cases exists once, so a case that is
//! added is added for all stores, and a store cannot leave one out. What a store lacks (a line,
//! counting) is not skipped either: the case asserts that it is refused, by name.
//!
//! ```no_run
//! use leasehold_contract::{Bench, Link, Reach, Server};
//! # use std::sync::Arc;
//! # use futures::future::{BoxFuture, FutureExt};
//! use leasehold::{Key, Store, stores::Memory};
//!
//! #[derive(Debug)]
//! struct MyBench(Memory);
//!
//! impl Bench for MyBench {
//!     fn handle(&self) -> Arc<dyn Store> {
//!         Arc::new(self.0.clone())
//!     }
//!     fn sever<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, ()> {
//!         async move {
//!             for holder in self.0.inspect(key).await.unwrap().holders {
//!                 self.0.revoke(key, &holder.claim.unwrap()).await.unwrap();
//!             }
//!         }
//!         .boxed()
//!     }
//!     fn reach(&self) -> Reach {
//!         Reach::Process
//!     }
//!     fn worker(&self) -> std::process::Command {
//!         // A program of yours whose `main` is `leasehold_contract::worker::main`.
//!         std::process::Command::new("target/debug/my-worker")
//!     }
//!     fn server(&self) -> Option<&dyn Server> {
//!         None
//!     }
//!     fn link(&self) -> Option<Box<dyn Link>> {
//!         None
//!     }
//!     fn secret(&self) -> Option<&str> {
//!         None
//!     }
//! }
//!
//! async fn bench() -> MyBench {
//!     MyBench(Memory::new())
//! }
//!
//! leasehold_contract::suite!(my_store, bench);
//! # fn main() {}
//! ```
//!
//! # The safety rules, and the cases that put them to the test
//!
//! | rule | cases, each named `rule_N_…` |
//! |---|---|
//! | 1 nobody ends or revives another's claim | `nobody_leaves_for_another`, `a_second_leave_does_not_free_the_next_holder`, `nothing_revives_a_lapsed_hold` |
//! | 2 deadlines count from before the send | `a_late_grant_is_no_grant_and_is_given_back`, `a_slow_answer_moves_no_deadline`, `a_hand_over_counts_from_the_last_acknowledged_renewal` |
//! | 3 a guard knows its loss by itself | `loss_comes_before_the_deadline_whatever_the_store_does`, `…_with_the_server_stopped_or_gone`, `the_first_check_after_a_stop_fails` |
//! | 4 `check` and `run` stop in time | `check_holds_until_the_loss_and_never_after`, `run_drops_its_future_on_loss` |
//! | 5 fences grow | `fences_grow_through_every_way_a_hold_ends`, `…_hand_overs`, `…_reopening`, `…_a_restart_of_the_server`, `fences_of_concurrent_grants_are_unique` |
//! | 6 cancel safety | `a_dropped_enter_is_undone_by_a_leave`, `a_dropped_enter_alone_lasts_one_ttl_at_most`, `a_late_enter_leaves_no_lasting_ghost`, `dropping_a_lock_at_any_await_leaves_nothing`, `…_a_release_…`, `…_a_run_…`, `an_enter_that_lands_after_its_caller_gave_up_is_left` |
//! | 7 no lock without a lease | `renewal_stops_with_the_last_handle`, `max_hold_ends_what_renewals_would_keep` |
//! | 8 bad timing is refused at construction | `bad_timing_is_refused_at_construction`, `a_ttl_below_the_minimum_is_refused_by_name` |
//! | 9 tokens and passwords stay secret | `no_token_and_no_password_is_ever_shown`, `an_examination_shows_no_secret` |
//!
//! What a store promises beyond the rules is in its
//! [`Guarantees`](leasehold::Guarantees); `tests/guarantees.rs` names the test that shows each
//! property of each store of leasehold, and fails when there is none.
//!
//! A test of this crate fails when a rule has no case, when a case is written but not listed, and
//! when a store of leasehold does not run the suite.
//!
//! # Processes in turmoil
//!
//! `processes_in_turmoil_keep_the_rules` runs a fleet of workers that lock by mutexes, semaphores,
//! and as readers and writers, while they are killed, stopped, cut off and slowed down, and the
//! server stands still; then it judges what they wrote down. Which faults come when is drawn from a
//! seed, which is printed. Two variables of the environment govern it:
//!
//! | variable | meaning |
//! |---|---|
//! | `LEASEHOLD_TURMOIL_ROUNDS` | how many bursts of faults: 2 unless set. Ask for hundreds by `cargo test`, which does not end long tests |
//! | `LEASEHOLD_TURMOIL_SEED` | the seed of an earlier run |
//!
//! # Time in the cases
//!
//! No case asserts that anything is fast. What must not happen before a moment is asserted
//! exactly; what must happen at all has half a minute. Where a case depends on renewals in time
//! it notices a stall of the machine and begins again.

mod actor;
pub mod bench;
mod cases;
pub mod chaos;
pub mod history;
mod run;
mod turmoil;
pub mod worker;

pub use bench::{Bench, Link, Reach, Server, Weather};
pub use cases::CASES;
pub use chaos::Chaos;
pub use run::{Case, run};
