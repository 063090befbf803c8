//! URL and options.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;

use super::names::{self, Dialect};
use super::wire::Access;
use crate::error::{Error, ErrorKind, Result};
use crate::stores::dial::Tls;

const DEFAULT_PORT: u16 = 2181;
const DEFAULT_TLS_PORT: u16 = 2281;
const MAX_TICK: Duration = Duration::from_mins(1);

/// Where an ensemble is, and how to speak to it.
#[derive(Clone)]
pub(super) struct Config {
    /// At least one.
    pub(super) members: Vec<Member>,
    /// The path below which everything happens, without a slash at its end; empty for the root.
    pub(super) chroot: String,
    pub(super) dialect: Dialect,
    pub(super) user: Option<(String, SecretString)>,
    pub(super) tls: Option<Tls>,
    /// The servers' `tickTime`, if the URL says it.
    pub(super) tick: Option<Duration>,
}

/// One server of the ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Config {
    /// Who may do what with our nodes.
    pub(super) const fn access(&self) -> Access {
        if self.user.is_some() { Access::Creator } else { Access::World }
    }

    /// Reads a URL: `zookeeper://[USER:PASSWORD@]HOST[:PORT][,…][/CHROOT][?OPTIONS]`. Does no IO.
    ///
    /// By hand, because a list of hosts is no URL for the library that reads the others.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (tls, rest) = if let Some(rest) = text.strip_prefix("zookeeper://") {
            (false, rest)
        } else if let Some(rest) = text.strip_prefix("zookeepers://") {
            (true, rest)
        } else {
            return Err(invalid("a ZooKeeper URL begins with zookeeper:// or zookeepers://"));
        };
        if rest.contains('#') {
            return Err(invalid("a ZooKeeper URL has no `#` part; write `%23` for a `#`"));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, chroot) = match place.find('/') {
            Some(at) => place.split_at(at),
            None => (place, ""),
        };
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(credentials(user)?), hosts),
            None => (None, authority),
        };
        let options = Options::of(query, tls)?;
        let default_port = if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT };
        let members =
            hosts.split(',').map(|host| member(host, default_port)).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            members,
            chroot: checked_chroot(chroot)?,
            dialect: options.dialect.unwrap_or(Dialect::Curator),
            user,
            tls: tls.then_some(options.tls),
            tick: options.tick,
        })
    }

    /// What digest authentication sends.
    pub(super) fn digest(&self) -> Option<String> {
        let (user, password) = self.user.as_ref()?;
        Some(format!("{user}:{}", password.expose_secret()))
    }
}

#[derive(Default)]
struct Options {
    dialect: Option<Dialect>,
    tick: Option<Duration>,
    tls: Tls,
}

impl Options {
    fn of(query: &str, tls: bool) -> Result<Self> {
        let mut options = Self::default();
        let (mut cert, mut key) = (None, None);
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.contains(&name) {
                return Err(invalid(format!("`{}=` is given twice", name.escape_debug())));
            }
            match &*name {
                "dialect" => options.dialect = Some(dialect(&value)?),
                "tick" => options.tick = Some(tick(&value)?),
                "ca" if tls => options.tls.ca = Some(file("ca", &value)?),
                "cert" if tls => cert = Some(file("cert", &value)?),
                "key" if tls => key = Some(file("key", &value)?),
                "ca" | "cert" | "key" => {
                    return Err(invalid(format!("`{name}=` needs a zookeepers: URL")));
                }
                other => {
                    return Err(invalid(format!("unknown parameter `{}`", other.escape_debug())));
                }
            }
            seen.push(name);
        }
        options.tls.identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(invalid("`cert=` and `key=` are given together or not at all")),
        };
        Ok(options)
    }
}

fn member(text: &str, default_port: u16) -> Result<Member> {
    let (host, port) = match text.strip_prefix('[') {
        // An IPv6 address contains colons itself.
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| invalid("a `[` in a host without its `]`"))?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or_else(|| {
                    invalid("only a port may follow the `]` of a host: [::1]:2181")
                })?),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host = decoded("host", host)?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(invalid("the URL names no host: zookeeper://HOST:PORT,HOST:PORT/CHROOT"));
    }
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            // Its text is not shown: an unencoded `@` or `/` in a password can end up here.
            _ => return Err(invalid("a port is a number from 1 to 65535")),
        },
    };
    Ok(Member { host, port })
}

fn credentials(text: &str) -> Result<(String, SecretString)> {
    let (user, password) = text
        .split_once(':')
        .ok_or_else(|| invalid("the URL names a user but no password: USER:PASSWORD@HOST"))?;
    let user = decoded("user", user)?;
    if user.is_empty() || user.contains(':') {
        return Err(invalid("a user's name has at least one character, and no colon"));
    }
    Ok((user, decoded("password", password)?.into()))
}

