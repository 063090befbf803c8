//! One connection to the server, and what its answers mean: the user of the driver.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Cmd, ErrorKind as DriverErrorKind, FromRedisValue, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, RedisError, ToRedisArgs, Value, cmd,
};
use futures::future::join_all;
use tokio::task::AbortHandle;

use super::config::{Address, Config};
use super::dial::dial;
use super::failure::{Destination, Failure, Redirect};
use super::scripts::{self, Script};
use super::sentinel::Named;
use super::topology::Topology;
use crate::error::ErrorKind;

/// The oldest server that has what the scripts use (`SET … PXAT`).
const OLDEST: (u32, u32) = (6, 2);

/// Who is expected at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Partner<'a> {
    /// A server.
    Server,
    /// The server at an address that the sentinels gave, which must be a primary.
    Primary(&'a Address),
    /// A node of a cluster.
    Node,
    /// A sentinel.
    Sentinel,
}

/// What the server says unasked, in the order in which it does.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    Message {
        channel: &'a [u8],
        text: &'a [u8],
    },
    Subscribed(&'a [u8]),
    /// Also by the server itself, when it gives the slot of a channel away.
    Unsubscribed(&'a [u8]),
}

/// A connection that has said hello. Dropping it closes the connection.
#[derive(Debug)]
pub(in crate::stores) struct Wire {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    /// Channels are in slots.
    sharded: bool,
}

impl Wire {
    /// Connects, introduces itself, loads the scripts and subscribes to `channels`: two round trips.
    ///
    /// `heard` is called with what the server says unasked, `ended` once when the connection has
    /// ended by itself.
    pub(super) async fn connect(
        config: &Config,
        partner: Partner<'_>,
        channels: &[String],
        heard: impl Fn(Heard<'_>) + Send + Sync + 'static,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Failure> {
        let address = match partner {
            Partner::Primary(address) => Some(address),
            _ => config.address(),
        };
        let address = address.ok_or_else(|| {
            Failure::new(ErrorKind::Invalid, "others have to be asked for the address first")
        })?;
        let stream = dial(address).await?;
        let push = move |push: PushInfo| {
            if let Some(told) = told(&push) {
                heard(told);
            }
            Ok::<(), ()>(())
        };
        // The caller's time-out covers the handshake and each request; the driver's own would hide it.
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024)
            .set_push_sender(push);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&introduction(config), stream, options)
                .await
                .map_err(refused)?;
        let driver = tokio::spawn(async move {
            driver.await;
            ended();
        });
        let sharded = matches!(partner, Partner::Node);
        let wire = Self { connection, driver: driver.abort_handle(), sharded };
        let (hello, _, subscribed) = futures::join!(
            wire.send(cmd("HELLO")),
            // Without the permission to load scripts, each is sent in full once.
            join_all(partner.scripts().map(|script| wire.send(load(script)))),
            join_all(channels.iter().map(|channel| wire.subscribe(channel))),
        );
        partner.check(&hello?)?;
        subscribed.into_iter().collect::<Result<(), _>>()?;
        Ok(wire)
    }

    /// Runs a script.
    pub(in crate::stores) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[impl ToRedisArgs],
    ) -> Result<Value, Failure> {
        let call = |command, text: &str| {
            let mut call = cmd(command);
            call.arg(text).arg(keys.len()).arg(keys).arg(arguments);
            call
        };
        match self.driver_send(call("EVALSHA", &script.hash)).await {
            // A restart or SCRIPT FLUSH made the server forget it. Nothing ran, so ask again.
            Err(error) if error.code() == Some("NOSCRIPT") => {
                self.driver_send(call("EVAL", script.text)).await.map_err(|error| failed(&error))
            }
            other => other.map_err(|error| failed(&error)),
        }
    }

    /// Runs a script at a node that is taking the slot of the keys over.
    pub(super) async fn run_there(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[impl ToRedisArgs],
    ) -> Result<Value, Failure> {
        // The permission is for the next command of the connection, which others use too.
        let mut both = ::redis::pipe();
        both.cmd("ASKING").cmd("EVAL").arg(script.text).arg(keys.len()).arg(keys).arg(arguments);
        let answers = self.connection.clone().send_packed_commands(&both, 0, 2).await;
        match answers.map_err(|error| failed(&error))?.pop() {
            Some(Value::ServerError(error)) => Err(failed(&error.into())),
            Some(answer) => Ok(answer),
            None => Err(Failure::strange_answer()),
        }
    }

    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), Failure> {
        if self.sharded {
            return self.send(about("SSUBSCRIBE", channel)).await.map(drop);
        }
        self.connection.clone().subscribe(channel).await.map_err(|error| failed(&error))
    }

    pub(super) async fn unsubscribe(&self, channel: &str) -> Result<(), Failure> {
        if self.sharded {
            return self.send(about("SUNSUBSCRIBE", channel)).await.map(drop);
        }
        self.connection.clone().unsubscribe(channel).await.map_err(|error| failed(&error))
    }

    /// Tells the listeners of a channel of a cluster something.
    pub(super) async fn publish(&self, channel: &str, text: &str) -> Result<(), Failure> {
        let mut publish = about("SPUBLISH", channel);
        publish.arg(text);
        self.send(publish).await.map(drop)
    }

    /// Who serves which slots, as a node of a cluster knows it.
    pub(super) async fn topology(&self) -> Result<Topology, Failure> {
        let (state, slots) = futures::join!(
            self.send(about("CLUSTER", "INFO")),
            self.send(about("CLUSTER", "SLOTS"))
        );
        let state: String = decode(state?)?;
        Topology::read(&state, slots?).ok_or_else(Failure::strange_answer)
    }

    /// The nodes of a cluster, a line each; `None` if it refuses to say.
    pub(super) async fn cluster_says(&self, what: &str) -> Result<Option<String>, Failure> {
        self.ask(about("CLUSTER", what)).await?.map(decode).transpose()
    }

    /// One step of a scan: the cursor of the next, and the names.
    pub(in crate::stores) async fn scan(
        &self,
        cursor: u64,
        pattern: &str,
    ) -> Result<(u64, Vec<Vec<u8>>), Failure> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1000);
        decode(self.send(scan).await?)
    }

    /// Which server a sentinel thinks is the primary of a group.
    pub(super) async fn named(&self, group: &str) -> Result<Named, Failure> {
        let mut ask = cmd("SENTINEL");
        ask.arg("MASTER").arg(group);
        let group = group.escape_debug();
        let answer = self.driver_send(ask).await.map_err(|error| match error.detail() {
            Some(detail) if detail.contains("No such master") => {
                let detail = format!("the sentinels know no group of servers called `{group}`");
                Failure::new(ErrorKind::Invalid, detail)
            }
            _ => failed(&error),
        })?;
        let number = |name| field(&answer, name)?.parse().ok();
        let named = || {
            let port = u16::try_from(number("port")?).ok()?;
            Some(Named { epoch: number("config-epoch")?, host: field(&answer, "ip")?, port })
        };
        named().ok_or_else(Failure::strange_answer)
    }

    /// Waits until `replicas` replicas have what was written by this connection, and says how many do.
    pub(super) async fn replicated(
        &self,
        replicas: u32,
        patience: Duration,
    ) -> Result<u32, Failure> {
        let mut wait = cmd("WAIT");
        // Zero would be for ever.
        wait.arg(replicas).arg(patience.as_millis().max(1).to_string());
        decode(self.send(wait).await?)
    }

    /// What the server says of itself, a line a fact; `None` if it refuses to.
    pub(in crate::stores) async fn info(&self) -> Result<Option<String>, Failure> {
        self.ask(cmd("INFO")).await?.map(decode).transpose()
    }

    /// A directive of its configuration; `None` if it refuses to say, empty if it has none.
    pub(super) async fn directive(&self, name: &str) -> Result<Option<String>, Failure> {
        let mut get = cmd("CONFIG");
        get.arg("GET").arg(name);
        let Some(answer) = self.ask(get).await? else { return Ok(None) };
        let found: Vec<(String, String)> = decode(answer)?;
        Ok(Some(found.into_iter().map(|(_, value)| value).next().unwrap_or_default()))
    }

    /// The server's clock, in microseconds since 1970; `None` if it refuses to say.
    pub(super) async fn time(&self) -> Result<Option<u64>, Failure> {
        let Some(answer) = self.ask(cmd("TIME")).await? else { return Ok(None) };
        let (seconds, micros): (u64, u64) = decode(answer)?;
        Ok(Some(seconds.saturating_mul(1_000_000).saturating_add(micros)))
    }

    /// Asks what a server may refuse: by its access list, or because a provider disabled it.
    async fn ask(&self, command: Cmd) -> Result<Option<Value>, Failure> {
        match self.driver_send(command).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.code().is_some() => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn send(&self, command: Cmd) -> Result<Value, Failure> {
        self.driver_send(command).await.map_err(|error| failed(&error))
    }

    async fn driver_send(&self, command: Cmd) -> Result<Value, RedisError> {
        // A clone is a handle to the same connection.
        match self.connection.clone().send_packed_command(&command).await? {
            Value::ServerError(error) => Err(error.into()),
            value => Ok(value),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Reads an answer.
pub(in crate::stores) fn decode<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    ::redis::from_redis_value(value).map_err(|_| Failure::strange_answer())
}

fn introduction(config: &Config) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
        .set_db(i64::from(config.database));
    if let Some(user) = &config.user {
        info = info.set_username(user);
    }
    if let Some(password) = config.password() {
        info = info.set_password(password);
    }
    info
}

/// What a push means for those who listen.
fn told(push: &PushInfo) -> Option<Heard<'_>> {
    Some(match (&push.kind, push.data.as_slice()) {
        (
            PushKind::Message | PushKind::SMessage,
            [Value::BulkString(channel), Value::BulkString(text)],
        ) => Heard::Message { channel, text },
        (PushKind::Subscribe | PushKind::SSubscribe, [Value::BulkString(channel), ..]) => {
            Heard::Subscribed(channel)
        }
        (PushKind::Unsubscribe | PushKind::SUnsubscribe, [Value::BulkString(channel), ..]) => {
            Heard::Unsubscribed(channel)
        }
        _ => return None,
    })
}

