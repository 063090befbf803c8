//! What a `postgres://` URL says.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use crate::error::{Error, ErrorKind, Result};
use crate::stores::tls::Identity;

/// How long a connection may take to be made, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may owe an answer, unless the URL says otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The schema that the tables live in, unless the URL says otherwise.
const SCHEMA: &str = "leasehold";
const PORT: u16 = 5432;

/// Where the server is, who asks, and how.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) hosts: Vec<Host>,
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) database: Option<String>,
    pub(super) application: String,
    pub(super) schema: String,
    pub(super) tls: Tls,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
}

/// One server of several that are tried in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// A name or an address, without brackets.
    Tcp(String, u16),
    /// The directory of a socket called `.s.PGSQL.PORT`.
    Socket(String, u16),
}

/// As libpq's `sslmode` and its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) mode: TlsMode,
    /// Certificates to trust instead of the system's.
    pub(super) ca: Option<PathBuf>,
    /// What to show to a server that asks who we are.
    pub(super) identity: Option<Identity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Config {
    /// Reads a URL. The errors repeat nothing of it but the names of its parameters: any other
    /// part may be a password that somebody forgot to encode.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or_else(|| invalid("it has to begin with postgres:// or postgresql://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) =
            credentials.split_once(':').map_or((credentials, None), |(user, p)| (user, Some(p)));
        let mut fields = Fields::default();
        fields.set("user", some(decode("the user", user)?));
        fields.set("password", password.map(|text| decode("the password", text)).transpose()?);
        fields.set("dbname", some(decode("the database", database)?));
        fields.set("host", some(hosts.to_owned()));
        fields.read(query)?;
        fields.finish()
    }
}

/// The parameters in the order in which they were met.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

/// What may stand behind the question mark, with libpq's names where it has one.
const PARAMETERS: &[&str] = &[
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "application_name",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "connect_timeout",
    "timeout",
    "schema",
];

impl Fields {
    fn set(&mut self, name: &'static str, value: Option<String>) {
        self.0.extend(value.map(|value| (name, value)));
    }

    fn read(&mut self, query: &str) -> Result<()> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(known) = PARAMETERS.iter().find(|known| **known == name) else {
                let known = PARAMETERS.join(", ");
                return Err(invalid(format!("{name:?} is no parameter; there are: {known}")));
            };
            if self.0.iter().any(|(before, _)| before == known) {
                return Err(invalid(format!("{known} is given twice")));
            }
            // A host is decoded after it was taken apart.
            let value = if *known == "host" { value.to_owned() } else { decode(known, value)? };
            self.set(known, Some(value));
        }
        Ok(())
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        some(self.0.swap_remove(at).1)
    }

    fn finish(mut self) -> Result<Config> {
        let port = match self.take("port") {
            Some(port) => port_number(&port)?,
            None => PORT,
        };
        let hosts = self.take("host").unwrap_or_else(|| "localhost".to_owned());
        let hosts = hosts.split(',').map(|host| Host::parse(host, port)).collect::<Result<_>>()?;
        Ok(Config {
            hosts,
            tls: self.tls()?,
            schema: self.schema()?,
            connect_timeout: self.seconds("connect_timeout", CONNECT_TIMEOUT)?,
            request_timeout: self.seconds("timeout", REQUEST_TIMEOUT)?,
            application: self.take("application_name").unwrap_or_else(|| SCHEMA.to_owned()),
            user: self.take("user"),
            password: self.take("password").map(SecretString::from),
            database: self.take("dbname"),
        })
    }

    fn tls(&mut self) -> Result<Tls> {
        let identity = match (self.take("sslcert"), self.take("sslkey")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err(invalid("sslcert and sslkey belong together")),
        };
        let roots = self.take("sslrootcert");
        let mode = match self.take("sslmode").as_deref() {
            None | Some("prefer") => TlsMode::Prefer,
            Some("disable") => TlsMode::Disable,
            // As libpq does it: who names an authority wants it checked.
            Some("require") if roots.is_some() => TlsMode::VerifyCa,
            Some("require") => TlsMode::Require,
            Some("verify-ca") => TlsMode::VerifyCa,
            Some("verify-full") => TlsMode::VerifyFull,
            Some(_) => {
                let known = "disable, prefer, require, verify-ca, verify-full";
                return Err(invalid(format!("sslmode is one of: {known}")));
            }
        };
        let ca = roots.filter(|name| name != "system").map(PathBuf::from);
        Ok(Tls { mode, ca, identity })
    }

    fn schema(&mut self) -> Result<String> {
        let schema = self.take("schema").unwrap_or_else(|| SCHEMA.to_owned());
        let first = schema.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        // It becomes part of SQL, and of a channel's name, which has 63 bytes.
        if !first || !schema.chars().all(plain) || schema.len() > 30 || schema.starts_with("pg_") {
            let detail = "schema is at most 30 lower-case letters, digits and underscores, begins \
                          with no digit, and not with pg_";
            return Err(invalid(detail));
        }
        Ok(schema)
    }

    fn seconds(&mut self, name: &str, default: Duration) -> Result<Duration> {
        let Some(text) = self.take(name) else {
            return Ok(default);
        };
        let seconds = text.strip_suffix('s').unwrap_or(&text).parse().ok();
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        duration
            .filter(|span| (Duration::from_millis(50)..=Duration::from_hours(1)).contains(span))
            .ok_or_else(|| invalid(format!("{name} is a number of seconds from 0.05 to 3600")))
    }
}

impl Host {
    fn parse(text: &str, default: u16) -> Result<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) =
                rest.split_once(']').ok_or_else(|| invalid("a [ in the host is not closed"))?;
            (host, port.strip_prefix(':'))
        } else {
            text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let port = port.map_or(Ok(default), port_number)?;
        let host = decode("the host", host)?;
        Ok(match host.as_str() {
            "" => Self::Tcp("localhost".to_owned(), port),
            path if path.starts_with('/') => Self::Socket(host, port),
            _ => Self::Tcp(host, port),
        })
    }
}

