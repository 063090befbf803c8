//! A session's link to the ensemble: one task that keeps a connection to one member or another,
//! sends requests in the order in which they were asked, and says what watches tell.
//!
//! It is silent by itself: only requests keep the session alive.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::{Backoff, Moment};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Failure;
use super::dial::{Connected, Hello, dial};
use super::message::{self, Answer, Code, Credentials, Frame, Request};
use crate::clock;
use crate::random;
use crate::stores::dial::Stream;
use crate::stores::zookeeper::config::Config;

/// The longest answer: the names of a million nodes. A server that sends more is none.
const ANSWER_MAX: usize = 256 << 20;
/// The waits between two rounds of trying all members.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long the first connection may take, at least: no lease is at stake yet.
const OPENING: Duration = Duration::from_secs(3);

/// How patient a link is.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Pace {
    /// The session timeout to ask for. Past it without an answer, nobody reconnects unasked.
    pub(in super::super) timeout: Duration,
    /// How long a member may leave a request, or a new connection, without an answer.
    pub(in super::super) patience: Duration,
}

/// What happens to a link between requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Event {
    /// A watched node is gone.
    Deleted(String),
    /// The data of a watched node were written, which ended the watch. It is watched again: what
    /// comes next of it is `Seen` or `Deleted`.
    Changed(String),
    /// A node is watched, and these are its data.
    Seen(String, Vec<u8>),
    /// The connection broke, and every watch with it.
    Broken,
    /// There is a connection again.
    Mended,
    /// The session is over.
    Ended,
}

type Listener = Box<dyn Fn(Event) + Send + Sync>;

/// Where an answer goes. Without one, nobody waits for it.
type Reply = Option<oneshot::Sender<Result<Answer, Failure>>>;

/// A request on its way.
struct Outgoing {
    request: Request,
    reply: Reply,
}

fn tell(reply: Reply, outcome: Result<Answer, Failure>) {
    if let Some(reply) = reply {
        // Whoever asked may have given up.
        let _ = reply.send(outcome);
    }
}

/// A session that a server knows.
#[derive(Debug)]
pub(in super::super) struct Opened {
    pub(in super::super) link: Link,
    pub(in super::super) credentials: Credentials,
    /// What was granted: the server has bounds of its own.
    pub(in super::super) timeout: Duration,
}

/// Sends requests. Dropping it cuts the connection, and does not end the session.
pub(in super::super) struct Link {
    outgoing: UnboundedSender<Outgoing>,
    shared: Arc<Shared>,
    _task: DropGuard,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// Nanoseconds: when the connection was last established.
    connected: AtomicU64,
}

/// Opens a session, or takes one up again.
pub(in super::super) async fn open(
    config: Arc<Config>,
    resumed: Option<Credentials>,
    pace: Pace,
    listener: Listener,
) -> Result<Opened, Failure> {
    let timeout_ms = i32::try_from(pace.timeout.as_millis()).unwrap_or(i32::MAX);
    let seed = random::seed().unwrap_or_default();
    // Which member comes first is chance, so that the clients of an ensemble spread over it.
    let members = config.members.len() as u64;
    let mut dialer = Dialer {
        next: usize::try_from(seed % members).unwrap_or_default(),
        config,
        hello: Hello { resumed, timeout_ms, last_zxid: 0 },
        patience: pace.patience.max(OPENING),
    };
    let connected = dialer.round().await?;
    dialer.patience = pace.patience;
    let timeout = Duration::from_millis(u64::from(connected.timeout_ms.unsigned_abs()));
    let credentials = connected.session.clone();
    dialer.hello.resumed = Some(credentials.clone());
    let (outgoing, requests) = unbounded_channel();
    let shared = Arc::new(Shared::default());
    shared.connected.store(clock::now().as_nanos(), Ordering::Release);
    let cancelled = CancellationToken::new();
    let mut task = Task {
        dialer,
        requests,
        unsent: VecDeque::new(),
        listener,
        pace: Pace { timeout, ..pace },
        heard: clock::now(),
        next_xid: 1,
        backoff: Backoff::new(BACKOFF.0, BACKOFF.1, seed),
        shared: Arc::clone(&shared),
    };
    let link = Link { outgoing, shared, _task: cancelled.clone().drop_guard() };
    tokio::spawn(cancelled.run_until_cancelled_owned(async move { task.run(connected).await }));
    Ok(Opened { link, credentials, timeout })
}

impl Link {
    /// Sends a request now; the future is its answer. Requests are carried out in the order of
    /// these calls, so several can be under way at once. One whose future is dropped before it
    /// was sent is not sent.
    pub(in super::super) fn ask(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        // If the task is gone, so is the receiver, and the answer is an error.
        let _ = self.outgoing.send(Outgoing { request, reply: Some(reply) });
        async move {
            match answer.await {
                Ok(answer) => answer,
                Err(_) if shared.ended.load(Ordering::Acquire) => Err(Failure::Ended),
                // The runtime that the link ran on was shut down, whatever was sent before.
                Err(_) => Err(Failure::Cut),
            }
        }
    }

