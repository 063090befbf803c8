//! The lock services.

pub(crate) mod mailbox;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;

pub use memory::Memory;
#[cfg(feature = "redis")]
pub use redis::Redis;
