//! `leasehold slots`: how many may hold a key at a time.

use super::{Outcome, plain_client};
use crate::args::{Common, Slots};
use crate::exit::{self, Failure};
use crate::output::{Output, printable};

/// Runs the verb.
pub(crate) async fn slots(
    args: &Slots,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let slots = plain_client(common)?.slots(args.key.clone())?;
    let key = printable(args.key.as_str());
    if let Some(n) = args.n {
        slots.set(n).await?;
        output.note(format_args!("{key} has {n} slots from now on"));
        return Ok(Outcome::OK);
    }
    if let Some(n) = slots.get().await? {
        output.print(&format!("{n}\n"))?;
        return Ok(Outcome::OK);
    }
    output.note(format_args!("nobody has said how many slots {key} has"));
    Ok(Outcome::Code(exit::DOUBTFUL))
}
