//! Settings: flags over environment variables over the configuration file. Every value knows where
//! it came from, and a bad one says so.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold::Properties;
use serde::Deserialize;
use toml::Spanned;

use crate::args::Common;
use crate::duration::{self, Patience};
use crate::exit::{self, Failure};
use crate::store_url;

/// The default TTL.
const TTL: Duration = Duration::from_secs(30);
/// The longest default grace.
const GRACE: Duration = Duration::from_secs(5);

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// This flag.
    Flag(&'static str),
    /// This environment variable.
    Variable(&'static str),
    /// This line of the configuration file.
    File(PathBuf, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
        }
    }
}

impl Origin {
    /// What a bad value from there makes the program exit with.
    fn code(&self) -> u8 {
        match self {
            Self::Default | Self::Flag(_) => exit::USAGE,
            Self::Variable(_) | Self::File(..) => exit::CONFIG,
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct From<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// What of the settings flags can say.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) ttl: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) wait: Option<Patience>,
    pub(crate) note: Option<String>,
    pub(crate) demand: Option<Properties>,
}

/// The settings that apply.
#[derive(Debug)]
pub(crate) struct Settings {
    /// A URL.
    pub(crate) store: From<String>,
    pub(crate) ttl: From<Duration>,
    pub(crate) grace: From<Duration>,
    pub(crate) max_hold: Option<From<Duration>>,
    pub(crate) wait: Patience,
    pub(crate) note: String,
    pub(crate) demand: Option<From<Properties>>,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    store: Option<Spanned<String>>,
    ttl: Option<Spanned<String>>,
    grace: Option<Spanned<String>>,
    wait: Option<Spanned<String>>,
    max_hold: Option<Spanned<String>>,
    note: Option<Spanned<String>>,
    demand: Option<Spanned<String>>,
}

/// The configuration file, with what is needed to name a line of it.
#[derive(Debug, Default)]
struct File {
    path: PathBuf,
    text: String,
    contents: Contents,
}

/// Reads an environment variable; an argument, so that tests need not change the process's own.
pub(crate) type Environment<'a> = &'a dyn Fn(&'static str) -> Option<String>;

/// The environment of this process. A value that is not UTF-8 is passed on with replacement
/// characters, and fails where it is read.
pub(crate) fn process_environment(name: &'static str) -> Option<String> {
    // An empty variable is how many tools unset one.
    std::env::var_os(name)
        .map(|value| value.to_string_lossy().into_owned())
        .filter(|value| !value.is_empty())
}

impl Settings {
    /// Brings together what was set, and checks each value by itself.
    pub(crate) fn load(
        common: &Common,
        flags: Flags,
        environment: Environment<'_>,
    ) -> Result<Self, Failure> {
        let file = File::find(common, environment)?;
        let from = Sources { environment, file: &file };
        let text = |text: &str| Ok(text.to_owned());

        let given = common.store.clone();
        let store = from
            .pick("--store", given, store_url::VARIABLE, |file| &file.store, text)?
            .unwrap_or_else(|| From { value: "sqlite:".to_owned(), origin: Origin::Default });
        let in_file = file.contents.store.as_ref().map(|store| store.get_ref().as_str());
        let store = store_url::without_guessing(store, in_file, environment)?;

        let ttl = from
            .pick("--ttl", flags.ttl, "LEASEHOLD_TTL", |file| &file.ttl, duration::parse)?
            .unwrap_or(From { value: TTL, origin: Origin::Default });
        let grace = from
            .pick("--grace", flags.grace, "LEASEHOLD_GRACE", |file| &file.grace, duration::parse)?
            .unwrap_or(From { value: GRACE.min(ttl.value / 4), origin: Origin::Default });
        let (given, variable) = (flags.max_hold, "LEASEHOLD_MAX_HOLD");
        let max_hold =
            from.pick("--max-hold", given, variable, |file| &file.max_hold, duration::parse)?;
        let (given, variable) = (flags.wait, "LEASEHOLD_WAIT");
        let wait = from
            .pick("--wait", given, variable, |file| &file.wait, duration::parse_patience)?
            .map_or(Patience::Forever, |wait| wait.value);
        let note = from
            .pick("--note", flags.note, "LEASEHOLD_NOTE", |file| &file.note, text)?
            .map_or_else(String::new, |note| note.value);
        let (given, variable) = (flags.demand, "LEASEHOLD_DEMAND");
        let demand = from.pick("--demand", given, variable, |file| &file.demand, properties)?;
        Ok(Self { store, ttl, grace, max_hold, wait, note, demand })
    }

    /// What the store has to have.
    pub(crate) fn demanded(&self) -> Properties {
        self.demand.as_ref().map_or(Properties::NONE, |demand| demand.value)
    }

    /// A failure because of values that are good by themselves but do not fit: names their origins
    /// (those of the TTL and what goes with it, or of the store), and exits with what belongs to
    /// the nearest one.
    pub(crate) fn blame(&self, error: leasehold::Error) -> Failure {
        let mut failure = Failure::from(error);
        if failure.code != exit::USAGE {
            return failure;
        }
        let mut origins = vec![("store", &self.store.origin), ("TTL", &self.ttl.origin)];
        origins.push(("grace", &self.grace.origin));
        origins.extend(self.max_hold.iter().map(|hold| ("longest hold", &hold.origin)));
        origins.extend(self.demand.iter().map(|demand| ("demand", &demand.origin)));
        origins.retain(|(_, origin)| **origin != Origin::Default);
        // A flag is the nearest: whoever typed it can change it.
        if !origins.is_empty() && origins.iter().all(|(_, origin)| origin.code() == exit::CONFIG) {
            failure.code = exit::CONFIG;
        }
        if !origins.is_empty() {
            let named: Vec<_> =
                origins.iter().map(|(name, origin)| format!("{name} from {origin}")).collect();
            failure.message = format!("{} ({})", failure.message, named.join(", "));
        }
        failure
    }
}

/// Reads a demand; the reason for a refusal fits behind the value.
pub(crate) fn properties(text: &str) -> Result<Properties, String> {
    text.parse().map_err(|error: leasehold::Error| error.to_string())
}

/// Where values that are no flags come from.
struct Sources<'a> {
    environment: Environment<'a>,
    file: &'a File,
}

impl Sources<'_> {
    fn pick<T>(
        &self,
        flag: &'static str,
        set: Option<T>,
        variable: &'static str,
        pick: fn(&Contents) -> &Option<Spanned<String>>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<From<T>>, Failure> {
        if let Some(value) = set {
            return Ok(Some(From { value, origin: Origin::Flag(flag) }));
        }
        let (text, origin) = if let Some(text) = (self.environment)(variable) {
            (text, Origin::Variable(variable))
        } else if let Some(entry) = pick(&self.file.contents) {
            let origin = Origin::File(self.file.path.clone(), self.file.line(entry.span().start));
            (entry.get_ref().clone(), origin)
        } else {
            return Ok(None);
        };
        match parse(&text) {
            Ok(value) => Ok(Some(From { value, origin })),
            Err(why) => {
                Err(Failure::new(origin.code(), format!("{origin}: bad value {text:?}: {why}")))
            }
        }
    }
}

impl File {
    /// The file that was named, which must exist, or the default one, which need not.
    fn find(common: &Common, environment: Environment<'_>) -> Result<Self, Failure> {
        let (path, origin) = if let Some(path) = &common.config {
            (path.clone(), Origin::Flag("--config"))
        } else if let Some(path) = environment("LEASEHOLD_CONFIG") {
            (PathBuf::from(path), Origin::Variable("LEASEHOLD_CONFIG"))
        } else if let Some(path) = default_path(environment) {
            (path, Origin::Default)
        } else {
            return Ok(Self::default());
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(path, text),
            Err(error)
                if origin == Origin::Default
                    && matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    ) =>
            {
                Ok(Self::default())
            }
            Err(error) => Err(Failure::new(
                exit::CONFIG,
                format!("cannot read the configuration file {}: {error}", path.display()),
            )),
        }
    }

    fn parse(path: PathBuf, text: String) -> Result<Self, Failure> {
        match toml::from_str(&text) {
            Ok(contents) => Ok(Self { path, text, contents }),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(&text, span.start));
                let message = format!("{}:{line}: {}", path.display(), error.message());
                Err(Failure::new(exit::CONFIG, message.replace('\n', " ")))
            }
        }
    }

    fn line(&self, at: usize) -> usize {
        line_of(&self.text, at)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

fn default_path(environment: Environment<'_>) -> Option<PathBuf> {
    // A relative path there is to be ignored, says the XDG base directory specification.
    let base = environment("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|base| base.is_absolute())
        .or_else(|| environment("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(base.join("leasehold/config.toml"))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
