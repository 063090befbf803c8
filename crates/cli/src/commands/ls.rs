//! `leasehold ls`: the keys that somebody holds or waits for.

use serde::Serialize;

use super::{Outcome, inspect, plain_client};
use crate::args::{Common, Ls};
use crate::exit::Failure;
use crate::output::{Output, printable};

/// What `--json` prints for each key. Field names are part of the interface.
#[derive(Serialize)]
struct Listed<'a> {
    key: &'a str,
}

/// Runs the verb.
pub(crate) async fn ls(args: &Ls, common: &Common, output: Output) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let store = client.store();
    let name = store.to_string();
    for key in store.keys(&args.prefix).await? {
        let shown = key.as_str();
        match (args.long, args.json) {
            (false, false) => output.print(&format!("{}\n", printable(shown)))?,
            (false, true) => output.json(&Listed { key: shown })?,
            (true, json) => {
                let line = store.inspect(&key).await?;
                if json {
                    output.json(&inspect::Shown::new(shown, &name, &line))?;
                } else {
                    output.print(&inspect::human(shown, &line))?;
                }
            }
        }
    }
    Ok(Outcome::OK)
}
