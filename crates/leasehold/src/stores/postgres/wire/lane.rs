//! One connection: requests in order, answers in order, and whether it still answers at all.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::{ClaimId, Fence, Moment, Place, SessionId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Notification, Row};
use tokio_util::sync::CancellationToken;

use super::refusal::Failure;
use crate::clock;
use crate::stores::mailbox::Mailbox;

/// A request that is dropped after its connection owed an answer for this long takes the
/// connection along: who gave up may have had less patience than the request time-out, and the
/// next one should not wait for the same dead peer.
const SUSPICION: Duration = Duration::from_millis(500);

/// A parameter and its type. Naming the type saves the round trip that asks the server for it, and
/// the driver's log the values.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// One connection.
pub(super) struct Lane {
    client: Client,
    /// Cancelled when this connection or its twin is of no more use.
    broken: CancellationToken,
    timeout: Duration,
    /// When the last answer came.
    answered: AtomicU64,
    /// When the first request since then was sent; 0 if there is none.
    owed: AtomicU64,
}

impl Lane {
    pub(super) fn new(client: Client, broken: CancellationToken, timeout: Duration) -> Self {
        Self { client, broken, timeout, answered: AtomicU64::new(0), owed: AtomicU64::new(0) }
    }

    /// Sends one statement and waits for its rows.
    pub(super) async fn ask(
        &self,
        schema: &str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Failure> {
        // Parsed, bound and executed in one message: one round trip without a prepared statement,
        // which a pooler would lose.
        self.watch(schema, self.client.query_typed(sql, params)).await
    }

    /// Sends several statements without parameters, as one transaction.
    pub(super) async fn run(&self, schema: &str, sql: &str) -> Result<(), Failure> {
        self.watch(schema, self.client.batch_execute(sql)).await
    }

    /// Waits for an answer for as long as the connection shows life.
    async fn watch<T>(
        &self,
        schema: &str,
        request: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let sent = clock::now();
        let _ =
            self.owed.compare_exchange(0, sent.as_nanos(), Ordering::Relaxed, Ordering::Relaxed);
        let suspect = Suspect(self);
        let mut request = pin!(request);
        loop {
            // Others may be before us in the queue: what counts is that there are answers.
            let life = sent.max(Moment::from_nanos(self.answered.load(Ordering::Relaxed)));
            let patience = (life + self.timeout).since(clock::now());
            tokio::select! {
                biased;
                answer = &mut request => {
                    self.answered.store(clock::now().as_nanos(), Ordering::Relaxed);
                    self.owed.store(0, Ordering::Relaxed);
                    drop(suspect);
                    return answer.map_err(|error| {
                        let failure = Failure::of_request(&error, schema);
                        if failure.broken {
                            self.broken.cancel();
                        }
                        failure
                    });
                }
                () = tokio::time::sleep(patience), if !patience.is_zero() => {}
                () = std::future::ready(()), if patience.is_zero() => {
                    self.broken.cancel();
                    let detail = format!("the server did not answer for {:?}", self.timeout);
                    return Err(Failure::silent(detail));
                }
            }
        }
    }
}

/// Looks, when a request ends or is dropped, whether its connection is worth another one.
struct Suspect<'a>(&'a Lane);

impl Drop for Suspect<'_> {
    fn drop(&mut self) {
        let owed = Moment::from_nanos(self.0.owed.load(Ordering::Relaxed));
        if owed != Moment::ORIGIN && clock::now().since(owed) >= SUSPICION {
            self.0.broken.cancel();
        }
    }
}

/// Where notifications go.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) mailbox: Arc<Mailbox>,
    /// The channel that this handle listens on. Nobody can guess it.
    pub(super) channel: String,
    /// Told when the probe arrives.
    pub(super) probed: tokio::sync::Notify,
}

/// What the probe says.
pub(super) const PROBE: &str = "probe";

impl Inbox {
    /// Hands on what the server says: `granted CLAIM FENCE`, or `revoked CLAIM SESSION`.
    fn take(&self, message: &Notification) {
        if message.channel() != self.channel {
            return;
        }
        let words: Vec<&str> = message.payload().split(' ').collect();
        match words[..] {
            ["granted", claim, fence] => {
                if let (Some(claim), Ok(fence)) = (uuid(claim), fence.parse()) {
                    self.mailbox.tell(claim, Some(Place::Held(Fence::new(fence))));
                }
            }
            ["revoked", claim, session] => {
                if let (Some(claim), Some(session)) = (uuid(claim), uuid(session)) {
                    self.mailbox.disturb(&SessionId::new(&session.to_hex()));
                    self.mailbox.tell(claim, None);
                }
            }
            [PROBE] => self.probed.notify_one(),
            // A newer version may say more.
            _ => {}
        }
    }
}

/// An id as PostgreSQL prints it, with dashes.
fn uuid(text: &str) -> Option<ClaimId> {
    ClaimId::from_hex(&text.replace('-', ""))
}

/// Moves the messages of one connection until it ends, and tells everyone then: what the server
/// says from now on, nobody hears.
pub(super) async fn drive<S, T>(
    mut connection: Connection<S, T>,
    inbox: Arc<Inbox>,
    broken: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = tokio::select! {
            biased;
            () = broken.cancelled() => break,
            message = std::future::poll_fn(|context| connection.poll_message(context)) => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(message))) => inbox.take(&message),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
                break;
            }
            None => break,
        }
    }
    // In this order: whoever is told asks again, and must not find the dead connection.
    broken.cancel();
    drop(connection);
    inbox.mailbox.tell_all();
}
