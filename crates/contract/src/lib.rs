//! The suite that every store of leasehold passes.

mod actor;
pub mod bench;
mod cases;
pub mod chaos;
pub mod history;
mod run;
pub mod worker;

pub use bench::{Bench, Reach, Server};
pub use cases::CASES;
pub use chaos::Chaos;
pub use run::{Case, run};
