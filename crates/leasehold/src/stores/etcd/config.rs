//! The URL of an etcd cluster, and what it says.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use crate::error::{Error, ErrorKind, Result};

/// The port of etcd's clients.
const PORT: u16 = 2379;
/// How long one request may take at one member, unless the URL says otherwise.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The bounds of that.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_mins(1);

/// What an `etcd://` or `etcds://` URL says.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// `host:port` of each member, at least one.
    pub(super) members: Vec<String>,
    pub(super) user: Option<User>,
    pub(super) tls: Option<Tls>,
    /// How long one request may take at one member.
    pub(super) timeout: Duration,
}

/// Who to authenticate as.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: SecretString,
}

/// Paths of PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// The certificate authority to trust, instead of the system's.
    pub(super) ca: Option<String>,
    /// The client's certificate and its key.
    pub(super) identity: Option<(String, String)>,
}

impl Config {
    /// Reads a URL. Without IO: the files are read at the first use.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (tls, rest) = if let Some(rest) = text.strip_prefix("etcd://") {
            (None, rest)
        } else if let Some(rest) = text.strip_prefix("etcds://") {
            (Some(Tls::default()), rest)
        } else {
            return Err(invalid("write it as etcd://host:2379,host:2379 or etcds://host:2379"));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() {
            return Err(invalid(
                "it has a path, which etcd does not have; percent-encode a / in the password",
            ));
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(read_user(user)?), hosts),
            None => (None, authority),
        };
        let members = hosts.split(',').map(read_member).collect::<Result<Vec<_>>>()?;
        let mut config = Self { members, user, tls, timeout: TIMEOUT };
        config.read_options(query)?;
        Ok(config)
    }

    fn read_options(&mut self, query: &str) -> Result<()> {
        let (mut cert, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match (name, &mut self.tls) {
                ("timeout", _) => self.timeout = read_timeout(&value)?,
                ("ca", Some(tls)) => tls.ca = Some(value),
                ("cert", Some(_)) => cert = Some(value),
                ("key", Some(_)) => key = Some(value),
                ("ca" | "cert" | "key", None) => {
                    return Err(invalid("ca, cert and key are for TLS: begin with etcds://"));
                }
                (name, _) => {
                    return Err(invalid(format!(
                        "{name:?} is no option; there are: ca, cert, key, timeout"
                    )));
                }
            }
        }
        match (cert, key, &mut self.tls) {
            (Some(cert), Some(key), Some(tls)) => tls.identity = Some((cert, key)),
            (None, None, _) => {}
            _ => return Err(invalid("a client certificate needs both, cert and key")),
        }
        Ok(())
    }

    /// The address that the HTTP/2 client wants.
    pub(super) fn uri(&self, member: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.members[member])
    }
}

/// The URL without its password and without its options.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "etcds://" } else { "etcd://" })?;
        if let Some(user) = &self.user {
            write!(f, "{}@", user.name.escape_debug())?;
        }
        f.write_str(&self.members.join(","))
    }
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "read the URL of an etcd cluster", detail)
}

fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| invalid("a part of it is not UTF-8 when percent-decoded"))
}

fn read_user(text: &str) -> Result<User> {
    let (name, password) = text
        .split_once(':')
        .ok_or_else(|| invalid("a user needs a password: etcd://user:password@host"))?;
    if name.is_empty() {
        return Err(invalid("the user before the password is empty"));
    }
    Ok(User { name: decode(name)?, password: decode(password)?.into() })
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`, with the port filled in.
fn read_member(text: &str) -> Result<String> {
    // What is wrong here may be a piece of a password with an unescaped comma: it is not shown.
    let refused = || invalid("a member is host, host:port, [IPv6] or [IPv6]:port");
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or_else(refused)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| refused())?;
            let port = if port.is_empty() {
                None
            } else {
                Some(port.strip_prefix(':').ok_or_else(refused)?)
            };
            (format!("[{host}]"), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (text.to_owned(), None),
        },
    };
    let port = port.map_or(Ok(PORT), |port| port.parse::<u16>().map_err(|_| refused()))?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if port == 0 || host.is_empty() || !(host.starts_with('[') || host.chars().all(allowed)) {
        return Err(refused());
    }
    Ok(format!("{host}:{port}"))
}

fn read_timeout(text: &str) -> Result<Duration> {
    let refused = || invalid("timeout is a time from 10ms to 60s, such as 500ms or 3s");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or_else(refused)?, 1000),
    };
    let number: u32 = number.parse().map_err(|_| refused())?;
    let timeout = Duration::from_millis(u64::from(number) * unit);
    if TIMEOUTS.contains(&timeout) { Ok(timeout) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_url_names_members_user_and_files() {
        let config =
            Config::parse("etcds://me:p%40ss@h1,h2:2400,[::1]:1?ca=/a%20b&cert=c&key=k").unwrap();
        assert_eq!(config.members, ["h1:2379", "h2:2400", "[::1]:1"]);
        let user = config.user.as_ref().unwrap();
        assert_eq!((user.name.as_str(), user.password.expose_secret()), ("me", "p@ss"));
        let tls = Tls { ca: Some("/a b".into()), identity: Some(("c".into(), "k".into())) };
        assert_eq!(config.tls, Some(tls));
        assert_eq!(config.uri(1), "https://h2:2400");
        assert_eq!(
            Config::parse("etcd://h?timeout=250ms").unwrap().timeout,
            Duration::from_millis(250)
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = Config::parse("etcd://me:hunter2@h1").unwrap();
        assert!(!format!("{config:?} {config}").contains("hunter2"));
        for bad in ["etcd://me:hunter2@", "etcd://me:hunter2@h1:x", "etcd://me:hun/hunter2@h1"] {
            let error = Config::parse(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_bad_url_is_refused() {
        for bad in [
            "etcd:h1",
            "redis://h1",
            "etcd://",
            "etcd://h1,,h2",
            "etcd://h1:0",
            "etcd://h1:99999",
            "etcd://h1/path",
            "etcd://me@h1",
            "etcd://:pass@h1",
            "etcd://[::1",
            "etcd://[nonsense]:1",
            "etcd://a b",
            "etcd://h1?ca=x",
            "etcds://h1?cert=x",
            "etcd://h1?timeout=0s",
            "etcd://h1?timeout=5",
            "etcd://h1?colour=red",
        ] {
            let error = Config::parse(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
        }
    }
}
