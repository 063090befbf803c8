//! URL and options.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use url::{Url, form_urlencoded};

use crate::error::{Error, ErrorKind, Result};
use crate::stores::dial::Tls;

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TIMEOUT: Duration = Duration::from_mins(10);
const MAX_REPLICAS: u32 = 32;

/// Where a Redis server is, and how to speak to it.
#[derive(Clone)]
pub(in crate::stores) struct Config {
    pub(in crate::stores) place: Place,
    pub(in crate::stores) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(in crate::stores) database: u32,
    /// How long one request may take, a new connection included.
    pub(in crate::stores) timeout: Duration,
    /// How many replicas must have a grant or a renewal before it counts.
    pub(super) replicas: u32,
}

/// Those who know which server is the primary.
#[derive(Clone)]
pub(in crate::stores) struct Sentinels {
    /// What they call the group of servers.
    pub(super) group: String,
    /// How to speak to each of them.
    pub(super) each: Vec<Config>,
    /// The servers that they name are spoken to with TLS, as they are themselves.
    pub(super) tls: Option<Tls>,
}

/// How the server is found.
#[derive(Clone, Debug)]
pub(in crate::stores) enum Place {
    /// It is always here.
    At(Address),
    /// It is whichever the sentinels call the primary.
    Primary(Sentinels),
    /// There are many, each of which serves some slots; these know who serves which.
    Cluster(Vec<Address>),
    /// It is this one of a cluster.
    Node(Address),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Address {
    Tcp { host: String, port: u16, tls: Option<Tls> },
    Unix(PathBuf),
}

impl Config {
    /// Reads a URL. Does no IO.
    pub(in crate::stores) fn parse(text: &str) -> Result<Self> {
        if let Some((scheme, rest)) = text.split_once("+sentinel://") {
            return Self::of_sentinels(scheme, rest);
        }
        if let Some((scheme, rest)) = text.split_once("+cluster://") {
            return Self::of_cluster(scheme, rest);
        }
        // The parser's errors do not repeat the URL, which may contain a password.
        let url = Url::parse(text).map_err(|error| invalid(format!("{error} in the Redis URL")))?;
        if url.fragment().is_some() {
            return Err(invalid(
                "a Redis URL has no `#` part; write `%23` for a `#` in a password",
            ));
        }
        let options = Options::of(&url)?;
        let unix = url.scheme() == "redis+unix";
        let (address, database) = match url.scheme() {
            "redis+unix" => unix_address(&url, &options)?,
            "redis" | "rediss" => tcp_address(&url, &options)?,
            other => {
                return Err(invalid(format!("`{other}:` is not redis:, rediss: or redis+unix:")));
            }
        };
        let (user, password) =
            if unix { (options.user, options.password) } else { credentials(&url)? };
        if user.is_some() && password.is_none() {
            return Err(invalid("the URL names a user but no password"));
        }
        Ok(Self {
            place: Place::At(address),
            user,
            password: password.map(SecretString::from),
            database,
            timeout: options.timeout.unwrap_or(DEFAULT_TIMEOUT),
            replicas: options.replicas.unwrap_or(0),
        })
    }

