//! Redis: the script around a write.

use std::collections::BTreeMap;

use leasehold::Guard;
use leasehold::fence::redis::{LIBRARY, SCRIPT, fence_key, refusal};
use leasehold_testbed::{Redis, test_name};
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Script, Value};

use crate::{Resource, a_paused_holder_is_refused, assert_never_decreases, numbers};

async fn connect(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// The script around a command that writes `key`.
async fn write(
    connection: &mut MultiplexedConnection,
    key: &str,
    token: &str,
    keep: &str,
    command: &[&str],
) -> RedisResult<Value> {
    Script::new(SCRIPT)
        .key(fence_key(key).unwrap())
        .key(key)
        .arg(token)
        .arg(keep)
        .arg(command)
        .invoke_async(connection)
        .await
}

struct Report {
    connection: MultiplexedConnection,
}

impl Resource for Report {
    type Hold = u64;

    async fn open(_lock: &str, address: &str) -> Self {
        Self { connection: connect(address).await }
    }

    fn hold(&self, guard: &Guard) -> u64 {
        guard.fence().get()
    }

    async fn write(&self, hold: &u64, value: &str) -> Result<(), String> {
        let mut connection = self.connection.clone();
        let command = ["SET", "report", value];
        let written = write(&mut connection, "report", &hold.to_string(), "0", &command).await;
        written.map(|answer| assert_eq!(answer, Value::Okay)).map_err(|error| {
            refusal("report", &error.to_string()).expect("nothing else goes wrong").to_string()
        })
    }

    async fn read(&self) -> String {
        redis::cmd("GET").arg("report").query_async(&mut self.connection.clone()).await.unwrap()
    }
}

#[test]
fn a_holder_that_was_paused_past_its_lease_is_refused() {
    let start = || {
        let server = Redis::start();
        let url = server.url();
        (server, url.clone(), url)
    };
    a_paused_holder_is_refused::<Report, _>(&test_name!(), start, "it has seen");
}

#[tokio::test]
async fn fences_are_compared_to_the_last_digit() {
    let server = Redis::start();
    let mut connection = connect(&server.url()).await;
    let mut set =
        async |token: &str| write(&mut connection, "k", token, "0", &["SET", "k", token]).await;
    for fresh in ["0", "9", "10", "9007199254740993", "9007199254740994", "18446744073709551615"] {
        set(fresh).await.unwrap();
        set(fresh).await.unwrap();
    }
    for stale in ["0", "9", "9007199254740993", "18446744073709551614", "9999999999999999999"] {
        let error = set(stale).await.unwrap_err();
        assert_eq!(error.code(), Some("STALEFENCE"), "{stale}: {error}");
        let stale_fence = refusal("k", &error.to_string()).unwrap();
        assert_eq!(
            (stale_fence.token.to_string().as_str(), stale_fence.greatest.get()),
            (stale, u64::MAX)
        );
    }
    for bad in ["", "-1", "01", "1.5", "1e3", "x", "0x10", "184467440737095516150", " 1"] {
        assert_eq!(set(bad).await.unwrap_err().code(), Some("NOFENCE"), "{bad:?}");
    }
    assert_eq!(server.cli(&["GET", "k"]), "18446744073709551615");
}

#[tokio::test]
async fn a_write_that_fails_was_not_seen() {
    let server = Redis::start();
    let mut connection = connect(&server.url()).await;
    server.cli(&["SET", "k", "text"]);
    let error = write(&mut connection, "k", "9", "0", &["RPUSH", "k", "x"]).await.unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
    assert_eq!(server.cli(&["EXISTS", &fence_key("k").unwrap()]), "0");
    write(&mut connection, "k", "8", "0", &["APPEND", "k", "!"]).await.unwrap();
    assert_eq!(server.cli(&["GET", "k"]), "text!");
}

#[tokio::test]
async fn a_fence_is_remembered_for_as_long_as_was_said() {
    let server = Redis::start();
    let mut connection = connect(&server.url()).await;
    let fence = fence_key("k").unwrap();
    write(&mut connection, "k", "5", "86400000", &["SET", "k", "v"]).await.unwrap();
    let left: u64 = server.cli(&["PTTL", &fence]).parse().unwrap();
    assert!((1..=86_400_000).contains(&left), "{left}");
    // Without a command it is taken note of.
    write(&mut connection, "k", "6", "0", &[]).await.unwrap();
    assert_eq!(server.cli(&["PTTL", &fence]), "-1");
    assert_eq!(
        write(&mut connection, "k", "5", "0", &[]).await.unwrap_err().code(),
        Some("STALEFENCE")
    );
    for bad in ["-1", "x", "1.5", ""] {
        let error = write(&mut connection, "k", "7", bad, &["SET", "k", "w"]).await.unwrap_err();
        assert_eq!(error.code(), Some("NOFENCE"), "{bad:?}");
    }
}

#[tokio::test]
async fn the_function_does_the_same() {
    let server = Redis::start();
    server.cli(&["FUNCTION", "LOAD", LIBRARY]);
    let mut connection = connect(&server.url()).await;
    let mut call = async |token: u64| -> RedisResult<Value> {
        let fence = fence_key("k").unwrap();
        let mut call = redis::cmd("FCALL");
        call.arg("leasehold_write").arg(2).arg(fence).arg("k").arg(token).arg(0);
        call.arg(&["SET", "k", "v"]).query_async(&mut connection).await
    };
    assert_eq!(call(34).await.unwrap(), Value::Okay);
    assert_eq!(call(33).await.unwrap_err().code(), Some("STALEFENCE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_write_at_once_never_decreases() {
    let server = Redis::start();
    let writers = (1..=8).map(|seed| {
        let url = server.url();
        tokio::spawn(async move {
            let mut connection = connect(&url).await;
            for token in numbers(seed, 1000).take(200) {
                let token = token.to_string();
                let _ = write(&mut connection, "log", &token, "0", &["RPUSH", "log", &token]).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let log = server.cli(&["LRANGE", "log", "0", "-1"]);
    let accepted: Vec<u64> = log.lines().map(|token| token.parse().unwrap()).collect();
    assert_never_decreases(&accepted);
    assert_eq!(
        server.cli(&["GET", &fence_key("log").unwrap()]),
        accepted.last().unwrap().to_string()
    );
}

/// The server's own opinion of slots.
#[tokio::test]
async fn a_fence_is_in_the_slot_of_its_key() {
    let server = Redis::options().config("cluster-enabled", "yes").start();
    let slot = |key: &str| server.cli(&["CLUSTER", "KEYSLOT", key]);
    let keys = ["report", "{u}:1", "a{b}c{d}", "a{b", "{", "鍵", "a b"];
    let slots: BTreeMap<_, _> = keys.iter().map(|key| (key, slot(key))).collect();
    for (key, expected) in slots {
        assert_eq!(slot(&fence_key(key).unwrap()), expected, "{key}");
    }
}
