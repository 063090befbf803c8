//! The program `leasehold`: see `leasehold --help`.

mod args;
mod child;
mod commands;
mod duration;
mod exit;
mod grip;
mod guardian;
mod output;
mod settings;
mod signals;
mod store_url;
mod supervise;
mod terminal;
mod waiting;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Args, Common};
use crate::commands::{Outcome, demo};
use crate::exit::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    // First of all, because a guardian is started with every command and has to be ready soon.
    if guardian::is_wanted() {
        return guardian::main();
    }
    if let Some(arguments) = demo::node_arguments() {
        return demo::node_main(&arguments);
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let output = Output::new(&args.common);
    trace(&args.common);
    match start(args, output) {
        Ok(Outcome::Code(code)) => ExitCode::from(code),
        Ok(Outcome::Typed(signal)) => die_by(signal),
        Err(failure) => {
            if !failure.message.is_empty() {
                output.error(&failure);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn start(args: Args, output: Output) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(commands::dispatch(args.verb, &args.common, output));
    // What a store may still do in a thread of its own is not worth waiting for.
    runtime.shutdown_background();
    outcome
}

/// Help and version are no errors; anything else is bad usage, for which this program, unlike
/// clap, exits with what sysexits.h has for it.
fn usage(error: &clap::Error) -> ExitCode {
    // To a closed pipe nothing can be said.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
}

/// What the library has to say, on stderr: warnings, and more with each `-v`.
fn trace(common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(common.verbose > 0)
        .with_ansi(Output::new(common).has_colour());
    if common.verbose == 0 {
        subscriber.without_time().init();
    } else {
        subscriber.init();
    }
}

/// Ends as the command did when a key of the terminal ended it, so that a script around this
/// program ends too, as it would have without it.
fn die_by(signal: rustix::process::Signal) -> ExitCode {
    let _ = rustix::process::kill_current_process_group(signal);
    let _ = signal_hook::low_level::emulate_default_handler(signal.as_raw());
    ExitCode::from(exit::of_signal(signal.as_raw()))
}
