//! The rules of leasehold, and nothing else: no IO, no async, no clock reads and no randomness of
//! its own. Time and random bytes are arguments, so that years of virtual time and millions of
//! seeds run in seconds.
//!
//! One rule is at the centre ([`mod@line`]): *you hold when the units ahead of you in line plus your
//! own fit within the limit.* Every primitive is a thin layer over it, and every store implements
//! it once; [`Table`] is the rule as a plain data structure, which is both the in-memory store and
//! the oracle that the other stores are compared with.

pub mod backoff;
pub mod claim;
pub mod fence;
pub mod key;
pub mod lease;
pub mod line;
pub mod moment;
pub mod place;
pub mod quorum;
pub mod rate;
pub mod record;
pub mod schedule;
pub mod table;

pub use backoff::Backoff;
pub use claim::{Claim, ClaimError, ClaimId, Note, SessionId};
pub use fence::{Fence, FenceError, StaleFence};
pub use key::{Key, KeyError};
pub use lease::{Lease, Timing, TimingError};
pub use moment::Moment;
pub use place::{Ahead, Enter, Left, Line, Party, Place, Renewed, Terms, Together};
pub use rate::{Decision, Quota, Rate, RateError};
pub use record::{Provided, Reading, Record, RecordError, Version, Written};
pub use table::Table;
