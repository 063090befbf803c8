//! `leasehold elect`: a command that runs while this node leads.

use super::Outcome;
use super::run::{Claimed, under};
use crate::args::{Common, Elect};
use crate::exit::Failure;
use crate::output::Output;

/// Runs the verb.
pub(crate) async fn elect(
    args: Elect,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let Elect { name, address, mut asking, commanded } = args;
    asking.note = address.or(asking.note);
    under(Claimed::Office(&name), &asking, &commanded, common, output).await
}
