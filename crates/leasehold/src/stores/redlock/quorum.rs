//! The servers together: asked all at once, each in a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::quorum::majority;
use leasehold_core::{ClaimId, Key, Moment};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use leasehold_core::backoff::Backoff;

use super::config::Config;
use super::inbox::{Ear, Inbox, channel_of};
use super::view::View;
use super::votes::{Vote, Votes};
use super::wire::{End, Server};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::random;
use crate::stores::redis::failure::Failure;

/// How often a server is asked to end a claim, if it may have been asked in vain.
const ENDINGS: usize = 4;
/// The waits in between.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

#[derive(Debug)]
pub(super) struct Quorum {
    pub(super) config: Config,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) inbox: Arc<Inbox>,
    attempts: AtomicU64,
}

impl Quorum {
    pub(super) fn new(config: Config) -> Self {
        let inbox = Arc::new(Inbox::new(config.servers.len()));
        let servers = config.servers.iter().enumerate().map(|(server, config)| {
            Arc::new(Server::new(config, Ear { server, inbox: Arc::clone(&inbox) }))
        });
        Self { servers: servers.collect(), inbox, attempts: AtomicU64::new(0), config }
    }

    pub(super) fn majority(&self) -> usize {
        majority(self.servers.len())
    }

    /// The number of the next attempt: greater than all before it, also in other processes that
    /// ask for the same claim.
    pub(super) fn next_attempt(&self) -> u64 {
        let clock = clock::wall_micros();
        let next = |last: u64| Some(clock.max(last + 1));
        let before = self.attempts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.map_or(clock, |last| clock.max(last + 1))
    }

    /// How long a server is waited for: no longer than `part` of the TTL.
    pub(super) fn patience(&self, ttl: Duration, part: u32) -> Duration {
        self.config.common().timeout.min(ttl / part)
    }

    /// Asks every server. What is dropped here goes on there: a request is never cut off halfway.
    pub(super) fn ask<T, F>(
        &self,
        patience: Duration,
        request: impl Fn(Arc<Server>) -> F,
    ) -> Answers<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Failure>> + Send + 'static,
    {
        let (told, answers) = unbounded_channel();
        for (index, server) in self.servers.iter().enumerate() {
            let (told, request) = (told.clone(), request(Arc::clone(server)));
            tokio::spawn(async move {
                let _ = told.send((index, request.await));
            });
        }
        Answers::new(self, answers, patience)
    }

    /// Asks every server to end a claim. Slow ones are asked again in the background.
    fn ending(&self, (key, claim): (&Key, ClaimId), end: End, patience: Duration) -> Answers<bool> {
        let key = Arc::new(key.clone());
        let (told, answers) = unbounded_channel();
        for (index, server) in self.servers.iter().cloned().enumerate() {
            let (told, key) = (told.clone(), Arc::clone(&key));
            tokio::spawn(async move {
                let ended = server.release(&key, claim, end).await;
                let again = ended.as_ref().is_err_and(|failure| !failure.had_no_effect());
                let _ = told.send((index, ended));
                if again {
                    end_again(&server, &key, claim, end).await;
                }
            });
        }
        Answers::new(self, answers, patience)
    }

    /// Ends a claim, and returns when no majority can have it any more. An error if too few answered.
    pub(super) async fn end_for_certain(
        &self,
        attempt: &'static str,
        claim: (&Key, ClaimId),
        end: End,
        patience: Duration,
    ) -> Result<()> {
        let mut answers = self.ending(claim, end, patience);
        while answers.answered() < self.majority() {
            if answers.next().await.is_none() {
                return Err(answers.too_few(attempt, self));
            }
        }
        Ok(())
    }

    /// Ends a claim on every server. Whether a majority had it; an error if too few answered to tell.
    /// Slow servers are not waited for.
    pub(super) async fn end(
        &self,
        attempt: &'static str,
        claim: (&Key, ClaimId),
        end: End,
        patience: Duration,
    ) -> Result<bool> {
        let mut answers = self.ending(claim, end, patience);
        let (mut had, mut had_not) = (0, 0);
        while let Some((server, ended)) = answers.next().await {
            match ended {
                Ok(true) => had += 1,
                Ok(false) => {
                    had_not += 1;
                    answers.says(server, Vote::Denied);
                }
                Err(_) => {}
            }
            if had >= self.majority() {
                return Ok(true);
            }
            if self.servers.len() - had_not < self.majority() {
                return Ok(false);
            }
        }
        Err(answers.too_few(attempt, self))
    }

    /// Who holds each of the keys, as the servers see it that answer in time.
    pub(super) async fn look(
        &self,
        attempt: &'static str,
        keys: Vec<Key>,
        patience: Duration,
    ) -> Result<Vec<View>> {
        let keys = Arc::new(keys);
        let mut views = vec![View::new(self.servers.len()); keys.len()];
        let mut answers = self.ask(patience, |server| {
            let keys = Arc::clone(&keys);
            async move { server.inspect(&keys).await }
        });
        while !views.iter().all(View::is_certain)
            && let Some((_, seen)) = answers.next().await
        {
            for (view, sighting) in views.iter_mut().zip(seen.unwrap_or_default()) {
                view.add(sighting);
            }
        }
        if answers.answered() < self.majority() {
            return Err(answers.too_few(attempt, self));
        }
        Ok(views)
    }

