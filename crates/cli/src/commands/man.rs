//! `leasehold man`: made from the command line's own description.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::Outcome;
use crate::args::Args;
use crate::exit::{self, Failure};
use crate::output::Output;

/// Runs the verb.
pub(crate) fn man(
    verb: Option<&str>,
    dir: Option<&Path>,
    output: Output,
) -> Result<Outcome, Failure> {
    let program = program();
    if let Some(dir) = dir {
        return write_all(&program, dir)
            .map(|()| Outcome::OK)
            .map_err(|error| Failure::new(exit::INTERNAL, format!("{}: {error}", dir.display())));
    }
    let chosen = match verb {
        None => Some(&program),
        Some(name) => program.get_subcommands().find(|verb| verb.get_name() == name),
    };
    let Some(chosen) = chosen else {
        let message = format!("{:?} is no verb; see leasehold --help", verb.unwrap_or_default());
        return Err(Failure::new(exit::USAGE, message));
    };
    let page = page(chosen.clone())?;
    output.print(&String::from_utf8_lossy(&page))?;
    Ok(Outcome::OK)
}

/// The program with its verbs called `leasehold-VERB`, as their pages are.
fn program() -> Command {
    let mut program = Args::command().disable_help_subcommand(true);
    // Hands the options of every verb on to the verbs.
    program.build();
    program
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}

fn write_all(program: &Command, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    write_family(program, "leasehold", dir)
}

/// The page of a command, and those of its verbs.
fn write_family(command: &Command, name: &str, dir: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        write_family(verb, &format!("{name}-{}", verb.get_name()), dir)?;
    }
    std::fs::write(dir.join(format!("{name}.1")), page(command.clone())?)
}