    /// Watches a node, until it is gone: now or later, that is told as [`Event::Deleted`].
    pub(in super::super) fn watch(&self, path: String) {
        let request = Request::Data { path, watch: true };
        // A link that is gone has told so.
        let _ = self.outgoing.send(Outgoing { request, reply: None });
    }

    /// Whether it can still carry anything.
    pub(in super::super) fn is_usable(&self) -> bool {
        !self.outgoing.is_closed()
    }

    /// When its connection was last established.
    pub(in super::super) fn connected(&self) -> Moment {
        Moment::from_nanos(self.shared.connected.load(Ordering::Acquire))
    }
}

/// Goes from member to member.
struct Dialer {
    config: Arc<Config>,
    hello: Hello,
    next: usize,
    patience: Duration,
}

impl Dialer {
    /// Tries every member once. The last reason, if none of them answers.
    async fn round(&mut self) -> Result<Connected, Failure> {
        let mut failure = Failure::unreachable("the URL names no server");
        for _ in 0..self.config.members.len() {
            let member = &self.config.members[self.next];
            let dialling = dial(&self.config, member, &self.hello);
            failure = match tokio::time::timeout(self.patience, dialling).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(failure)) if !failure.is_passing() => return Err(failure),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::unreachable(format!(
                    "{}:{} does not answer within {:?}",
                    member.host, member.port, self.patience
                )),
            };
            self.next = (self.next + 1) % self.config.members.len();
        }
        Err(failure)
    }
}

struct Task {
    dialer: Dialer,
    requests: UnboundedReceiver<Outgoing>,
    /// Taken from the channel, and not sent yet.
    unsent: VecDeque<Outgoing>,
    listener: Listener,
    pace: Pace,
    /// When the server last answered.
    heard: Moment,
    next_xid: i32,
    backoff: Backoff,
    shared: Arc<Shared>,
}

impl Task {
    /// Runs until the session is over, or the link is dropped.
    async fn run(&mut self, mut connected: Connected) {
        loop {
            let mut connection = Connection::new(connected.stream);
            let failure = self.serve(&mut connection).await;
            tracing::debug!(?failure, "the connection to ZooKeeper ended");
            let outcome = match &failure {
                Failure::Ended | Failure::Answered(_) => failure.clone(),
                // Whatever broke it: what was sent may have been carried out.
                Failure::Cut | Failure::Unsent { .. } => Failure::Cut,
            };
            for sent in connection.sent.drain(..) {
                tell(sent.reply, Err(outcome.clone()));
            }
            // A member that does not answer, or that sent us away, is not the first to try again.
            self.dialer.next = (self.dialer.next + 1) % self.dialer.config.members.len();
            if matches!(failure, Failure::Ended) {
                return self.end().await;
            }
            (self.listener)(Event::Broken);
            let Some(again) = self.reconnect().await else { return self.end().await };
            connected = again;
            self.heard = clock::now();
            self.shared.connected.store(self.heard.as_nanos(), Ordering::Release);
            self.backoff.reset();
            (self.listener)(Event::Mended);
        }
    }

