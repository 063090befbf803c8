//! Requests to a cluster, whichever of its members answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::Stream;
use http::uri::PathAndQuery;
use leasehold_core::Moment;
use prost::Message;
use secrecy::ExposeSecret as _;
use tokio::sync::Notify;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::config::{Config, Tls};
use super::procedure::{AUTHENTICATE, Procedure, WATCH};
use super::proto::{AuthenticateRequest, WatchRequest, WatchResponse};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::random;

mod status;

pub(super) use status::Failure;

/// What the watch stream brings.
pub(super) type Incoming = Streaming<WatchResponse>;

/// How often a connection with something under way is probed, and how long the answer may take.
/// A server closes connections that probe more often than every 5 s (`grpc-keepalive-min-time`).
const PROBE: Duration = Duration::from_secs(6);
const PROBE_ANSWER: Duration = Duration::from_secs(4);
/// Who drops a request after this long does so because the member is slow.
const SLOW: Duration = Duration::from_millis(200);
/// The largest answer that is read. A page of a line is far smaller.
const ANSWER: usize = 64 << 20;

/// What was answered, and whether an earlier copy of the request may still be on its way.
#[derive(Debug)]
pub(super) struct Reply<T> {
    pub(super) body: T,
    pub(super) copies: bool,
}

/// The connections to the members, one of which is preferred until it fails.
#[derive(Debug)]
pub(super) struct Wire {
    config: Config,
    channels: Vec<Mutex<Option<Channel>>>,
    preferred: AtomicUsize,
    /// Told when the preferred member changes.
    moved: Notify,
    tls: Mutex<Option<ClientTlsConfig>>,
    token: Mutex<Token>,
    authenticating: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
enum Token {
    Unknown,
    /// There is no user, or the server has none.
    Unneeded,
    Known(MetadataValue<Ascii>),
}

impl Wire {
    pub(super) fn new(config: Config) -> Self {
        // Anywhere, so that a fleet does not lean on the member that all URLs name first.
        let first = random::seed().map_or(0, |seed| seed % config.members.len() as u64);
        let first = usize::try_from(first).unwrap_or_default();
        let token = if config.user.is_some() { Token::Unknown } else { Token::Unneeded };
        Self {
            channels: config.members.iter().map(|_| Mutex::default()).collect(),
            config,
            preferred: AtomicUsize::new(first),
            moved: Notify::new(),
            tls: Mutex::default(),
            token: Mutex::new(token),
            authenticating: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Calls a procedure at the preferred member, and at the others while members fail.
    ///
    /// The request may be carried out more than once. `attempt` is a verb phrase for errors.
    pub(super) async fn call<Q, A>(
        &self,
        attempt: &'static str,
        procedure: &Procedure<Q, A>,
        request: Q,
    ) -> Result<Reply<A>>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        // One more than there are members, because a connection may have gone stale unnoticed.
        let mut tries = self.channels.len() + 1;
        let (mut copies, mut renewed_token) = (false, false);
        loop {
            let at = self.preferred();
            let failure = match self.once(at, procedure, request.clone()).await {
                Ok(body) => return Ok(Reply { body, copies }),
                Err(failure) => failure,
            };
            let error = match failure {
                Failure::Token(_) if !renewed_token => {
                    renewed_token = true;
                    self.forget_token();
                    continue;
                }
                Failure::Member { unknown, source } => {
                    copies |= unknown && procedure.writes;
                    self.turn_from(at);
                    tries -= 1;
                    if tries > 0 {
                        continue;
                    }
                    self.unavailable(attempt, at, source)
                }
                Failure::Token(source) => {
                    let detail = "the cluster refuses the token that it has just given";
                    self.error(ErrorKind::Denied, attempt, detail).because(source)
                }
                Failure::Refused { kind, detail, source } => {
                    self.error(kind, attempt, detail).because(source)
                }
            };
            return Err(if copies { error.outcome_unknown() } else { error });
        }
    }

    /// Calls a procedure at one member, and at no other.
    pub(super) async fn ask<Q, A>(
        &self,
        at: usize,
        procedure: &Procedure<Q, A>,
        request: Q,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        match self.once(at, procedure, request.clone()).await {
            Err(Failure::Token(_)) => {
                self.forget_token();
                self.once(at, procedure, request).await
            }
            answer => answer,
        }
    }

    fn unavailable(&self, attempt: &'static str, at: usize, source: Status) -> Error {
        let members = &self.config.members;
        let detail = match members.len() {
            1 => {
                "the server does not answer, or has no leader; is it running and reachable?".into()
            }
            n => format!(
                "none of the {n} members serves (last {}); has the cluster lost its quorum?",
                members[at]
            ),
        };
        self.error(ErrorKind::Unavailable, attempt, detail).because(source)
    }

    pub(super) fn error(
        &self,
        kind: ErrorKind,
        attempt: &'static str,
        detail: impl Into<String>,
    ) -> Error {
        Error::new(kind, attempt, detail).at(&self.config)
    }

    /// Opens the stream of watches at `at`: what `requests` yields goes up, events come down.
    /// Resolves with the first answer, so `requests` must have something to say by then.
    pub(super) async fn watch(
        &self,
        at: usize,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<Incoming, Failure> {
        let opening = async {
            let (mut grpc, request) = self.prepare(at, requests).await?;
            grpc.streaming(request, PathAndQuery::from_static(WATCH.path), ProstCodec::default())
                .await
                .map_err(status::read)
        };
        let opened = tokio::time::timeout(self.config.timeout, opening).await;
        opened.unwrap_or_else(|_| Err(self.too_slow())).map(tonic::Response::into_inner)
    }

    /// One attempt at one member, within its time.
    async fn once<Q, A>(
        &self,
        at: usize,
        procedure: &Procedure<Q, A>,
        request: Q,
    ) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut impatience = Impatience { wire: self, at, since: clock::now(), answered: false };
        let asking = async {
            let request = futures::stream::once(std::future::ready(request));
            let (mut grpc, request) = self.prepare(at, request).await?;
            Self::exchange(&mut grpc, procedure, request).await
        };
        let outcome = tokio::time::timeout(self.config.timeout, asking).await;
        impatience.answered = true;
        outcome.unwrap_or_else(|_| Err(self.too_slow()))
    }

    /// One request, one answer.
    async fn exchange<Q, A>(
        grpc: &mut Grpc<Channel>,
        procedure: &Procedure<Q, A>,
        request: Request<impl Stream<Item = Q> + Send + 'static>,
    ) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(procedure.path);
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.streaming(request, path, codec).await.map_err(status::read)?;
        let first = answer.into_inner().message().await.map_err(status::read)?;
        first.ok_or_else(|| status::read(Status::unavailable("the answer is empty")))
    }

