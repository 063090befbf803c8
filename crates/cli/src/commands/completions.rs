//! `leasehold completions`: made from the command line's own description.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Outcome;
use crate::args::Args;
use crate::exit::Failure;
use crate::output::Output;

/// Runs the verb.
pub(crate) fn completions(shell: Shell, output: Output) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "leasehold", &mut script);
    output.print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::OK)
}
