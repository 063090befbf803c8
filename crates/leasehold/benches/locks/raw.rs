//! The floor: what the same driver does with the fewest bare requests that make something like a
//! lock, without a line, a fence or a lease that is renewed.

use std::path::Path;

use futures::future::{FutureExt, LocalBoxFuture};
use redis::aio::MultiplexedConnection;
use tokio_postgres::{NoTls, Statement};

/// Something that takes and gives back a bare lock.
pub(crate) trait Raw {
    /// Does so `count` times.
    fn pairs(&mut self, count: u32) -> LocalBoxFuture<'_, ()>;
}

/// A lock without a lease.
#[derive(Default)]
pub(crate) struct TokioMutex(tokio::sync::Mutex<()>);

impl Raw for TokioMutex {
    fn pairs(&mut self, count: u32) -> LocalBoxFuture<'_, ()> {
        async move {
            for _ in 0..count {
                drop(std::hint::black_box(&self.0).lock().await);
            }
        }
        .boxed_local()
    }
}

/// A row of a table.
pub(crate) struct RawSqlite(rusqlite::Connection);

impl RawSqlite {
    pub(crate) fn open(path: &Path) -> Self {
        let raw = rusqlite::Connection::open(path).unwrap();
        raw.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
             CREATE TABLE held (key TEXT PRIMARY KEY, token TEXT, expires INTEGER);",
        )
        .unwrap();
        Self(raw)
    }
}

impl Raw for RawSqlite {
    fn pairs(&mut self, count: u32) -> LocalBoxFuture<'_, ()> {
        async move {
            let take = "INSERT OR IGNORE INTO held VALUES ('bench', 'token', 1)";
            let mut take = self.0.prepare_cached(take).unwrap();
            let give = "DELETE FROM held WHERE key='bench' AND token='token'";
            let mut give = self.0.prepare_cached(give).unwrap();
            for _ in 0..count {
                take.execute([]).unwrap();
                give.execute([]).unwrap();
            }
        }
        .boxed_local()
    }
}

/// What the published recipes do.
pub(crate) struct RawRedis {
    connection: MultiplexedConnection,
    give: redis::Script,
}

impl RawRedis {
    pub(crate) async fn connect(url: &str) -> Self {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let give = redis::Script::new(
            "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end \
             return 0",
        );
        give.prepare_invoke().load_async(&mut connection).await.unwrap();
        Self { connection, give }
    }
}

impl Raw for RawRedis {
    fn pairs(&mut self, count: u32) -> LocalBoxFuture<'_, ()> {
        async move {
            for _ in 0..count {
                let mut set = redis::cmd("SET");
                set.arg("raw").arg("token").arg("NX").arg("PX").arg(30_000);
                let () = set.query_async(&mut self.connection).await.unwrap();
                let give = &self.give;
                let _: i64 =
                    give.key("raw").arg("token").invoke_async(&mut self.connection).await.unwrap();
            }
        }
        .boxed_local()
    }
}

/// A row of a table, by prepared statements that each commit.
pub(crate) struct RawPostgres {
    client: tokio_postgres::Client,
    take: Statement,
    give: Statement,
}

impl RawPostgres {
    pub(crate) async fn connect(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let table = "CREATE TABLE raw (key text PRIMARY KEY, token text, expires timestamptz)";
        client.batch_execute(table).await.unwrap();
        let take = "INSERT INTO raw VALUES ('bench', 'token', now() + interval '30 s') \
                    ON CONFLICT DO NOTHING";
        let take = client.prepare(take).await.unwrap();
        let give = "DELETE FROM raw WHERE key = 'bench' AND token = 'token'";
        let give = client.prepare(give).await.unwrap();
        Self { client, take, give }
    }
}

impl Raw for RawPostgres {
    fn pairs(&mut self, count: u32) -> LocalBoxFuture<'_, ()> {
        async move {
            for _ in 0..count {
                self.client.execute(&self.take, &[]).await.unwrap();
                self.client.execute(&self.give, &[]).await.unwrap();
            }
        }
        .boxed_local()
    }
}
