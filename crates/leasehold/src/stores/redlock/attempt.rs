//! One try for a majority: all servers at once, and nothing left behind if it fails.

use std::sync::Arc;

use leasehold_core::quorum::{Attempt, Renewal, Step, Vote as Told, proposal};
use leasehold_core::{Claim, Fence};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::inbox::Hold;
use super::quorum::{Answers, Quorum, end_again};
use super::view::View;
use super::votes::Vote;
use super::wire::{self, End, Server, Tenure};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::stores::redis::failure::Failure;
use crate::stores::redis::session::Session;

/// How a try ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Granted(Fence),
    /// Others were ahead at so many servers that no majority was left; these are what was seen.
    Contended(View),
}

#[derive(Debug)]
enum Reply {
    Acquired(wire::Vote),
    Raised { to: u64, at: Option<u64> },
}

/// The answer of the server of that index.
type Answer = (usize, std::result::Result<Reply, Failure>);

/// What becomes of the tokens that a try got: kept, or given back. Dropped with the try, they are
/// given back.
type Keep = watch::Receiver<Option<bool>>;

/// Tries to get a majority for a claim. Err only if too few servers answered.
///
/// Dropping the future gives back what it got and what it still gets.
pub(super) async fn attempt(
    quorum: &Quorum,
    session: &Session,
    claim: &Claim,
    doing: &'static str,
) -> Result<Outcome> {
    let (sent, number) = (clock::now(), quorum.next_attempt());
    let tenure = Tenure::new(session, claim, number, proposal(clock::wall_micros()));
    let (keep, kept) = watch::channel(None);
    let mut running = Try::begin(quorum, session, &Arc::new(tenure), claim, number, &kept);
    let fence = running.decide().await;
    // A tenth of the TTL is for clocks that run apart. What is granted later lapses too soon.
    let late = clock::now().since(sent) >= session.lasts() * 9 / 10;
    if let Some(fence) = fence.filter(|_| !late) {
        let renewal = Renewal::new(quorum.servers.len(), fence);
        quorum.inbox.holds(claim.id, Hold { renewal, attempt: number });
        let _ = keep.send(Some(true));
        return Ok(Outcome::Granted(fence));
    }
    let _ = keep.send(Some(false));
    running.hear_out().await;
    running.given_back().await;
    if fence.is_some() {
        let detail = "a majority granted it so late that it was given back; the servers answer too \
                      slowly for this TTL";
        let error = Error::new(ErrorKind::Unavailable, doing, detail).at(&quorum.config);
        return Err(error.outcome_unknown());
    }
    if running.answers.answered() < quorum.majority() {
        return Err(running.answers.too_few(doing, quorum));
    }
    Ok(Outcome::Contended(running.seen))
}

/// A try that is under way.
struct Try<'a> {
    quorum: &'a Quorum,
    session: &'a Session,
    claim: &'a Claim,
    attempt: Attempt,
    /// Of whom an answer is awaited.
    awaited: Vec<bool>,
    /// Who may have the token.
    asked: Vec<Option<JoinHandle<()>>>,
    tell: UnboundedSender<Answer>,
    answers: Answers<Reply>,
    seen: View,
}

impl<'a> Try<'a> {
    fn begin(
        quorum: &'a Quorum,
        session: &'a Session,
        tenure: &Arc<Tenure>,
        claim: &'a Claim,
        number: u64,
        kept: &Keep,
    ) -> Self {
        let (tell, told) = unbounded_channel();
        let servers = quorum.servers.iter().cloned().enumerate();
        let asked = servers.map(|(index, server)| {
            let (tell, tenure, kept) = (tell.clone(), Arc::clone(tenure), kept.clone());
            let claim = claim.clone();
            Some(tokio::spawn(async move {
                let vote = server.acquire(&tenure).await;
                let has = match &vote {
                    Ok(wire::Vote::Granted(_)) => true,
                    Ok(wire::Vote::Denied(_)) => false,
                    Err(failure) => !failure.had_no_effect(),
                };
                let _ = tell.send((index, vote.map(Reply::Acquired)));
                if has {
                    give_back_unless(kept, &server, &claim, number).await;
                }
            }))
        });
        let asked: Vec<_> = asked.collect();
        let patience = quorum.patience(session.lasts(), 4);
        Self {
            attempt: Attempt::new(asked.len()),
            awaited: vec![true; asked.len()],
            answers: Answers::new(quorum, told, patience),
            seen: View::new(asked.len()),
            quorum,
            session,
            claim,
            asked,
            tell,
        }
    }

