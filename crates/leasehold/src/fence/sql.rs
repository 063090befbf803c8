//! PostgreSQL and `SQLite`: checked and advanced in the transaction of the write itself.
//!
//! The texts are plain SQL (`leasehold fence sql` prints them): run them once, as a migration.
//!
//! **PostgreSQL**, in the transaction of the write and before everything else in it:
//!
//! ```sql
//! BEGIN;
//! SELECT public.leasehold_fence('jobs/42', 34);  -- or fails with SQLSTATE LHF01
//! UPDATE jobs SET state = 'done' WHERE id = 42;
//! COMMIT;
//! ```
//!
//! - Whoever is accepted keeps the resource's row locked until the transaction ends: transactions
//!   on one resource follow one another, each sees what the one before it left, also when it is
//!   the first ever. A transaction that rolls back has not been seen.
//! - Under `REPEATABLE READ` and `SERIALIZABLE` a transaction that had to wait may fail with 40001,
//!   as always there; the next attempt is judged anew.
//! - A transaction that writes several resources calls it for each, in one order everywhere, or it
//!   may deadlock with another (40P01: run it again).
//! - Call it first: in `READ COMMITTED` each *statement* sees what was committed before it began,
//!   and the ones after this call began after the wait.
//!
//! **A trigger** fences a table whoever writes it ([`postgres_table`]). It takes the fence from
//! `SET LOCAL leasehold.fence = 34`, or else from a column of the written row. A `DELETE` needs the
//! former. An `UPDATE` that leaves the column alone counts as under the row's own fence: give no
//! column where that is not enough, and writers without a fence are refused (SQLSTATE LHF02).
//!
//! **`SQLite`** has neither functions in SQL nor variables of a transaction; a view with a trigger is
//! the function:
//!
//! ```sql
//! BEGIN IMMEDIATE;
//! INSERT INTO leasehold_fence (resource, token) VALUES ('jobs/42', 34);  -- or fails
//! UPDATE jobs SET state = 'done' WHERE id = 42;
//! COMMIT;
//! ```
//!
//! It fails with "leasehold: stale fence" and leaves the transaction open, as `SQLite` does: roll it
//! back, never commit it. [`sqlite_table`] fences a table's inserts and updates by a column,
//! whatever the program makes of the error.
//!
//! A fence is a `u64`, and both databases count to 2^63 − 1: those of every store stay far below
//! that, and greater ones are refused, not wrapped.
//!
//! ```
//! use leasehold::fence::sql;
//!
//! let migration = sql::postgres("public")? + &sql::postgres_table("public", &sql::Table {
//!     name: "jobs",
//!     key: Some("id"),
//!     column: Some("fence"),
//! })?;
//! assert!(migration.contains(r#"ON "jobs""#));
//! # Ok::<(), leasehold::Error>(())
//! ```

use leasehold_core::StaleFence;

use crate::error::{Error, ErrorKind, Result};

/// The SQLSTATE of a refusal in PostgreSQL.
pub const STALE: &str = "LHF01";

/// The SQLSTATE of a write without a fence in PostgreSQL.
pub const MISSING: &str = "LHF02";

/// A table whose writes are fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    /// Its name, which is also the resource's; `schema.name` for one in another schema.
    pub name: &'a str,
    /// The column that tells the resources apart, if each row is one: they are `name/value` then.
    pub key: Option<&'a str>,
    /// The column that the writer's fence is in.
    pub column: Option<&'a str>,
}

/// What a PostgreSQL database needs, in `schema`: a table, the function `leasehold_fence` and the
/// trigger function. Whoever writes needs `SELECT`, `INSERT` and `UPDATE` on `leasehold_fences`.
///
/// # Errors
///
/// [`ErrorKind::Invalid`] for a name that cannot be written into it.
pub fn postgres(schema: &str) -> Result<String> {
    Ok(fill(include_str!("postgres.sql"), &[("schema", &identifier(schema)?)]))
}

/// What fences a table there, after [`postgres`] with the same schema.
///
/// # Errors
///
/// [`ErrorKind::Invalid`] for a name that cannot be written into it.
pub fn postgres_table(schema: &str, table: &Table<'_>) -> Result<String> {
    let values = [
        ("schema", identifier(schema)?),
        ("table", path(table.name)?),
        ("resource", literal(table.name)),
        ("key", literal(checked(table.key.unwrap_or_default())?)),
        ("column", literal(checked(table.column.unwrap_or_default())?)),
    ];
    let values: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Ok(fill(include_str!("postgres_table.sql"), &values))
}

