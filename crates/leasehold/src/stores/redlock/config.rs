//! URL and options.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::stores::redis::config::{Address, Config as Server, Place};

/// More servers make no lock safer, and each attempt slower.
const MOST: usize = 15;

/// Where the servers are, and how to speak to them.
#[derive(Debug)]
pub(super) struct Config {
    /// An odd number, each of them once.
    pub(super) servers: Vec<Server>,
}

impl Config {
    /// Reads `USER:PASSWORD@HOST:PORT,HOST:PORT,HOST:PORT/DATABASE?OPTIONS`: for each server a URL of
    /// its own. Does no IO.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("redlock", rest)) => ("redis", rest),
            Some(("redlocks", rest)) => ("rediss", rest),
            _ => {
                return Err(invalid(
                    "servers that vote are named by redlock://HOST,HOST,HOST, or over TLS by redlocks:",
                ));
            }
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.split('&').any(|option| option.starts_with("replicas=")) {
            return Err(invalid(
                "`replicas=` is of no use here: a quorum counts on no server's replicas",
            ));
        }
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let question = if query.is_empty() { "" } else { "?" };
        let parsed = hosts
            .split(',')
            .map(|host| Server::parse(&format!("{scheme}://{user}{host}/{path}{question}{query}")));
        let servers = parsed.collect::<Result<Vec<_>>>()?;
        check(&servers)?;
        Ok(Self { servers })
    }

    /// What the servers have in common.
    pub(super) fn common(&self) -> &Server {
        &self.servers[0]
    }
}

/// Refuses what is no quorum.
fn check(servers: &[Server]) -> Result<()> {
    let count = servers.len();
    if count == 1 {
        return Err(invalid(
            "one server is no quorum: name at least 3, or use redis://HOST for a single one",
        ));
    }
    if count.is_multiple_of(2) {
        return Err(invalid(format!(
            "{count} servers survive no more failures than {} do, and have one more that can fail: \
             name an odd number, such as 3 or 5",
            count - 1
        )));
    }
    if count > MOST {
        return Err(invalid(format!("{count} servers are too many; name {MOST} at most")));
    }
    for (index, server) in servers.iter().enumerate() {
        let name = name_of(server);
        if servers[..index].iter().any(|other| name_of(other).eq_ignore_ascii_case(&name)) {
            return Err(invalid(format!(
                "`{name}` is named twice: its vote would count twice, and two could hold"
            )));
        }
    }
    Ok(())
}

/// `HOST:PORT`
pub(super) fn name_of(server: &Server) -> String {
    match &server.place {
        Place::At(address) | Place::Node(address) => address.to_string(),
        Place::Primary(sentinels) => sentinels.to_string(),
        Place::Cluster(nodes) => {
            nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
    }
}

/// The host of a server, to compare with others.
pub(super) fn host_of(server: &Server) -> Option<String> {
    match &server.place {
        Place::At(Address::Tcp { host, .. }) => Some(host.to_ascii_lowercase()),
        _ => None,
    }
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "read the store's URL", detail)
}

/// The URL without its password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { place, user, database, .. } = self.common();
        let secure = matches!(place, Place::At(Address::Tcp { tls: Some(_), .. }));
        f.write_str(if secure { "redlocks://" } else { "redlock://" })?;
        if let Some(user) = user {
            write!(f, "{}@", user.escape_debug())?;
        }
        let names: Vec<String> = self.servers.iter().map(name_of).collect();
        write!(f, "{}/{database}", names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_the_servers_have_in_common_is_said_once() {
        let url = "redlock://me:s%40fe@a,b:7000,[::1]:7001/3?timeout=500ms";
        let config = Config::parse(url).unwrap();
        assert_eq!(config.to_string(), "redlock://me@a:6379,b:7000,[::1]:7001/3");
        assert!(config.servers.iter().all(|server| server.timeout == Duration::from_millis(500)));
        let tls = Config::parse("redlocks://a,b,c?ca=/ca.pem").unwrap();
        assert_eq!(tls.to_string(), "redlocks://a:6379,b:6379,c:6379/0");
    }

    #[test]
    fn what_is_no_quorum_is_refused_with_the_reason() {
        for (url, reason) in [
            ("redlock://a", "one server is no quorum"),
            ("redlock://a,b", "an odd number"),
            ("redlock://a,b,c,d", "an odd number"),
            ("redlock://a,b,A", "`A:6379` is named twice"),
            ("redlock://a,b,a:6379", "named twice"),
            ("redlock://a,b,c?replicas=1", "of no use here"),
            ("redlock://a,b,", "names no host"),
            ("redlock://a,b,c?timeout=0s", "timeout=0s"),
            ("redlock://a,b,c?ca=/ca.pem", "needs a rediss: URL"),
            ("redlock://a,b,c/x", "the database is a number"),
            ("redis://a,b,c", "redlock://HOST,HOST,HOST"),
            ("redlock://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "15 at most"),
        ] {
            let error = Config::parse(url).map(|_| ()).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
            assert!(error.to_string().contains(reason), "{url}: {error}");
        }
        let error = Config::parse("redlock://:hunter2@a,b").map(|_| ()).expect_err("even");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