    /// The fence, if a majority grants it.
    async fn decide(&mut self) -> Option<Fence> {
        loop {
            match self.attempt.step() {
                Step::Granted(fence) => return Some(fence),
                Step::Failed => return None,
                Step::Raise { servers, fence } => self.raise(&servers, fence),
                Step::Wait => match self.answers.next().await {
                    Some((server, Ok(reply))) => self.hears(server, reply),
                    Some((server, Err(_))) => self.gives_up(server),
                    None => (0..self.awaited.len()).for_each(|server| self.gives_up(server)),
                },
            }
        }
    }

    fn hears(&mut self, server: usize, reply: Reply) {
        // Who was given up is not heard any more.
        if !std::mem::take(&mut self.awaited[server]) {
            return;
        }
        match reply {
            Reply::Acquired(wire::Vote::Granted(counter)) => {
                self.attempt.answered(server, Told::Granted(counter));
            }
            Reply::Acquired(wire::Vote::Denied(sighting)) => {
                self.answers.says(server, Vote::Denied);
                self.seen.add(sighting);
                self.attempt.answered(server, Told::Denied);
            }
            Reply::Raised { to, at } => {
                if at.is_none() {
                    self.answers.says(server, Vote::Denied);
                }
                self.attempt.raised(server, to, at.map_or(Told::Denied, Told::Granted));
            }
        }
    }

    fn gives_up(&mut self, server: usize) {
        if std::mem::take(&mut self.awaited[server]) {
            self.attempt.gave_up(server);
        }
    }

    /// Has servers raise their counters to the fence: another round trip, with patience of its own.
    fn raise(&mut self, servers: &[usize], fence: u64) {
        for &index in servers {
            self.awaited[index] = true;
            let (server, tell) = (Arc::clone(&self.quorum.servers[index]), self.tell.clone());
            let (key, claim) = (self.claim.key.clone(), self.claim.id);
            tokio::spawn(async move {
                let raised = server.raise(&key, claim, fence).await;
                let _ = tell.send((index, raised.map(|at| Reply::Raised { to: fence, at })));
            });
        }
        self.answers.wait_longer(self.quorum.patience(self.session.lasts(), 4));
    }

    /// Waits until it is clear why no majority was left: whether others were ahead, or too few servers
    /// answer. A try may be decided before.
    async fn hear_out(&mut self) {
        while self.answers.answered() < self.quorum.majority() {
            match self.answers.next().await {
                Some((server, Ok(reply))) => self.hears(server, reply),
                Some((_, Err(_))) => {}
                None => return,
            }
        }
    }

    /// Waits until those that answered have the token back. The others get it back when they answer.
    async fn given_back(&mut self) {
        let patience = self.quorum.patience(self.session.lasts(), 4);
        let answered = self.answers.heard();
        let asked = self.asked.iter_mut().zip(answered).filter(|(_, answered)| *answered);
        let ended = asked.filter_map(|(task, _)| task.take());
        let _ = tokio::time::timeout(patience, futures::future::join_all(ended)).await;
    }
}

/// Ends what the try began at a server, unless it became a hold.
async fn give_back_unless(mut kept: Keep, server: &Server, claim: &Claim, number: u64) {
    let decided = kept.wait_for(Option::is_some).await.is_ok_and(|kept| *kept == Some(true));
    if decided {
        return;
    }
    let end = End::GiveBack(number);
    if server.release(&claim.key, claim.id, end).await.is_err() {
        end_again(server, &claim.key, claim.id, end).await;
    }
}
