//! A byte stream to one member of the ensemble, and the handshake on it.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Failure;
use super::message::{self, Credentials};
use crate::stores::dial::{self, Stream};
use crate::stores::zookeeper::config::{Config, Member};

/// The longest first answer: it has some 40 bytes. Whoever sends more does not speak ZooKeeper.
const HANDSHAKE_MAX: u32 = 1024;

/// The longest answer to a four-letter word.
const WORD_MAX: u64 = 64 * 1024;

/// What to say to a member.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) resumed: Option<Credentials>,
    pub(super) timeout_ms: i32,
    pub(super) last_zxid: i64,
}

/// A connection that carries a session.
pub(super) struct Connected {
    pub(super) stream: Box<dyn Stream>,
    pub(super) session: Credentials,
    pub(super) timeout_ms: i32,
}

/// Connects to one member and opens a session, or takes it up again.
pub(super) async fn dial(
    config: &Config,
    member: &Member,
    hello: &Hello,
) -> Result<Connected, Failure> {
    let mut stream = dial::dial(&member.host, member.port, config.tls.as_ref()).await?;
    let mut frames =
        message::connect_frame(hello.resumed.as_ref(), hello.timeout_ms, hello.last_zxid);
    if let Some(secret) = config.digest() {
        frames.extend(message::auth_frame("digest", secret.as_bytes()));
    }
    stream.write_all(&frames).await.map_err(cut)?;
    let length = stream.read_u32().await.map_err(cut)?;
    if length > HANDSHAKE_MAX {
        return Err(Failure::foreign());
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.map_err(cut)?;
    match message::connected(&answer).map_err(|_| Failure::foreign())? {
        Some((session, timeout_ms)) => Ok(Connected { stream, session, timeout_ms }),
        None => Err(Failure::Ended),
    }
}

/// Says one of the four-letter words, which are no part of the protocol, to a member: its answer.
pub(in super::super) async fn say(
    config: &Config,
    member: &Member,
    word: &str,
) -> Result<String, Failure> {
    let mut stream = dial::dial(&member.host, member.port, config.tls.as_ref()).await?;
    stream.write_all(word.as_bytes()).await.map_err(cut)?;
    let mut answer = Vec::new();
    stream.take(WORD_MAX).read_to_end(&mut answer).await.map_err(cut)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn cut(error: io::Error) -> Failure {
    dial::unreachable(error).into()
}
