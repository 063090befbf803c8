//! `leasehold release`: the end of a script's hold.

use leasehold::Released;
use serde::Serialize;

use super::{Outcome, grant, plain_client};
use crate::args::{Common, Release};
use crate::exit::{self, Failure};
use crate::output::Output;

/// What `--json` prints. Field names are part of the interface.
#[derive(Serialize)]
struct Report<'a> {
    key: &'a str,
    held: bool,
}

/// Runs the verb.
pub(crate) async fn release(
    args: &Release,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let held = client.release(&grant(&args.granted)?).await? == Released::Held;
    let key = args.granted.key.as_str();
    if args.granted.json {
        output.json(&Report { key, held })?;
    }
    match held {
        true => Ok(Outcome::OK),
        false if args.granted.json => Ok(Outcome::Code(exit::LOST)),
        false => {
            let message = format!("{key:?} was not ours any more: somebody else may have held it");
            Err(Failure::new(exit::LOST, message))
        }
    }
}
