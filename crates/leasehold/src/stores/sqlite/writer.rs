//! The one thread of a store handle that touches the file: it carries out commands in the order in
//! which they were sent, several in one transaction when they come faster than it can commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::oneshot;

use super::boot::Boot;
use super::place::Place;
use super::trouble::Trouble;
use super::wire::{Part, Wire};
use crate::clock;
use crate::error::ErrorKind;
use crate::stores::mailbox::Mailbox;

/// How many commands share a transaction at most. While one runs other processes wait.
const BATCH: usize = 64;

/// The way to the thread. The thread starts with the first command, and ends, after what was sent,
/// when this is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    mailbox: Arc<Mailbox>,
    queue: Mutex<Option<Sender<Box<dyn Command>>>>,
}

impl Writer {
    pub(super) fn new(path: PathBuf, mailbox: Arc<Mailbox>) -> Self {
        Self { path, mailbox, queue: Mutex::new(None) }
    }

    /// Sends a command now, and answers when its transaction is committed. It is carried out also
    /// if nobody waits for the answer.
    pub(super) fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Wire, i64) -> Result<T, Trouble> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Trouble>> {
        self.enqueue_call(work, false)
    }

    /// The same for what has to outlast a loss of power: it is on the disk when it is answered.
    pub(super) fn send_lasting<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Wire, i64) -> Result<T, Trouble> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Trouble>> {
        self.enqueue_call(work, true)
    }

    fn enqueue_call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Wire, i64) -> Result<T, Trouble> + Send + 'static,
        lasting: bool,
    ) -> BoxFuture<'static, Result<T, Trouble>> {
        let (reply, answer) = oneshot::channel();
        let command = Call { work: Some(work), lasting, outcome: None, reply };
        let sent = self.enqueue(Box::new(command));
        async move {
            sent?;
            // The command was dropped unanswered: its thread panicked while it ran.
            answer.await.unwrap_or_else(|_| {
                Err(Trouble::new(
                    ErrorKind::Unavailable,
                    "a bug in the embedded store interrupted the request; please report what was \
                     logged",
                )
                .outcome_unknown())
            })
        }
        .boxed()
    }

    fn enqueue(&self, command: Box<dyn Command>) -> Result<(), Trouble> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let command = match &*queue {
            None => command,
            Some(sender) => match sender.send(command) {
                Ok(()) => return Ok(()),
                // The thread is gone, which only a panic in its own loop could do.
                Err(mpsc::SendError(command)) => command,
            },
        };
        let (sender, receiver) = mpsc::channel();
        let keeper = Keeper {
            path: self.path.clone(),
            mailbox: Arc::clone(&self.mailbox),
            wire: None,
            part: None,
        };
        thread::Builder::new()
            .name("leasehold-sqlite".into())
            .spawn(move || keeper.serve(&receiver))
            .map_err(|error| {
                Trouble::new(ErrorKind::Unavailable, "the system gives no thread to work with")
                    .because(error)
            })?;
        // The receiver was made just now, and lives in the thread.
        let _ = sender.send(command);
        *queue = Some(sender);
        Ok(())
    }
}

/// A piece of work within a transaction, and its answer once that is committed.
trait Command: Send {
    fn run(&mut self, wire: &mut Wire, now: i64) -> Result<(), Trouble>;
    fn is_lasting(&self) -> bool;
    fn answer(self: Box<Self>, committed: Result<(), Trouble>);
}

struct Call<F, T> {
    work: Option<F>,
    lasting: bool,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, Trouble>>,
}

impl<F, T> Command for Call<F, T>
where
    F: FnOnce(&mut Wire, i64) -> Result<T, Trouble> + Send,
    T: Send,
{
    fn run(&mut self, wire: &mut Wire, now: i64) -> Result<(), Trouble> {
        if let Some(work) = self.work.take() {
            self.outcome = Some(work(wire, now)?);
        }
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        self.lasting
    }

    fn answer(self: Box<Self>, committed: Result<(), Trouble>) {
        let answer = match (committed, self.outcome) {
            (Err(trouble), _) => Err(trouble),
            // Dropping the reply unanswered says that the command did not run.
            (Ok(()), None) => return,
            (Ok(()), Some(outcome)) => Ok(outcome),
        };
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }
}

/// What the thread owns.
struct Keeper {
    path: PathBuf,
    mailbox: Arc<Mailbox>,
    /// Opened by the first command, and again after what makes a connection unusable.
    wire: Option<Wire>,
    /// This handle's part in the file, while there is no connection.
    part: Option<Part>,
}

