#![doc = include_str!("../postgres.md")]

mod config;
mod examine;
mod store;
mod wire;

pub use store::Postgres;

use crate::property::{Properties, Property};

/// What it promises; the page above says under which conditions, and what not.
pub(super) const PROPERTIES: Properties = Properties::of(&[
    Property::Processes,
    Property::Machines,
    Property::Line,
    Property::Wakes,
    Property::Counting,
    Property::Records,
    Property::SurvivesCrash,
    Property::SurvivesPowerLoss,
    Property::FencesSurviveCrash,
    Property::FencesSurviveDataLoss,
]);

/// The SQL that makes the tables and functions, in the schema `leasehold`. It may be run again.
pub const SCHEMA_SQL: &str =
    concat!(include_str!("tables.sql"), "\n", include_str!("functions.sql"));

/// [`SCHEMA_SQL`] for a schema of another name, as `?schema=` allows it.
#[must_use]
pub fn schema_sql(schema: &str) -> String {
    SCHEMA_SQL.replace("leasehold", schema)
}