/// The store's name: what tells it from others, and no password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, NAME).to_string();
        f.write_str("postgres://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", encode(user))?;
        }
        for (at, host) in self.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match host {
                Host::Tcp(host, port) if host.contains(':') => write!(f, "{comma}[{host}]:{port}")?,
                Host::Tcp(host, port) | Host::Socket(host, port) => {
                    write!(f, "{comma}{}:{port}", encode(host))?;
                }
            }
        }
        if let Some(database) = &self.database {
            write!(f, "/{}", encode(database))?;
        }
        if self.schema != SCHEMA {
            write!(f, "?schema={}", self.schema)?;
        }
        Ok(())
    }
}

/// What a name in the printed URL shows as it is.
const NAME: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn port_number(text: &str) -> Result<u16> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| invalid("the port is a number from 1 to 65535"))
}

fn decode(what: &str, text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded =
        decoded.map_err(|_| invalid(format!("{what} is not UTF-8 once it is percent-decoded")))?;
    // PostgreSQL's protocol ends its texts with NUL.
    if decoded.contains('\0') {
        return Err(invalid(format!("{what} contains NUL")));
    }
    Ok(decoded.into_owned())
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "read the URL of a PostgreSQL store", detail)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn parse(url: &str) -> Config {
        Config::parse(url).unwrap()
    }

    fn tcp(host: &str, port: u16) -> Host {
        Host::Tcp(host.to_owned(), port)
    }

    #[test]
    fn every_part_of_a_url_is_read() {
        let config = parse(
            "postgresql://us%40er:p%3Aw%2F@h1:6000,[::1],h3/d%20b?sslmode=verify-full\
             &sslrootcert=/ca.pem&sslcert=c&sslkey=k&connect_timeout=2&timeout=0.5s&schema=locks\
             &application_name=me&port=77",
        );
        assert_eq!(config.hosts, [tcp("h1", 6000), tcp("::1", 77), tcp("h3", 77)]);
        assert_eq!(config.user.as_deref(), Some("us@er"));
        assert_eq!(config.password.as_ref().unwrap().expose_secret(), "p:w/");
        assert_eq!(config.database.as_deref(), Some("d b"));
        assert_eq!(config.tls.mode, TlsMode::VerifyFull);
        assert_eq!(config.tls.ca, Some("/ca.pem".into()));
        assert_eq!(config.tls.identity, Some(("c".into(), "k".into())));
        assert_eq!(config.connect_timeout, Duration::from_secs(2));
        assert_eq!(config.request_timeout, Duration::from_millis(500));
        assert_eq!((config.schema.as_str(), config.application.as_str()), ("locks", "me"));
        assert_eq!(
            config.to_string(),
            "postgres://us%40er@h1:6000,[::1]:77,h3:77/d%20b?schema=locks"
        );
    }

    #[test]
    fn little_is_enough() {
        let config = parse("postgres://");
        assert_eq!(config.hosts, [tcp("localhost", 5432)]);
        assert_eq!((config.user, config.password.is_none(), config.database), (None, true, None));
        assert_eq!(config.tls, Tls { mode: TlsMode::Prefer, ca: None, identity: None });
        assert_eq!(config.schema, "leasehold");
    }

    #[test]
    fn a_socket_is_named_in_either_place() {
        let socket = [Host::Socket("/var/run/postgresql".to_owned(), 5433)];
        assert_eq!(parse("postgres://%2Fvar%2Frun%2Fpostgresql:5433/db").hosts, socket);
        assert_eq!(parse("postgres:///db?host=/var/run/postgresql&port=5433").hosts, socket);
    }

    #[test]
    fn require_with_an_authority_checks_it_as_libpq_does() {
        assert_eq!(parse("postgres://h?sslmode=require").tls.mode, TlsMode::Require);
        let mode = parse("postgres://h?sslmode=require&sslrootcert=/ca").tls.mode;
        assert_eq!(mode, TlsMode::VerifyCa);
    }

    #[test]
    fn what_is_not_understood_is_refused_without_repeating_it() {
        for (url, says) in [
            ("mysql://h/db", "begin with"),
            ("postgres://h?sslmod=require", "\"sslmod\" is no parameter"),
            ("postgres://h?sslmode=allow", "verify-full"),
            ("postgres://h?sslcert=c", "belong together"),
            ("postgres://h?schema=Drop", "lower-case"),
            ("postgres://h?schema=a%22;drop", "lower-case"),
            ("postgres://h?schema=pg_x", "pg_"),
            ("postgres://h?timeout=0", "seconds"),
            ("postgres://h?timeout=nan", "seconds"),
            ("postgres://h?timeout=inf", "seconds"),
            ("postgres://h:0/db", "port"),
            ("postgres://h:s3cret/db", "port"),
            ("postgres://u:s3cret@h:99999/db", "port"),
            ("postgres://u:s3cret@[::1/db", "not closed"),
            ("postgres://u:%00s3cret@h/db", "NUL"),
            ("postgres://u:%ffs3cret@h/db", "UTF-8"),
            ("postgres://u:p@h/db?user=v", "user is given twice"),
            ("postgres://h?password=a&password=s3cret", "password is given twice"),
        ] {
            let error = Config::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(says), "{url}: {text}");
            assert!(!text.contains("s3cret"), "{url}: {text}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        for url in ["postgres://u:s3cret@h/db", "postgres://h/db?user=u&password=s3cret"] {
            let config = parse(url);
            assert!(!format!("{config} {config:?}").contains("s3cret"));
        }
    }
}