fn about(command: &str, argument: &str) -> Cmd {
    let mut command = cmd(command);
    command.arg(argument);
    command
}

fn load(script: &Script) -> Cmd {
    let mut load = cmd("SCRIPT");
    load.arg("LOAD").arg(script.text);
    load
}

impl Partner<'_> {
    fn scripts(self) -> impl Iterator<Item = &'static Script> {
        scripts::all().into_iter().filter(move |_| !matches!(self, Self::Sentinel))
    }

    /// Refuses a server that cannot keep the store's promises.
    fn check(self, hello: &Value) -> Result<(), Failure> {
        let version = field(hello, "version").ok_or_else(Failure::strange_answer)?;
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            let detail = format!(
                "the server is version {}; leasehold needs {}.{} or newer",
                version.escape_debug(),
                OLDEST.0,
                OLDEST.1
            );
            return Err(Failure::new(ErrorKind::Unsupported, detail));
        }
        let (mode, role) = (field(hello, "mode"), field(hello, "role"));
        match (self, mode.as_deref()) {
            (Self::Node, Some("cluster")) => Ok(()),
            (_, Some("cluster")) => {
                let detail =
                    "the server is a node of a cluster; name it by redis+cluster://HOST,HOST";
                Err(Failure::new(ErrorKind::Invalid, detail))
            }
            (Self::Server | Self::Primary(_) | Self::Node, Some("sentinel")) => {
                let detail =
                    "this is a sentinel, not a server; name it by redis+sentinel://HOST/GROUP";
                Err(Failure::new(ErrorKind::Invalid, detail))
            }
            (Self::Sentinel, mode) if mode != Some("sentinel") => {
                let detail = "this is a server, not a sentinel; name it by redis://HOST";
                Err(Failure::new(ErrorKind::Invalid, detail))
            }
            (Self::Node, _) => {
                let detail = "the server is no node of a cluster; name it by redis://HOST (cluster-enabled no)";
                Err(Failure::new(ErrorKind::Invalid, detail))
            }
            (Self::Primary(_), _) if role.as_deref() != Some("master") => {
                let detail = "the server that the sentinels name is not a primary (yet)";
                Err(Failure::new(ErrorKind::Unavailable, detail))
            }
            _ => Ok(()),
        }
    }
}

