//! A PgBouncer of a test's own, before a PostgreSQL of its own.

use std::fs;
use std::net::TcpStream;

use tempfile::TempDir;

use crate::missing::require;
use crate::port::free_port;
use crate::postgres::{self, DATABASE, PASSWORD, Postgres, ROLE};
use crate::server::{Server, Spec};

/// A running PgBouncer. It ends with this value, and with the test process.
#[derive(Debug)]
pub struct PgBouncer {
    _server: Server,
    port: u16,
    _home: TempDir,
}

impl PgBouncer {
    /// Starts one with the given `pool_mode`: `transaction`, `session`, or `statement`.
    #[must_use]
    pub fn before(postgres: &Postgres, mode: &str) -> Self {
        let home = TempDir::with_prefix("leasehold-pgbouncer-").expect("cannot make a directory");
        let (directory, port) = (home.path().to_owned(), free_port());
        let (config, users, log) =
            (directory.join("ini"), directory.join("users"), directory.join("log"));
        let text = format!(
            "[databases]\n{DATABASE} = host=127.0.0.1 port={}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n\
             default_pool_size = 5\nserver_login_retry = 0\n",
            postgres.port(),
            users.display(),
        );
        fs::write(&config, text).expect("cannot write pgbouncer.ini");
        fs::write(&users, format!("\"{ROLE}\" \"{PASSWORD}\"\n")).expect("cannot write the users");
        fs::write(&log, "").expect("cannot write the log");
        postgres::own(&directory);
        let pgbouncer = require("pgbouncer", "pgbouncer");
        let (program, args) = postgres::as_user(&pgbouncer, &[config.into_os_string()]);
        let server = Server::start(Spec {
            name: "pgbouncer",
            program,
            args,
            env: Vec::new(),
            log,
            ready: Box::new(move |_| {
                TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|why| why.to_string())
            }),
        });
        Self { _server: server.unwrap_or_else(|why| panic!("{why}")), port, _home: home }
    }

    /// The port, on 127.0.0.1. See [`Postgres::url_on`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}
