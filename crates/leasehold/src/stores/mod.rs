//! The lock services.

pub(crate) mod mailbox;
pub mod memory;

pub use memory::Memory;