/// A field of an answer that is a map.
fn field(map: &Value, name: &str) -> Option<String> {
    map.as_map_iter()?.find_map(|(field, value)| {
        let field: String = ::redis::from_redis_value_ref(field).ok()?;
        (field == name).then(|| ::redis::from_redis_value_ref::<String>(value).ok())?
    })
}

/// A handshake that failed. Its error may repeat the password, so it is not passed on.
fn refused(error: RedisError) -> Failure {
    match (error.code(), error.kind()) {
        (_, DriverErrorKind::AuthenticationFailed)
        | (Some("WRONGPASS" | "NOAUTH" | "NOPERM"), _) => {
            denied("the server refused the user or the password")
        }
        (_, DriverErrorKind::RESP3NotSupported) | (Some("NOPROTO"), _) => Failure::new(
            ErrorKind::Unsupported,
            format!("the server is too old; leasehold needs {}.{} or newer", OLDEST.0, OLDEST.1),
        ),
        (Some("LOADING" | "MASTERDOWN"), _) => failed(&error),
        (Some(_), _) if error.detail().is_some_and(|detail| detail.contains("DB index")) => {
            Failure::new(ErrorKind::Invalid, "the server has no database of that number")
        }
        (Some(_), _)
            if error.detail().is_some_and(|detail| detail.contains("max number of clients")) =>
        {
            Failure::new(ErrorKind::Unavailable, "the server has as many clients as it allows")
        }
        (Some(code), _) => Failure::new(
            ErrorKind::Unavailable,
            format!("the server refused the connection with {}", code.escape_debug()),
        ),
        (None, DriverErrorKind::Io) if error.to_string().contains("received fatal alert") => {
            // In TLS 1.3 the server judges the client after the client has begun to speak.
            Failure::new(
                ErrorKind::Denied,
                "the server does not accept the client's certificate; give `?cert=` and `?key=`",
            )
            .because(error)
        }
        (None, _) => {
            Failure::new(ErrorKind::Unavailable, "the connection ended before it was set up")
                .because(error)
        }
    }
}

