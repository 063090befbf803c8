//! One PostgreSQL database (12 or newer; tested with 15).
mod config;
mod store;
mod wire;

pub use store::Postgres;

/// The SQL that makes the tables and functions, in the schema `leasehold`.
pub const SCHEMA_SQL: &str = include_str!("schema.sql");

/// [`SCHEMA_SQL`] for a schema of another name.
#[must_use]
pub fn schema_sql(schema: &str) -> String {
    SCHEMA_SQL.replace("leasehold", schema)
}
