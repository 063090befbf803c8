//! A page for each primitive: what it is for, how it is used from Rust and from the shell, and what
//! to know before it is relied on. That of the limiter is [its module](crate::limiter).

#[doc = include_str!("../docs/rwlock.md")]
pub mod rwlock {}

#[doc = include_str!("../docs/semaphore.md")]
pub mod semaphore {}

#[doc = include_str!("../docs/election.md")]
pub mod election {}

#[doc = include_str!("../docs/job.md")]
pub mod job {}

#[doc = include_str!("../docs/many.md")]
pub mod many {}
