#![doc = include_str!("lib.md")]

pub mod blocking;
mod checkup;
mod client;
pub mod clock;
mod detached;
mod election;
mod error;
mod examination;
pub mod fence;
mod forget;
mod guard;
pub mod guide;
mod job;
mod kept;
pub mod limiter;
mod lock;
mod many;
mod property;
mod random;
mod rwlock;
mod semaphore;
mod session;
mod slots;
mod store;
pub mod stores;

pub use client::{Client, ClientBuilder, IntoKeyError};
pub use detached::{Grant, Standing};
pub use election::{Election, Leader, Leadership, Observed};
pub use error::{Effect, Error, ErrorKind, Result};
pub use examination::{ClockOffset, Examination, Examined, Finding, Probe, RoundTrip, Severity};
pub use forget::Forgotten;
pub use guard::{Guard, Released};
pub use job::{Begin, Job, Run, Schedule, Turn};
pub use leasehold_core as core;
pub use leasehold_core::{
    Ahead, Claim, ClaimError, ClaimId, Enter, Fence, FenceError, Key, KeyError, Left, Line, Moment,
    Note, Party, Place, Provided, Reading, Record, RecordError, Renewed, SessionId, Terms, Timing,
    TimingError, Together, Version, Written,
};
pub use limiter::{Away, Decision, Limiter, Quota, Rate, RateError};
pub use lock::{Attempt, Lock};
pub use property::{Properties, Property};
pub use rwlock::RwLock;
pub use semaphore::Semaphore;
pub use session::Wait;
pub use slots::Slots;
pub use store::{Guarantees, LeaseScope, Store};

/// Runs a documentation example.
#[doc(hidden)]
pub fn doc_test(example: impl Future<Output = Result<()>>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(example)
        .expect("the example");
}