fn checked_chroot(text: &str) -> Result<String> {
    let chroot = decoded("chroot", text.strip_suffix('/').unwrap_or(text))?;
    if chroot.is_empty() {
        return Ok(chroot);
    }
    if !chroot.split('/').skip(1).all(names::is_plain_segment) {
        return Err(invalid(
            "the chroot is no path that ZooKeeper allows: /apps/locks, without empty parts, `.`, \
             `..` or control characters, and not below /zookeeper",
        ));
    }
    if chroot == "/zookeeper" || chroot.starts_with("/zookeeper/") {
        return Err(invalid("/zookeeper belongs to the servers; choose another chroot"));
    }
    Ok(chroot)
}

fn dialect(text: &str) -> Result<Dialect> {
    match text {
        "curator" => Ok(Dialect::Curator),
        "kazoo" => Ok(Dialect::Kazoo),
        other => {
            Err(invalid(format!("`dialect={}` is not `curator` or `kazoo`", other.escape_debug())))
        }
    }
}

/// A number and its unit: `200ms`, `2s`.
fn tick(text: &str) -> Result<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        _ => None,
    };
    number
        .parse::<u32>()
        .ok()
        .and_then(|number| unit?.checked_mul(number))
        .filter(|tick| !tick.is_zero() && *tick <= MAX_TICK)
        .ok_or_else(|| {
            let text = text.escape_debug();
            invalid(format!("`tick={text}` is not a time from 1ms to 60s, such as 2s"))
        })
}

fn decoded(what: &str, text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| invalid(format!("the {what} is not UTF-8 once its `%` are decoded")))
}

fn file(name: &str, value: &str) -> Result<PathBuf> {
    if value.is_empty() {
        Err(invalid(format!("`{name}=` names no file")))
    } else {
        Ok(value.into())
    }
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "read the store's URL", detail)
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{}:{port}", host.escape_debug())
        }
    }
}

/// The URL without its password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "zookeepers://" } else { "zookeeper://" })?;
        if let Some((user, _)) = &self.user {
            write!(f, "{}@", user.escape_debug())?;
        }
        for (at, member) in self.members.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{member}")?;
        }
        f.write_str(&self.chroot)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.to_string())
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let config =
            Config::parse("zookeeper://a:2182,b,[::1]:9/apps/locks?dialect=kazoo&tick=200ms")
                .unwrap();
        assert_eq!(config.to_string(), "zookeeper://a:2182,b:2181,[::1]:9/apps/locks");
        assert_eq!(
            (config.dialect, config.tick),
            (Dialect::Kazoo, Some(Duration::from_millis(200)))
        );
        let config = Config::parse("zookeepers://h/?ca=/ca.pem").unwrap();
        assert_eq!(config.to_string(), "zookeepers://h:2281");
        assert_eq!(config.tls.unwrap().ca, Some("/ca.pem".into()));
        assert_eq!(Config::parse("zookeeper://h").unwrap().dialect, Dialect::Curator);
    }

    #[test]
    fn passwords_are_used_and_not_shown() {
        let config = Config::parse("zookeeper://al%40ice:s3%2Fcr%3Aet@h,i/x").unwrap();
        assert_eq!(config.digest().unwrap(), "al@ice:s3/cr:et");
        let shown = format!("{config} {config:?}");
        assert!(!shown.contains("s3"), "{shown}");
        assert!(shown.contains("al@ice@h:2181,i:2181/x"), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, reason) in [
            ("zookeeper:h", "begins with"),
            ("zookeeper://", "no host"),
            ("zookeeper://a,,b", "no host"),
            ("zookeeper://h:0", "a port"),
            ("zookeeper://h:x", "a port"),
            ("zookeeper://hunter2@h", "no password"),
            ("zookeeper://:hunter2@h", "user's name"),
            ("zookeeper://u:hunter2@h:99999", "a port"),
            ("zookeeper://u:hunt/er2@h", "a port"),
            ("zookeeper://u:hunter2@h/a//b", "chroot"),
            ("zookeeper://u:hunter2@h/..", "chroot"),
            ("zookeeper://u:hunter2@h/zookeeper/x", "belongs to the servers"),
            ("zookeeper://u:hunter2@h?dialect=etcd", "`dialect=etcd`"),
            ("zookeeper://u:hunter2@h?tick=2", "`tick=2`"),
            ("zookeeper://u:hunter2@h?ca=x", "zookeepers:"),
            ("zookeepers://u:hunter2@h?cert=x", "together"),
            ("zookeeper://u:hunter2@h?tick=2s&tick=3s", "twice"),
            ("zookeeper://u:hunter2@h?what=x", "unknown parameter"),
            ("zookeeper://u:hunter2@[::1", "`]`"),
            ("zookeeper://u:hunter2@h#x", "`#`"),
        ] {
            let error = Config::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(reason), "{url}: {shown}");
            assert!(!shown.contains("hunter2") && !shown.contains("er2"), "{shown}");
        }
    }
}
