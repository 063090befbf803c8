//! The lock services.

#[cfg(any(feature = "redis", feature = "zookeeper"))]
pub(crate) mod dial;
#[cfg(feature = "etcd")]
pub mod etcd;
pub(crate) mod mailbox;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "redlock")]
pub mod redlock;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "redis", feature = "postgres", feature = "zookeeper"))]
pub(crate) mod tls;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

use std::sync::Arc;

#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use memory::Memory;
#[cfg(feature = "postgres")]
pub use postgres::Postgres;
#[cfg(feature = "redis")]
pub use redis::Redis;
#[cfg(feature = "redlock")]
pub use redlock::Redlock;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
#[cfg(feature = "zookeeper")]
pub use zookeeper::ZooKeeper;

use crate::error::{Error, ErrorKind, Result};
use crate::property::Properties;
use crate::store::Store;

/// The store that `url` names. Parses and checks; no IO happens before the store is used.
///
/// # Errors
///
/// [`ErrorKind::Invalid`] for a URL that names no store or that the store cannot read,
/// [`ErrorKind::Unsupported`] for a store that this build does not contain.
pub fn connect(url: &str) -> Result<Arc<dyn Store>> {
    // The URL itself may contain a password, so an error names no more of it than the scheme.
    let named = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme));
    let (scheme, rest) = named.ok_or_else(|| {
        let detail = "a store is named by a URL such as sqlite:/var/lib/app/locks.db or \
                      redis://localhost; this text has no scheme";
        Error::new(ErrorKind::Invalid, "read the store's URL", detail)
    })?;
    match scheme {
        "memory" if rest.is_empty() => Ok(Arc::new(Memory::new())),
        "memory" => {
            let detail = "memory: takes nothing after the colon";
            Err(Error::new(ErrorKind::Invalid, "read the store's URL", detail))
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(Postgres::new(url)?)),
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => Ok(Arc::new(Etcd::new(url)?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(Sqlite::new(url)?)),
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "redis+unix" | "redis+sentinel" | "rediss+sentinel"
        | "redis+cluster" | "rediss+cluster" => Ok(Arc::new(Redis::new(url)?)),
        #[cfg(feature = "redlock")]
        "redlock" | "redlocks" => Ok(Arc::new(Redlock::new(url)?)),
        #[cfg(feature = "zookeeper")]
        "zookeeper" | "zookeepers" => Ok(Arc::new(ZooKeeper::new(url)?)),
        scheme => {
            let detail =
                format!("{scheme:?} is no store of this build; there are: {}", SCHEMES.join(", "));
            Err(Error::new(ErrorKind::Unsupported, "read the store's URL", detail))
        }
    }
}

/// The stores of this build by name, with what they promise.
pub(crate) const KINDS: &[(&str, Properties)] = &[
    ("memory", memory::PROPERTIES),
    #[cfg(feature = "sqlite")]
    ("SQLite", sqlite::PROPERTIES),
    #[cfg(feature = "redis")]
    ("Redis", redis::PROPERTIES),
    #[cfg(feature = "redlock")]
    ("Redlock", redlock::PROPERTIES),
    #[cfg(feature = "postgres")]
    ("PostgreSQL", postgres::PROPERTIES),
    #[cfg(feature = "etcd")]
    ("etcd", etcd::PROPERTIES),
    #[cfg(feature = "zookeeper")]
    ("ZooKeeper", zookeeper::PROPERTIES),
];

/// Says of a store what it lacks, and which stores have it.
pub(crate) fn without(missing: Properties) -> String {
    let having = |wanted: Properties| {
        let kinds = KINDS.iter().filter(|(_, has)| (wanted - *has).is_empty());
        let names: Vec<_> = kinds.map(|(name, _)| *name).collect();
        if names.is_empty() { "no store of this build has it".into() } else { names.join(", ") }
    };
    let lacks = missing.iter().map(|property| format!("{property} ({})", having(property.into())));
    let lacks = lacks.collect::<Vec<_>>().join("; ");
    format!("it lacks what is demanded, which the stores in brackets have: {lacks}")
}

/// RFC 3986, section 3.1. What is none may be anything, also a password.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
}

/// The URL schemes of the stores that this build contains.
const SCHEMES: &[&str] = &[
    "memory",
    #[cfg(feature = "postgres")]
    "postgres",
    #[cfg(feature = "etcd")]
    "etcd",
    #[cfg(feature = "etcd")]
    "etcds",
    #[cfg(feature = "sqlite")]
    "sqlite",
    #[cfg(feature = "redis")]
    "redis",
    #[cfg(feature = "redis")]
    "rediss",
    #[cfg(feature = "redis")]
    "redis+unix",
    #[cfg(feature = "redis")]
    "redis+sentinel",
    #[cfg(feature = "redis")]
    "rediss+sentinel",
    #[cfg(feature = "redis")]
    "redis+cluster",
    #[cfg(feature = "redis")]
    "rediss+cluster",
    #[cfg(feature = "redlock")]
    "redlock",
    #[cfg(feature = "redlock")]
    "redlocks",
    #[cfg(feature = "zookeeper")]
    "zookeeper",
    #[cfg(feature = "zookeeper")]
    "zookeepers",
];