    /// Carries requests and answers until the connection breaks.
    async fn serve(&mut self, connection: &mut Connection) -> Failure {
        loop {
            while let Some(outgoing) = self.unsent.pop_front() {
                connection.put(outgoing, &mut self.next_xid);
            }
            let patience = connection.sent.front().map(|sent| sent.at + self.pace.patience);
            let silence = async {
                match patience {
                    // The clock counts time asleep: after a suspension the answer has its chance
                    // first, because the branches below are asked in order.
                    Some(until) => clock::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = connection.input.read() => {
                    if let Err(failure) = read.and_then(|()| self.take(connection)) {
                        return failure;
                    }
                }
                Some(outgoing) = self.requests.recv() => {
                    self.unsent.push_back(outgoing);
                    // What was asked together is sent together.
                    while let Ok(outgoing) = self.requests.try_recv() {
                        self.unsent.push_back(outgoing);
                    }
                }
                written = connection.output.write(), if !connection.output.flushed => {
                    if written.is_err() {
                        return Failure::Cut;
                    }
                }
                () = silence => return Failure::Cut,
            }
        }
    }

    /// Handles every complete frame that came.
    fn take(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        self.heard = clock::now();
        let Connection { input: Input { bytes: input, .. }, sent: under_way, .. } = connection;
        let mut at = 0;
        while let Some(frame) = frame(&input[at..])? {
            at += 4 + frame.len();
            match message::read(frame).map_err(|_| Failure::foreign())? {
                Frame::Deleted(path) => (self.listener)(Event::Deleted(path.to_owned())),
                Frame::Changed(path) => {
                    (self.listener)(Event::Changed(path.to_owned()));
                    let request = Request::Data { path: path.to_owned(), watch: true };
                    self.unsent.push_back(Outgoing { request, reply: None });
                }
                Frame::Other | Frame::Auth { code: 0 } => {}
                Frame::Auth { .. } => return Err(Failure::Answered(Code::AUTH_FAILED)),
                Frame::Reply { xid, zxid, code, body } => {
                    let Some(sent) = under_way.pop_front_if(|sent| sent.xid == xid) else {
                        // Answers come in the order of the requests.
                        return Err(Failure::foreign());
                    };
                    self.dialer.hello.last_zxid = self.dialer.hello.last_zxid.max(zxid);
                    let answer = match Code(code) {
                        Code(0) => sent.request.answer(body).map_err(|_| Failure::foreign())?,
                        Code::SESSION_EXPIRED => {
                            under_way.push_front(sent);
                            return Err(Failure::Ended);
                        }
                        Code::SESSION_MOVED => {
                            tell(sent.reply, Err(Failure::Cut));
                            return Err(Failure::Cut);
                        }
                        Code::NO_NODE if sent.reply.is_none() => {
                            if let Request::Data { path, .. } = sent.request {
                                (self.listener)(Event::Deleted(path));
                            }
                            continue;
                        }
                        code => {
                            tell(sent.reply, Err(Failure::Answered(code)));
                            continue;
                        }
                    };
                    let closed = sent.request == Request::Close;
                    match (sent.reply, sent.request, answer) {
                        (None, Request::Data { path, .. }, Answer::Data { data, .. }) => {
                            (self.listener)(Event::Seen(path, data));
                        }
                        (reply, _, answer) => tell(reply, Ok(answer)),
                    }
                    if closed {
                        return Err(Failure::Ended);
                    }
                }
            }
        }
        input.drain(..at);
        Ok(())
    }

    /// A new connection; `None` once the session is over.
    async fn reconnect(&mut self) -> Option<Connected> {
        loop {
            let lapsed = self.heard + self.pace.timeout;
            if self.unsent.is_empty() && clock::now() >= lapsed {
                // Nobody needs the session; whoever asks something learns whether it is over.
                self.unsent.push_back(self.requests.recv().await?);
            }
            match self.dialer.round().await {
                Ok(connected) => return Some(connected),
                Err(Failure::Ended) => return None,
                Err(failure) => {
                    while let Ok(outgoing) = self.requests.try_recv() {
                        self.unsent.push_back(outgoing);
                    }
                    for outgoing in self.unsent.drain(..) {
                        tell(outgoing.reply, Err(failure.clone()));
                    }
                    tokio::time::sleep(self.backoff.next_wait()).await;
                }
            }
        }
    }

    /// Tells everybody that the session is over.
    async fn end(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.requests.close();
        for outgoing in self.unsent.drain(..) {
            tell(outgoing.reply, Err(Failure::Ended));
        }
        while let Some(outgoing) = self.requests.recv().await {
            tell(outgoing.reply, Err(Failure::Ended));
        }
        (self.listener)(Event::Ended);
    }
}

/// A request that was sent.
struct Sent {
    xid: i32,
    at: Moment,
    request: Request,
    reply: Reply,
}

/// One connection, and what is on its way.
struct Connection {
    input: Input,
    output: Output,
    sent: VecDeque<Sent>,
}

struct Input {
    reader: ReadHalf<Box<dyn Stream>>,
    /// What came, and is not a complete frame yet.
    bytes: Vec<u8>,
}

struct Output {
    writer: WriteHalf<Box<dyn Stream>>,
    bytes: Vec<u8>,
    written: usize,
    /// TLS keeps some of what is written to itself until then.
    flushed: bool,
}

impl Connection {
    fn new(stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            input: Input { reader, bytes: Vec::new() },
            output: Output { writer, bytes: Vec::new(), written: 0, flushed: true },
            sent: VecDeque::new(),
        }
    }

    fn put(&mut self, outgoing: Outgoing, next_xid: &mut i32) {
        let Outgoing { request, reply } = outgoing;
        if reply.as_ref().is_some_and(oneshot::Sender::is_closed) {
            return;
        }
        let xid = *next_xid;
        // Positive, because the negative ones mean something.
        *next_xid = if xid == i32::MAX { 1 } else { xid + 1 };
        self.output.bytes.extend(request.frame(xid));
        self.output.flushed = false;
        self.sent.push_back(Sent { xid, at: clock::now(), request, reply });
    }
}

impl Output {
    /// Takes one step. Cancel safe, as every branch of a `select!` has to be.
    async fn write(&mut self) -> std::io::Result<()> {
        if self.written < self.bytes.len() {
            self.written += self.writer.write(&self.bytes[self.written..]).await?;
        } else {
            self.bytes.clear();
            self.written = 0;
            self.writer.flush().await?;
            self.flushed = true;
        }
        Ok(())
    }
}

impl Input {
    /// Takes one step. Cancel safe.
    async fn read(&mut self) -> Result<(), Failure> {
        match self.reader.read_buf(&mut self.bytes).await {
            Ok(0) | Err(_) => Err(Failure::Cut),
            Ok(_) => Ok(()),
        }
    }
}

/// The frame that `input` begins with, if all of it is there.
fn frame(input: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let Some((length, rest)) = input.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > ANSWER_MAX {
        return Err(Failure::foreign());
    }
    Ok(rest.get(..length))
}