impl Keeper {
    fn serve(mut self, queue: &Receiver<Box<dyn Command>>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            batch.extend(queue.try_iter().take(BATCH - 1));
            // What is dropped by the panic is answered by being dropped.
            if catch_unwind(AssertUnwindSafe(|| self.carry_out(batch))).is_err() {
                tracing::error!("a bug: a command of the embedded store panicked");
                self.give_up();
            }
        }
        if catch_unwind(AssertUnwindSafe(|| self.finish())).is_err() {
            tracing::error!("a bug: the embedded store panicked as it was closed");
        }
    }

    /// Carries out a batch in one transaction. A failure of the file fails all of it: what struck
    /// one command (a full disk, a damaged page) would have struck the next.
    fn carry_out(&mut self, mut batch: Vec<Box<dyn Command>>) {
        let outcome = self.transact(&mut batch);
        if self.wire.as_ref().is_some_and(|wire| !wire.is_sound()) {
            self.give_up();
        }
        for command in batch {
            command.answer(outcome.clone());
        }
    }

    /// Drops a connection that cannot be trusted any more.
    fn give_up(&mut self) {
        if let Some(wire) = self.wire.take() {
            self.part = wire.into_part();
        }
    }

    fn transact(&mut self, batch: &mut [Box<dyn Command>]) -> Result<(), Trouble> {
        if self.wire.is_none() {
            let place = Place::prepare(&self.path)?;
            let floor = i64::try_from(clock::wall_micros()).unwrap_or(i64::MAX / 2);
            let mut wire = Wire::open(place, Boot::current()?, floor.min(i64::MAX / 2))?;
            if let Some(part) = self.part.take() {
                wire.resume(part);
            }
            self.wire = Some(wire);
        }
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        wire.begin(batch.iter().any(|command| command.is_lasting()))?;
        for command in batch {
            let now = wire.now();
            if let Err(trouble) = command.run(wire, now) {
                wire.roll_back();
                return Err(trouble);
            }
        }
        wire.commit(&self.mailbox)
    }

    /// Ends what ends with the handle. Without it the others wait for the TTL, or for the end of
    /// the process.
    fn finish(&mut self) {
        let Some(wire) = &mut self.wire else {
            return;
        };
        if !wire.has_own_sessions() {
            return;
        }
        let ended = wire.begin(false).and_then(|()| {
            let now = wire.now();
            wire.end_own_sessions(now).inspect_err(|_| wire.roll_back())?;
            wire.commit(&self.mailbox)
        });
        if let Err(trouble) = ended {
            tracing::warn!(?trouble, "sessions could not be ended; they last for their TTL");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Effect;
    use crate::stores::sqlite::peers::Life;

    fn writer(root: &std::path::Path) -> Writer {
        Writer::new(root.join("l.db"), Arc::default())
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_next_command_works() {
        let root = tempfile::tempdir().unwrap();
        let writer = writer(root.path());
        let panicked = writer.send(|_, _| -> Result<(), Trouble> { panic!("on purpose") });
        // Sent before the first one is answered: whatever becomes of it, it is answered.
        let beside = writer.send(|_, _| Ok(1));
        let trouble = panicked.await.unwrap_err();
        assert_eq!((trouble.kind, trouble.effect), (ErrorKind::Unavailable, Effect::Unknown));
        assert!(matches!(beside.await, Ok(1) | Err(_)));
        assert_eq!(writer.send(|_, _| Ok(2)).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_handle_stays_alive_for_the_others_over_a_broken_connection() {
        let root = tempfile::tempdir().unwrap();
        let writer = writer(root.path());
        let session = leasehold_core::SessionId::new("s");
        let terms = leasehold_core::Terms {
            ttl: std::time::Duration::from_mins(1),
            owner: leasehold_core::Note::default(),
            detached: false,
        };
        let id = session.clone();
        let opened = writer.send(move |wire, now| {
            let peer = wire.be_seen()?;
            wire.open_session(now, &id, &terms, &peer)?;
            Ok((Arc::clone(&wire.directory), peer))
        });
        let (directory, peer) = opened.await.unwrap();
        writer.send(|_, _| -> Result<(), Trouble> { panic!("on purpose") }).await.unwrap_err();
        let renewed = writer.send(move |wire, now| wire.renew(now, &session, &[])).await.unwrap();
        assert_eq!(renewed, leasehold_core::Renewed::Extended { lost: Vec::new() });
        assert_eq!(directory.life(&peer), Life::Alive);
        assert!(directory.end_of(&peer).is_some(), "the file is there, so it is locked");
    }

    #[tokio::test]
    async fn a_failure_undoes_the_whole_batch_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let writer = writer(root.path());
        let (block, blocked) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel::<()>();
        // Holds the thread, so that what follows is one batch.
        let first = writer.send(move |_, _| {
            let _ = (started.send(()), blocked.recv());
            Ok(())
        });
        start.recv().unwrap();
        let session = leasehold_core::SessionId::new("s");
        let terms = leasehold_core::Terms {
            ttl: std::time::Duration::from_mins(1),
            owner: leasehold_core::Note::default(),
            detached: true,
        };
        let id = session.clone();
        let opened = writer.send(move |wire, now| {
            let peer = wire.be_seen()?;
            wire.open_session(now, &id, &terms, &peer)
        });
        let failed = writer.send(|_, _| -> Result<(), Trouble> {
            Err(Trouble::new(ErrorKind::Full, "on purpose"))
        });
        block.send(()).unwrap();
        first.await.unwrap();
        for trouble in [opened.await.unwrap_err(), failed.await.unwrap_err()] {
            assert_eq!((trouble.kind, trouble.effect), (ErrorKind::Full, Effect::None));
        }
        let renewed = writer.send(move |wire, now| wire.renew(now, &session, &[])).await.unwrap();
        assert_eq!(renewed, leasehold_core::Renewed::Ended, "the session was not opened");
    }

    #[tokio::test]
    async fn commands_run_in_the_order_they_were_sent() {
        let root = tempfile::tempdir().unwrap();
        let writer = writer(root.path());
        let order = Arc::new(Mutex::new(Vec::new()));
        let sent: Vec<_> = (0..300)
            .map(|number| {
                let order = Arc::clone(&order);
                writer.send(move |_, _| {
                    order.lock().unwrap().push(number);
                    Ok(())
                })
            })
            .collect();
        for answer in futures::future::join_all(sent).await {
            answer.unwrap();
        }
        assert!(order.lock().unwrap().is_sorted());
        assert_eq!(order.lock().unwrap().len(), 300);
    }
}
