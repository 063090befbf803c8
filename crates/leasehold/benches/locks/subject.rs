//! The stores that are measured, each with its server and its raw driver.

#![expect(clippy::unused_async, reason = "all start in the same way")]

use std::any::Any;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;

use futures::future::{FutureExt, LocalBoxFuture};
use leasehold_testbed::{Etcd, Postgres, Redis, ZooKeeper};

use crate::raw::{Raw, RawPostgres, RawRedis, RawSqlite, TokioMutex};
use crate::raw_etcd::RawEtcd;
use crate::raw_zookeeper::RawZooKeeper;

/// One store.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) raw_name: &'static str,
    pub(crate) url: String,
    /// How many pairs a round has.
    pub(crate) pairs: u32,
    pub(crate) raw: Box<dyn Raw>,
    /// The requests that the server counted so far.
    pub(crate) counted: Option<Box<dyn Fn() -> u64>>,
    /// Other processes can reach it.
    pub(crate) shared: bool,
    /// What ends with the measurement.
    _server: Box<dyn Any>,
}

type Start = fn() -> LocalBoxFuture<'static, Subject>;

/// All of them, by the names that the command line takes.
pub(crate) const ALL: [(&str, Start); 6] = [
    ("memory", || memory().boxed_local()),
    ("sqlite", || sqlite().boxed_local()),
    ("redis", || redis().boxed_local()),
    ("postgres", || postgres().boxed_local()),
    ("etcd", || etcd().boxed_local()),
    ("zookeeper", || zookeeper().boxed_local()),
];

async fn memory() -> Subject {
    Subject {
        name: "memory",
        raw_name: "tokio's `Mutex`",
        url: "memory:".to_owned(),
        pairs: 20_000,
        raw: Box::new(TokioMutex::default()),
        counted: None,
        shared: false,
        _server: Box::new(()),
    }
}

async fn sqlite() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    Subject {
        name: "SQLite",
        raw_name: "rusqlite insert + delete",
        url: format!("sqlite:{}", directory.path().join("ours.db").display()),
        pairs: 2_000,
        raw: Box::new(RawSqlite::open(&directory.path().join("raw.db"))),
        counted: None,
        shared: true,
        _server: Box::new(directory),
    }
}

async fn redis() -> Subject {
    let server = Rc::new(Redis::start());
    let counting = Rc::clone(&server);
    let counted = move || -> u64 {
        let stats = counting.cli(&["INFO", "commandstats"]);
        let calls = stats.lines().filter_map(|line| {
            let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            // What runs inside of a script is no request.
            matches!(command, "evalsha" | "eval").then_some(rest.split(',').next()?)
        });
        calls.map(|calls| calls.parse::<u64>().unwrap()).sum()
    };
    Subject {
        name: "Redis",
        raw_name: "`SET NX PX` + `EVALSHA` compare-and-delete",
        url: server.url(),
        pairs: 2_000,
        raw: Box::new(RawRedis::connect(&server.url()).await),
        counted: Some(Box::new(counted)),
        shared: true,
        _server: Box::new(server),
    }
}

async fn postgres() -> Subject {
    let extension = "pg_stat_statements";
    let options = Postgres::options().config("shared_preload_libraries", extension);
    let server = Rc::new(options.start());
    server.psql(&format!("CREATE EXTENSION {extension}"));
    let counting = Rc::clone(&server);
    let counted = move || -> u64 {
        let sum = "SELECT sum(calls) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat%'";
        counting.psql(sum).parse().unwrap()
    };
    Subject {
        name: "PostgreSQL",
        raw_name: "`INSERT … ON CONFLICT DO NOTHING` + `DELETE`, prepared",
        url: server.url(),
        pairs: 500,
        raw: Box::new(RawPostgres::connect(&server.url()).await),
        counted: Some(Box::new(counted)),
        shared: true,
        _server: Box::new(server),
    }
}

async fn etcd() -> Subject {
    let server = Rc::new(Etcd::start());
    let counting = Rc::clone(&server);
    let counted = move || -> u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", counting.ports()[0])).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let started = |line: &&str| {
            line.starts_with("grpc_server_started_total") && line.contains("\"etcdserverpb.KV\"")
        };
        let calls = text.lines().filter(started).filter_map(|line| line.rsplit_once(' '));
        calls.map(|(_, calls)| calls.parse::<u64>().unwrap()).sum()
    };
    Subject {
        name: "etcd",
        raw_name: "transaction + delete under a shared lease, tonic",
        url: server.url(),
        pairs: 300,
        raw: Box::new(RawEtcd::connect(server.ports()[0]).await),
        counted: Some(Box::new(counted)),
        shared: true,
        _server: Box::new(server),
    }
}

async fn zookeeper() -> Subject {
    let server = Rc::new(ZooKeeper::start());
    let counting = Rc::clone(&server);
    let asked = Cell::new(0);
    let counted = move || -> u64 {
        let text = counting.ask(0, "mntr");
        let line = text.lines().find_map(|line| line.strip_prefix("zk_packets_received"));
        // The question is a packet too.
        asked.set(asked.get() + 1);
        line.unwrap().trim().parse::<u64>().unwrap() - asked.get()
    };
    Subject {
        name: "ZooKeeper",
        raw_name: "create an ephemeral sequential node + delete it",
        url: server.url(),
        pairs: 300,
        raw: Box::new(RawZooKeeper::connect(server.port(0)).await),
        counted: Some(Box::new(counted)),
        shared: true,
        _server: Box::new(server),
    }
}