/// A request that failed after it was sent.
fn failed(error: &RedisError) -> Failure {
    let detail = error.detail().unwrap_or_default();
    // Older servers wrap the error of a command in a script: "ERR Error running script … WRONGTYPE …".
    let code = match error.code() {
        Some("ERR") if detail.contains("WRONGTYPE") => "WRONGTYPE",
        Some("ERR") if detail.contains("OOM command") => "OOM",
        Some("ERR") if detail.contains("can't run this command") => "NOPERM",
        code => code.unwrap_or_default(),
    };
    // Refused before anything was written: a script that has begun to write is let through.
    let none = |kind, detail: &str| Failure::new(kind, detail);
    match code {
        "" => Failure::end_of_connection().because(error.clone()),
        "NOAUTH" | "WRONGPASS" => denied("the server wants a user and a password, or another"),
        // May come in the middle of a script.
        "NOPERM" => denied("the server's access list forbids a part of it").outcome_unknown(),
        "LOADING" => none(ErrorKind::Unavailable, "the server is still loading its data"),
        "BUSY" => none(ErrorKind::Unavailable, "the server is busy with somebody's script"),
        // It may have been the primary until now.
        "READONLY" => none(ErrorKind::Unavailable, "the server is a read-only replica; name its primary")
            .at_the_wrong_server(),
        "MASTERDOWN" => none(ErrorKind::Unavailable, "the server is a replica that lost its primary")
            .at_the_wrong_server(),
        "NOREPLICAS" => none(ErrorKind::Unavailable, "the server has too few replicas to accept writes (min-replicas-to-write)"),
        "OOM" => none(ErrorKind::Full, "the server is out of memory (maxmemory); give it more"),
        "MISCONF" => none(ErrorKind::Full, "the server cannot save its data to disk and refuses writes; see its log"),
        "MOVED" | "ASK" | "TRYAGAIN" => redirected(error),
        "CLUSTERDOWN" => none(
            ErrorKind::Unavailable,
            "the cluster is down, or nobody serves the slot of the key; see `redis-cli --cluster check`",
        ),
        "CROSSSLOT" => {
            none(ErrorKind::Invalid, "the server is a node of a cluster; name it by redis+cluster://HOST,HOST")
        }
        "CORRUPT" | "WRONGTYPE" => none(
            ErrorKind::Corrupt,
            "what is kept under `leasehold:` beside the key is not what this version wrote; see who did, then delete it",
        )
        .outcome_unknown(),
        "ERR" if detail.starts_with("unknown command") => none(
            ErrorKind::Unsupported,
            "the server does not know a command that leasehold needs; its administrator disabled or renamed it",
        )
        .outcome_unknown(),
        // The text of other errors may repeat arguments, among them tokens.
        other => none(ErrorKind::Unavailable, &format!("the server answered with the error {}", other.escape_debug()))
            .outcome_unknown(),
    }
}

/// Not carried out, because the key's slot is or goes somewhere else.
fn redirected(error: &RedisError) -> Failure {
    let destination = || {
        let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Destination { host, port: port.parse().ok()? })
    };
    let moving = "the slot of the key is being moved to another node, and its keys are on both; \
                  it goes on when that is done";
    match (error.code(), destination()) {
        (Some("MOVED"), Some(there)) => {
            Failure::redirected(Redirect::Moved(there), "the nodes disagree on who serves the key")
        }
        (Some("ASK"), Some(there)) => Failure::redirected(Redirect::Ask(there), moving),
        _ => Failure::redirected(Redirect::Later, moving),
    }
}

fn denied(what: &str) -> Failure {
    let detail = format!(
        "{what}; leasehold needs its keys, ~leasehold:*, &leasehold:wake:*, and {ACL_COMMANDS}; in \
         a cluster {ACL_CLUSTER} as well"
    );
    Failure::new(ErrorKind::Denied, detail)
}

const ACL_CLUSTER: &str =
    "+cluster|slots +cluster|info +ssubscribe +sunsubscribe +spublish +asking";

/// What a user of the store must be allowed to run: as in the documentation of the store.
const ACL_COMMANDS: &str = "+script|load +evalsha +eval +scan +subscribe +unsubscribe +publish +select +get +set +del \
     +exists +pexpire +pexpireat +pttl +time +hget +hset +hdel +zadd +zrem +zrange +zrevrange +zrangebyscore +zrank +zscore +zcard";
