//! The embedded store as a whole: through the contract, from several handles and processes.
#![cfg(feature = "sqlite")]
#![allow(missing_docs)]

mod cost;
mod examine;
mod file;
mod processes;
mod support;
mod waits;
