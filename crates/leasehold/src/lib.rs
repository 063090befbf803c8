//! .

pub mod clock;
pub mod error;
mod random;
pub mod store;
pub mod stores;

pub use error::{Effect, Error, ErrorKind, Result};
pub use leasehold_core as core;
pub use store::Store;
