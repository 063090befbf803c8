//! Ten instances start at once, one of them migrates the database, and all go on once it has. See
//! docs/recipes/migration.md.
//!
//! `cargo run --example migration -- [URL]`

use leasehold::{Begin, Client, Error, ErrorKind, Result, Schedule};

/// Brings the database to `version` by `migrate`, or waits for the instance that does.
///
/// # Errors
///
/// When the store cannot be reached, and when the migration failed, here or elsewhere: then this
/// instance must not serve.
pub(crate) async fn ready(
    client: &Client,
    version: &str,
    migrate: impl AsyncFnOnce(u64) -> bool,
) -> Result<&'static str> {
    let job = client.job("schema", Schedule::version(version)?)?;
    match job.begin_or_wait().await? {
        Begin::Turn(turn) => {
            // Let the database check the fence in the transaction of the migration: see
            // docs/fences.md.
            if migrate(turn.fence().get()).await {
                turn.succeed().await?;
                return Ok("migrated");
            }
            turn.fail().await?;
            Err(failed("it failed here"))
        }
        Begin::Ran(_) => Ok("was migrated"),
        other => Err(failed(&format!("{other:?}"))),
    }
}

fn failed(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "migrate", why)
}

#[tokio::main]
#[allow(dead_code, reason = "not a program where a test uses it")]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "sqlite:".to_owned());
    let client = Client::open(&url)?;
    let migrate = async |fence| {
        println!("ALTER TABLE … under fence {fence}");
        true
    };
    println!("{}", ready(&client, "v42", migrate).await?);
    client.close().await
}