    /// Has the servers tell when a key is released. Waits for all of them, within `patience`: which
    /// of them hold the key is not known, and a majority of those that do have to be heard.
    pub(super) async fn listen(&self, key: &Key, patience: Duration) {
        let channel = channel_of(key);
        let mut answers = self.ask(patience, |server| {
            let channel = channel.clone();
            async move { server.subscribe(channel).await }
        });
        while answers.next().await.is_some() {}
    }

    /// The opposite of [`Quorum::listen`].
    pub(super) fn listen_no_more(&self, channel: &str) {
        let channel: Arc<str> = channel.into();
        let _ = self.ask(Duration::ZERO, |server| {
            let channel = Arc::clone(&channel);
            async move { server.unsubscribe(&channel).await }
        });
    }
}

/// Asks a server again that may have been asked in vain: until it has answered, within reason.
pub(super) async fn end_again(server: &Server, key: &Key, claim: ClaimId, end: End) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1, random::seed().unwrap_or_default());
    for _ in 1..ENDINGS {
        tokio::time::sleep(backoff.next_wait()).await;
        if server.release(key, claim, end).await.is_ok() {
            return;
        }
    }
}

/// The servers' answers to one request, as they come, and what they add up to.
#[derive(Debug)]
pub(super) struct Answers<T> {
    told: UnboundedReceiver<(usize, std::result::Result<T, Failure>)>,
    until: Moment,
    votes: Vec<Vote>,
    names: Vec<String>,
    kind: Option<ErrorKind>,
    no_effect: bool,
}

impl<T> Answers<T> {
    pub(super) fn new(
        quorum: &Quorum,
        told: UnboundedReceiver<(usize, std::result::Result<T, Failure>)>,
        patience: Duration,
    ) -> Self {
        Self {
            told,
            until: clock::now() + patience,
            votes: vec![Vote::Silent(patience); quorum.servers.len()],
            names: quorum.servers.iter().map(|server| server.name.clone()).collect(),
            kind: None,
            no_effect: true,
        }
    }

    /// The next answer; `None` once all have come, or the patience is over.
    pub(super) async fn next(&mut self) -> Option<(usize, std::result::Result<T, Failure>)> {
        let left = self.until.since(clock::now());
        let (server, answer) = tokio::time::timeout(left, self.told.recv()).await.ok()??;
        match &answer {
            Ok(_) => self.says(server, Vote::Granted),
            Err(failure) => self.fails(server, failure),
        }
        Some((server, answer))
    }

    pub(super) fn says(&mut self, server: usize, vote: Vote) {
        self.votes[server] = vote;
    }

    fn fails(&mut self, server: usize, failure: &Failure) {
        self.votes[server] = Vote::from(failure);
        self.no_effect &= failure.had_no_effect();
        // What may pass by itself says more than what may not, if it concerns one of them only.
        if self.kind.is_none() || failure.kind() == ErrorKind::Unavailable {
            self.kind = Some(failure.kind());
        }
    }

    pub(super) fn answered(&self) -> usize {
        self.votes.iter().filter(|vote| matches!(vote, Vote::Granted | Vote::Denied)).count()
    }

    /// Which servers have answered or failed so far.
    pub(super) fn heard(&self) -> Vec<bool> {
        self.votes.iter().map(|vote| !matches!(vote, Vote::Silent(_))).collect()
    }

    /// Begins the patience anew.
    pub(super) fn wait_longer(&mut self, patience: Duration) {
        self.until = clock::now() + patience;
    }

    /// Too few servers answered to tell what became of the request.
    pub(super) fn too_few(&self, attempt: &'static str, quorum: &Quorum) -> Error {
        too_few(attempt, quorum, &self.names, &self.votes, self.kind, self.no_effect)
    }
}

fn too_few(
    attempt: &'static str,
    quorum: &Quorum,
    names: &[String],
    votes: &[Vote],
    kind: Option<ErrorKind>,
    no_effect: bool,
) -> Error {
    let votes = Votes::new(names.iter().cloned().zip(votes.iter().cloned()));
    let silent = votes.each().any(|(_, vote)| matches!(vote, Vote::Silent(_)));
    let kind = if silent { ErrorKind::Unavailable } else { kind.unwrap_or(ErrorKind::Unavailable) };
    let detail = format!(
        "{} of {} servers answered, and {} have to agree",
        votes.answered(),
        names.len(),
        quorum.majority()
    );
    let nothing_done = no_effect && !silent && votes.answered() == 0;
    let error = Error::new(kind, attempt, detail).at(&quorum.config).because(votes);
    if nothing_done { error } else { error.outcome_unknown() }
}