    async fn prepare<T>(
        &self,
        at: usize,
        message: T,
    ) -> Result<(Grpc<Channel>, Request<T>), Failure> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        // A member that is cut off from the others would otherwise keep a stream open.
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = self.token(at).await? {
            metadata.insert("token", token);
        }
        Ok((self.connection(at).await?, request))
    }

    async fn connection(&self, at: usize) -> Result<Grpc<Channel>, Failure> {
        let mut grpc = Grpc::new(self.channel(at)?).max_decoding_message_size(ANSWER);
        let ready = grpc.ready().await;
        // Only a channel whose runtime is gone is never ready: nothing was sent.
        ready.map_err(|error| Failure::Member {
            unknown: false,
            source: Status::from_error(error.into()),
        })?;
        Ok(grpc)
    }

    fn channel(&self, at: usize) -> Result<Channel, Failure> {
        if let Some(channel) = &*lock(&self.channels[at]) {
            return Ok(channel.clone());
        }
        let refused = |error: tonic::transport::Error| Failure::Refused {
            kind: ErrorKind::Invalid,
            detail: "the address or a certificate cannot be used",
            source: Status::from_error(error.into()),
        };
        let mut endpoint = Endpoint::from_shared(self.config.uri(at))
            .map_err(refused)?
            .connect_timeout(self.config.timeout / 2)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PROBE)
            .keep_alive_timeout(PROBE_ANSWER)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 22);
        if let Some(tls) = &self.config.tls {
            endpoint = endpoint.tls_config(self.tls(tls)?).map_err(refused)?;
        }
        Ok(lock(&self.channels[at]).insert(endpoint.connect_lazy()).clone())
    }

    /// Reads the certificates at the first use.
    fn tls(&self, files: &Tls) -> Result<ClientTlsConfig, Failure> {
        let mut known = lock(&self.tls);
        if let Some(tls) = &*known {
            return Ok(tls.clone());
        }
        let read = |path: &String| {
            std::fs::read(path).map_err(|error| Failure::Refused {
                kind: ErrorKind::Invalid,
                detail: "a file that the URL names for TLS cannot be read",
                source: Status::from_error(format!("{path}: {error}").into()),
            })
        };
        let mut tls = match &files.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &files.identity {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(known.insert(tls).clone())
    }

    /// The token of the user; authenticates if there is none yet.
    async fn token(&self, at: usize) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let known = || match lock(&self.token).clone() {
            Token::Unknown => None,
            Token::Unneeded => Some(None),
            Token::Known(token) => Some(Some(token)),
        };
        if let Some(token) = known() {
            return Ok(token);
        }
        let _turn = self.authenticating.lock().await;
        if let Some(token) = known() {
            return Ok(token);
        }
        let Some(user) = &self.config.user else { return Ok(None) };
        let request = AuthenticateRequest {
            name: user.name.clone(),
            password: user.password.expose_secret().to_owned(),
        };
        let request = Request::new(futures::stream::once(std::future::ready(request)));
        let mut grpc = self.connection(at).await?;
        let token = match Self::exchange(&mut grpc, &AUTHENTICATE, request).await {
            Ok(answer) => answer.token.parse().map(Token::Known).map_err(|_| {
                status::read(Status::internal("the token is not one that can be sent"))
            })?,
            Err(Failure::Refused { source, .. }) if status::says_no_authentication(&source) => {
                tracing::warn!(store = %self.config, "the cluster has no users; the user of the URL is ignored");
                Token::Unneeded
            }
            // What was to be authenticated for was not sent.
            Err(Failure::Member { source, .. }) => {
                return Err(Failure::Member { unknown: false, source });
            }
            Err(failure) => return Err(failure),
        };
        *lock(&self.token) = token;
        Ok(known().flatten())
    }

    /// Authenticates again with the next request.
    pub(super) fn forget_token(&self) {
        if self.config.user.is_some() {
            *lock(&self.token) = Token::Unknown;
        }
    }

    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// Prefers another member than `at`, and connects anew when `at`'s turn comes again.
    pub(super) fn turn_from(&self, at: usize) {
        *lock(&self.channels[at]) = None;
        let next = (at + 1) % self.channels.len();
        let order = Ordering::Relaxed;
        if self.preferred.compare_exchange(at, next, order, order).is_ok() && next != at {
            self.moved.notify_waiters();
        }
    }

    /// Resolves when the preferred member is another than `at`.
    pub(super) async fn moved_from(&self, at: usize) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Registered before the look, or a change in between would be missed.
            moved.as_mut().enable();
            if self.preferred() != at {
                return;
            }
            moved.await;
        }
    }

    fn too_slow(&self) -> Failure {
        let text = format!("no answer within {:?}", self.config.timeout);
        Failure::Member { unknown: true, source: Status::unavailable(text) }
    }
}

/// Turns from a member whose answer nobody waits for any more.
struct Impatience<'a> {
    wire: &'a Wire,
    at: usize,
    since: Moment,
    answered: bool,
}

impl Drop for Impatience<'_> {
    fn drop(&mut self) {
        if !self.answered && clock::now().since(self.since) > SLOW {
            self.wire.turn_from(self.at);
        }
    }
}

/// The next message of the watch stream.
pub(super) async fn next(down: &mut Incoming) -> Result<WatchResponse, Failure> {
    match down.message().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(status::read(Status::unavailable("the stream ended"))),
        Err(status) => Err(status::read(status)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