/// What a `SQLite` database needs.
pub const SQLITE: &str = include_str!("sqlite.sql");

/// What fences a table there, after [`SQLITE`]. The column has to be one of integers.
///
/// # Errors
///
/// [`ErrorKind::Invalid`] without a column for the fence, and for a name that cannot be written
/// into it.
pub fn sqlite_table(table: &Table<'_>) -> Result<String> {
    let Some(column) = table.column else {
        return Err(invalid("a SQLite table is fenced by a column of it: say which"));
    };
    // SQLite's triggers are in the schema of their table, and cannot name another.
    let resource = |row: &str| -> Result<String> {
        Ok(match table.key {
            None => literal(table.name),
            Some(key) => {
                format!("{} || {row}.{}", literal(&format!("{}/", table.name)), identifier(key)?)
            }
        })
    };
    let values = [
        ("table", identifier(table.name)?),
        ("column", identifier(column)?),
        ("insert_trigger", identifier(&format!("leasehold_fence_insert_{}", table.name))?),
        ("update_trigger", identifier(&format!("leasehold_fence_update_{}", table.name))?),
        ("new_resource", resource("NEW")?),
        ("old_resource", resource("OLD")?),
    ];
    let values: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Ok(fill(include_str!("sqlite_table.sql"), &values))
}

/// Reads a refusal of PostgreSQL from the SQLSTATE and the detail of an error; `None` for any
/// other.
#[must_use]
pub fn refusal(resource: &str, sqlstate: &str, detail: &str) -> Option<StaleFence> {
    if sqlstate == STALE { StaleFence::parse(resource, detail) } else { None }
}

/// Puts values where a colon and their names are. In one pass: a value is not looked at again.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once(':') {
        filled.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        let (name, beyond) = after.split_at(end.unwrap_or(after.len()));
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            filled.push_str(value);
            rest = beyond;
        } else {
            filled.push(':');
            rest = after;
        }
    }
    filled + rest
}

/// `schema.name`, each part quoted.
fn path(name: &str) -> Result<String> {
    let parts = name.split('.').map(identifier).collect::<Result<Vec<_>>>()?;
    Ok(parts.join("."))
}

fn identifier(name: &str) -> Result<String> {
    if name.is_empty() {
        return Err(invalid("a name is empty"));
    }
    Ok(format!("\"{}\"", checked(name)?.replace('"', "\"\"")))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Names are also written into comments, which a line break ends, and into bodies of functions,
/// which two dollars end.
fn checked(name: &str) -> Result<&str> {
    if name.contains(char::is_control) || name.contains("$$") {
        return Err(invalid("a name contains a control character or two dollars"));
    }
    Ok(name)
}

fn invalid(detail: &str) -> Error {
    Error::new(ErrorKind::Invalid, "write the SQL of a fence", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out() {
        let table = Table { name: "a\"b'c", key: Some("k'"), column: Some("f\"") };
        let text = postgres_table("s\"", &table).unwrap();
        assert!(text.contains(r#"ON "a""b'c""#), "{text}");
        assert!(text.contains(r#""s""".leasehold_fence_write('a"b''c', 'k''', 'f"')"#), "{text}");
        let text = sqlite_table(&table).unwrap();
        assert!(text.contains(r#"VALUES ('a"b''c/' || NEW."k'", NEW."f""");"#), "{text}");
        for bad in ["", "a\nb", "$$"] {
            assert!(postgres(bad).is_err(), "{bad:?}");
            assert!(postgres_table("public", &Table { name: bad, ..table }).is_err(), "{bad:?}");
            assert!(sqlite_table(&Table { name: bad, ..table }).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_is_not_filled_again() {
        assert_eq!(fill("a :x::y :z", &[("x", ":z"), ("z", "1")]), "a :z::y 1");
    }

    #[test]
    fn nothing_is_left_to_fill() {
        let table = Table { name: "t", key: None, column: Some("f") };
        for text in [
            postgres("public").unwrap(),
            postgres_table("public", &table).unwrap(),
            sqlite_table(&table).unwrap(),
        ] {
            for name in ["schema", "table", "resource", "key", "column", "new_resource"] {
                assert!(!text.contains(&format!(":{name}")), "{name}: {text}");
            }
        }
    }
}
