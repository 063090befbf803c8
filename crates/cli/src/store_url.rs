//! The store's URL on its way through the environment: the command that runs under a lock is told
//! the store without its password, and a `leasehold` inside it must not mistake that for its own
//! setting. It would be refused by the store; or, worse, lock in another one.

use crate::exit::{self, Failure};
use crate::settings::{Environment, From, Origin};

/// Both the setting and what the command is told.
pub(crate) const VARIABLE: &str = "LEASEHOLD_STORE";
/// Set beside it when the password was taken out: to the same value, so that a variable that was
/// set anew inside the command is recognized as such.
pub(crate) const REDACTED: &str = "LEASEHOLD_STORE_REDACTED";

/// What the command finds in its environment about a store that was configured as `url` and calls
/// itself `shown`.
pub(crate) fn for_the_command(url: &str, shown: &str) -> Vec<(&'static str, String)> {
    let mut variables = vec![(VARIABLE, shown.to_owned())];
    // Always set: one of an outer `leasehold run` must not be inherited.
    let redacted = if has_password(url) { shown } else { "" };
    variables.push((REDACTED, redacted.to_owned()));
    variables
}

/// Whether the URL has a password in it: after the user's name, or as a parameter.
fn has_password(url: &str) -> bool {
    let (rest, parameters) = url.split_once('?').unwrap_or((url, ""));
    let in_authority = rest.split_once("://").is_some_and(|(_, rest)| {
        // Several hosts may each have their own; and a password may contain anything but these.
        let authority = rest.split('/').next().unwrap_or(rest);
        authority
            .split(',')
            .any(|host| host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')))
    });
    in_authority || parameters.to_ascii_lowercase().contains("pass")
}

/// Refuses a store that is only known without its password, unless the configuration file has the
/// same one with it.
pub(crate) fn without_guessing(
    store: From<String>,
    in_file: Option<&str>,
    environment: Environment<'_>,
) -> Result<From<String>, Failure> {
    let redacted = store.origin == Origin::Variable(VARIABLE)
        && environment(REDACTED).as_deref() == Some(&store.value);
    if !redacted {
        return Ok(store);
    }
    let same = in_file.filter(|url| {
        leasehold::stores::connect(url).is_ok_and(|known| known.to_string() == store.value)
    });
    if let Some(url) = same {
        return Ok(From { value: url.to_owned(), origin: store.origin });
    }
    Err(Failure::new(
        exit::CONFIG,
        format!(
            "{VARIABLE} is {}, as the leasehold run around this one tells its command: without the \
             password. Give this one its own: --store, {VARIABLE}, or the configuration file",
            store.value
        ),
    ))
}
