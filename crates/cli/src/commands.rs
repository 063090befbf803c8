//! One file per verb.

pub(crate) mod acquire;
pub(crate) mod r#break;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod elect;
pub(crate) mod fence;
pub(crate) mod forget;
pub(crate) mod inspect;
pub(crate) mod jobs;
pub(crate) mod leader;
pub(crate) mod limit;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod once;
pub(crate) mod release;
pub(crate) mod renew;
pub(crate) mod run;
pub(crate) mod slots;
pub(crate) mod watch;

use leasehold::Client;

use crate::args::{Common, Granted, Verb};
use crate::exit::Failure;
use crate::output::Output;
use crate::settings::{Flags, Settings, process_environment};

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With this code.
    Code(u8),
    /// By a signal that the terminal would have sent to this process as well.
    Typed(rustix::process::Signal),
}

impl Outcome {
    pub(crate) const OK: Self = Self::Code(0);
}

/// Does what was asked.
pub(crate) async fn dispatch(
    verb: Verb,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    match verb {
        Verb::Run(args) => run::run(args, common, output).await,
        Verb::Acquire(args) => acquire::acquire(args, common, output).await,
        Verb::Renew(args) => renew::renew(&args, common, output).await,
        Verb::Release(args) => release::release(&args, common, output).await,
        Verb::Check(args) => check::check(&args, common, output).await,
        Verb::Elect(args) => elect::elect(args, common, output).await,
        Verb::Once(args) => once::once(args, common, output).await,
        Verb::Jobs(args) => jobs::jobs(&args, common, output).await,
        Verb::Slots(args) => slots::slots(&args, common, output).await,
        Verb::Forget(args) => forget::forget(&args, common, output).await,
        Verb::Leader(args) => leader::leader(&args, common, output).await,
        Verb::Limit(args) => limit::limit(&args, common, output).await,
        Verb::Ls(args) => ls::ls(&args, common, output).await,
        Verb::Inspect(args) => inspect::inspect(&args, common, output).await,
        Verb::Watch(args) => watch::watch(&args, common, output).await,
        Verb::Break(args) => r#break::r#break(&args, common, output).await,
        Verb::Doctor(args) => doctor::doctor(&args, common, output).await,
        Verb::Fence { verb } => fence::fence(verb, output),
        Verb::Demo(args) => demo::demo(&args, common, output),
        Verb::Completions { shell } => completions::completions(shell, output),
        Verb::Man { verb, dir } => man::man(verb.as_deref(), dir.as_deref(), output),
    }
}

/// A client that holds nothing of its own: for looking, and for grants of others.
fn plain_client(common: &Common) -> Result<Client, Failure> {
    plain_client_and_url(common).map(|(client, _)| client)
}

/// The same, and where its store is: with the password.
fn plain_client_and_url(common: &Common) -> Result<(Client, String), Failure> {
    let settings = Settings::load(common, Flags::default(), &process_environment)?;
    let client =
        Client::builder().url(&settings.store.value).ttl(settings.ttl.value).detached(true).build();
    match client {
        Ok(client) => Ok((client, settings.store.value)),
        Err(error) => Err(settings.blame(error)),
    }
}

/// The grant that a script means.
fn grant(granted: &Granted) -> Result<leasehold::Grant, Failure> {
    let token = match granted.token.as_deref() {
        Some("-") => std::io::read_to_string(std::io::stdin()).map_err(|error| {
            Failure::new(crate::exit::USAGE, format!("cannot read the token from stdin: {error}"))
        })?,
        Some(token) => token.to_owned(),
        None => process_environment("LEASEHOLD_TOKEN").ok_or_else(|| {
            let message = "there is no token: give --token, or set LEASEHOLD_TOKEN";
            Failure::new(crate::exit::USAGE, message)
        })?,
    };
    Ok(leasehold::Grant::from_token(granted.key.clone(), token.trim())?)
}