    /// Reads `USER:PASSWORD@HOST:PORT,HOST:PORT/GROUP/DATABASE?OPTIONS`: for each sentinel a URL of
    /// its own, which says of the servers what it says of it.
    fn of_sentinels(scheme: &str, rest: &str) -> Result<Self> {
        if scheme != "redis" && scheme != "rediss" {
            return Err(invalid("sentinels are named by redis+sentinel: or rediss+sentinel:"));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (group, database) = path.split_once('/').unwrap_or((path, ""));
        let group = decoded("name of the group", group)?;
        if group.is_empty() {
            return Err(invalid(
                "the URL does not say what the sentinels call the servers: redis+sentinel://HOST,HOST/mymaster",
            ));
        }
        let (own, common): (Vec<_>, Vec<_>) = form_urlencoded::parse(query.as_bytes())
            .partition(|(name, _)| name.starts_with("sentinel_"));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(common).finish();
        let (sentinel_user, sentinel_password) = sentinel_credentials(&own)?;
        let rest = format!("{database}?{query}");
        let (whole, addresses) = Self::of_each(scheme, authority, DEFAULT_SENTINEL_PORT, &rest)?;
        let sentinel = |address| Self {
            place: Place::At(address),
            user: sentinel_user.clone(),
            password: sentinel_password.clone(),
            database: 0,
            ..whole.clone()
        };
        let each = addresses.into_iter().map(sentinel).collect();
        let tls = whole.tls().cloned();
        Ok(Self { place: Place::Primary(Sentinels { group, each, tls }), ..whole })
    }

    /// Reads `USER:PASSWORD@HOST:PORT,HOST:PORT?OPTIONS`: some nodes of a cluster.
    fn of_cluster(scheme: &str, rest: &str) -> Result<Self> {
        if scheme != "redis" && scheme != "rediss" {
            return Err(invalid("a cluster is named by redis+cluster: or rediss+cluster:"));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let rest = format!("{path}?{query}");
        let (whole, nodes) = Self::of_each(scheme, authority, DEFAULT_PORT, &rest)?;
        if whole.database != 0 {
            return Err(invalid("a cluster has no other database than 0"));
        }
        Ok(Self { place: Place::Cluster(nodes), ..whole })
    }

    /// What a URL with one host says, for a URL with many, and where the hosts are.
    fn of_each(
        scheme: &str,
        authority: &str,
        default_port: u16,
        rest: &str,
    ) -> Result<(Self, Vec<Address>)> {
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let mut whole: Option<Self> = None;
        let mut addresses = Vec::new();
        for host in hosts.split(',') {
            let port = match host.rsplit_once(':') {
                Some((_, port)) if !port.ends_with(']') => String::new(),
                _ => format!(":{default_port}"),
            };
            let config = Self::parse(&format!("{scheme}://{user}{host}{port}/{rest}"))?;
            addresses.extend(config.address().cloned());
            whole = whole.or(Some(config));
        }
        let whole = whole.ok_or_else(|| invalid("the URL names no host"))?;
        Ok((whole, addresses))
    }

    /// The same for one node of the cluster.
    pub(super) fn at_node(&self, host: &str, port: u16) -> Self {
        let (host, tls) = (host.to_owned(), self.tls().cloned());
        Self { place: Place::Node(Address::Tcp { host, port, tls }), ..self.clone() }
    }

    /// Where the one server is that this names; `None` if somebody else has to be asked.
    pub(super) fn address(&self) -> Option<&Address> {
        match &self.place {
            Place::At(address) | Place::Node(address) => Some(address),
            Place::Primary(_) | Place::Cluster(_) => None,
        }
    }

    fn tls(&self) -> Option<&Tls> {
        let address = match &self.place {
            Place::At(address) | Place::Node(address) => address,
            Place::Primary(sentinels) => return sentinels.tls.as_ref(),
            Place::Cluster(nodes) => nodes.first()?,
        };
        match address {
            Address::Tcp { tls, .. } => tls.as_ref(),
            Address::Unix(_) => None,
        }
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_ref().map(ExposeSecret::expose_secret)
    }
}

#[derive(Default)]
struct Options {
    timeout: Option<Duration>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    replicas: Option<u32>,
    db: Option<u32>,
    user: Option<String>,
    password: Option<String>,
}

impl Options {
    fn of(url: &Url) -> Result<Self> {
        let (tls, unix) = (url.scheme() == "rediss", url.scheme() == "redis+unix");
        let mut options = Self::default();
        let mut seen = Vec::new();
        for (name, value) in url.query_pairs() {
            if seen.contains(&name) {
                return Err(invalid(format!("`{name}=` is given twice")));
            }
            match &*name {
                "timeout" => options.timeout = Some(duration(&value)?),
                "replicas" => options.replicas = Some(replicas(&value)?),
                "ca" if tls => options.ca = Some(file("ca", &value)?),
                "cert" if tls => options.cert = Some(file("cert", &value)?),
                "key" if tls => options.key = Some(file("key", &value)?),
                "db" if unix => options.db = Some(database(&value)?),
                "user" if unix => options.user = Some(value.into_owned()),
                "password" if unix => options.password = Some(value.into_owned()),
                "ca" | "cert" | "key" => {
                    return Err(invalid(format!("`{name}=` needs a rediss: URL")));
                }
                other => {
                    return Err(invalid(format!("unknown parameter `{}`", other.escape_debug())));
                }
            }
            seen.push(name);
        }
        Ok(options)
    }
}

fn tcp_address(url: &Url, options: &Options) -> Result<(Address, u32)> {
    let host = match url.host_str() {
        Some(host) if !host.is_empty() => host,
        _ => return Err(invalid("the URL names no host: redis://HOST:PORT/DB")),
    };
    let host = decoded("host", host.trim_start_matches('[').trim_end_matches(']'))?;
    let port = url.port().unwrap_or(DEFAULT_PORT);
    if port == 0 {
        return Err(invalid("port 0 is not a port"));
    }
    let database = match url.path().strip_prefix('/').unwrap_or(url.path()) {
        "" => 0,
        path => database(path)?,
    };
    let tls = if url.scheme() == "rediss" { Some(tls(options)?) } else { None };
    Ok((Address::Tcp { host, port, tls }, database))
}

fn tls(options: &Options) -> Result<Tls> {
    let identity = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(invalid("`cert=` and `key=` are given together or not at all")),
    };
    Ok(Tls { ca: options.ca.clone(), identity })
}

fn unix_address(url: &Url, options: &Options) -> Result<(Address, u32)> {
    let path = decoded("path", url.path())?;
    if url.has_host() && url.host_str().is_some_and(|host| !host.is_empty())
        || !Path::new(&path).is_absolute()
        || path == "/"
    {
        return Err(invalid("the socket's path is absolute: redis+unix:///run/redis.sock"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("with redis+unix: give `user=` and `password=` as parameters"));
    }
    Ok((Address::Unix(path.into()), options.db.unwrap_or(0)))
}

fn credentials(url: &Url) -> Result<(Option<String>, Option<String>)> {
    let user = decoded("user", url.username())?;
    let password = url.password().map(|text| decoded("password", text)).transpose()?;
    Ok(((!user.is_empty()).then_some(user), password))
}

fn decoded(what: &str, text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| invalid(format!("the {what} is not UTF-8 once its `%` are decoded")))
}

fn database(text: &str) -> Result<u32> {
    text.parse().map_err(|_| {
        invalid(format!("the database is a number, not `{}`: redis://HOST/2", text.escape_debug()))
    })
}

fn replicas(text: &str) -> Result<u32> {
    text.parse().ok().filter(|replicas| *replicas <= MAX_REPLICAS).ok_or_else(|| {
        let text = text.escape_debug();
        invalid(format!("`replicas={text}` is not a number of replicas from 0 to {MAX_REPLICAS}"))
    })
}

/// What the sentinels themselves are told, which is not what the servers are.
fn sentinel_credentials(
    options: &[(Cow<'_, str>, Cow<'_, str>)],
) -> Result<(Option<String>, Option<SecretString>)> {
    let (mut user, mut password) = (None, None);
    for (name, value) in options {
        let known = match &**name {
            "sentinel_user" => user.replace(value.clone().into_owned()).is_none(),
            "sentinel_password" => {
                password.replace(SecretString::from(value.clone().into_owned())).is_none()
            }
            other => {
                return Err(invalid(format!("unknown parameter `{}`", other.escape_debug())));
            }
        };
        if !known {
            return Err(invalid(format!("`{name}=` is given twice")));
        }
    }
    if user.is_some() && password.is_none() {
        return Err(invalid("`sentinel_user=` needs `sentinel_password=`"));
    }
    Ok((user, password))
}

fn file(name: &str, value: &str) -> Result<PathBuf> {
    if value.is_empty() {
        Err(invalid(format!("`{name}=` names no file")))
    } else {
        Ok(value.into())
    }
}

/// A number and its unit: `500ms`, `2s`, `1m`.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_mins(1)),
        _ => None,
    };
    number
        .parse::<u32>()
        .ok()
        .and_then(|number| unit?.checked_mul(number))
        .filter(|duration| !duration.is_zero() && *duration <= MAX_TIMEOUT)
        .ok_or_else(|| {
            let text = text.escape_debug();
            invalid(format!("`timeout={text}` is not a time from 1ms to 10m, such as 500ms or 2s"))
        })
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "read the store's URL", detail)
}

/// The URL without its password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{}@", user.escape_debug()));
        let user = user.unwrap_or_default();
        let scheme = if self.tls().is_some() { "rediss" } else { "redis" };
        match &self.place {
            Place::At(address @ Address::Unix(_)) => write!(f, "redis+unix://{address}")?,
            Place::At(address) | Place::Node(address) => {
                write!(f, "{scheme}://{user}{address}")?;
            }
            Place::Primary(sentinels) => write!(f, "{scheme}+sentinel://{user}{sentinels}")?,
            Place::Cluster(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(Address::to_string).collect();
                return write!(f, "{scheme}+cluster://{user}{}", nodes.join(","));
            }
        }
        write!(f, "/{}", self.database)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{}:{port}", host.escape_debug()),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// `HOST:PORT,HOST:PORT/GROUP`
impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, sentinel) in self.each.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if let Some(address) = sentinel.address() {
                write!(f, "{comma}{address}")?;
            }
        }
        write!(f, "/{}", self.group.escape_debug())
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sentinels({self})")
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.to_string())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
