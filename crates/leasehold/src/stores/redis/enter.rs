//! Joining lines: one and waiting in it, or several in one step.

use std::time::Duration;

use leasehold_core::backoff::Random;
use leasehold_core::{Claim, Enter, Key, Place, SessionId, Together};

use super::answers::{self, Behind, Entered, EnteredAll};
use super::failure::Failure;
use super::inbox::channel_name;
use super::servers::{Ear, RENEW_BATCH};
use super::session::Session;
use super::{GUARANTEES, Redis, keys, scripts};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::random;

const ENTER: &str = "enter the line of";

/// How often the first in line asks for a key that a stranger holds.
const POLL: Duration = Duration::from_millis(50);

/// How much later each in line looks than the one before it, after a hold lapsed.
const STAGGER: Duration = Duration::from_millis(20);

/// How many keys one script enters: while it runs nobody else is served.
const TOGETHER: usize = RENEW_BATCH;

impl Redis {
    pub(super) async fn enter_line(
        &self,
        session: &SessionId,
        claim: &Claim,
        enter: Enter,
    ) -> Result<Place> {
        let terms = self.entering(session, &claim.key)?;
        if enter == Enter::Wait {
            self.inbox.hear(session, &terms);
        }
        self.inbox.expect(session, claim);
        let failed = |failure: Failure| failure.during(ENTER, self, Some(&claim.key));
        loop {
            match self.ask_to_enter(&terms, claim, enter).await.map_err(failed)? {
                Entered::Again => {}
                Entered::Disagrees(limit) => {
                    self.forget(claim.id);
                    return Err(Error::disagrees(claim, limit).at(self));
                }
                Entered::Held(fence) => {
                    self.inbox.holds(claim.id);
                    return Ok(Place::Held(fence));
                }
                Entered::Behind(behind) if enter == Enter::Wait => {
                    let ear = self.hear(&terms, claim).await;
                    let ear = ear.map_err(|failure| failed(failure.outcome_unknown()))?;
                    if ear != Ear::New {
                        self.inbox.waits(claim.id, clock::now() + look_in(&behind, ear));
                        return Ok(behind.place());
                    }
                }
                Entered::Behind(behind) => {
                    self.forget(claim.id);
                    return Ok(behind.place());
                }
            }
        }
    }

    pub(super) async fn enter_together(
        &self,
        session: &SessionId,
        claims: &[Claim],
    ) -> Result<Together> {
        let Some(first) = claims.first() else { return Ok(Together::Held(Vec::new())) };
        if claims.len() > TOGETHER || !self.servers.are_together(claims) {
            return Ok(Together::Apart);
        }
        let terms = self.entering(session, &first.key)?;
        for claim in claims {
            self.admit(ENTER, &claim.key)?;
        }
        for claim in claims {
            self.inbox.expect(session, claim);
        }
        let failed = |failure: Failure| failure.during("enter several lines", self, None);
        let refused = loop {
            match self.ask_to_enter_all(&terms, first, claims).await.map_err(failed)? {
                EnteredAll::Again => {}
                EnteredAll::Held(fences) => {
                    for claim in claims {
                        self.inbox.holds(claim.id);
                    }
                    return Ok(Together::Held(fences));
                }
                EnteredAll::Behind(at, behind) => {
                    break Ok(Together::Refused { at, ahead: behind.ahead() });
                }
                EnteredAll::Disagrees(at, limit) => {
                    break Err(Error::disagrees(&claims[at], limit).at(self));
                }
            }
        };
        for claim in claims {
            self.forget(claim.id);
        }
        refused
    }

    /// A session that may be used to enter a line with.
    fn entering(&self, session: &SessionId, key: &Key) -> Result<Session> {
        self.admit(ENTER, key)?;
        self.session(session).ok_or_else(|| {
            let ended = Error::new(ErrorKind::SessionEnded, ENTER, "open a new session");
            ended.at(self).about(key)
        })
    }

    async fn ask_to_enter(
        &self,
        session: &Session,
        claim: &Claim,
        enter: Enter,
    ) -> Result<Entered, Failure> {
        let names = keys::names(&claim.key);
        let (token, ttl) = (claim.id.to_hex(), session.ttl());
        let told_by = self.servers.told_by(session, &claim.key);
        let tail = keys::tail(&told_by, session.owner(), &claim.note);
        let mode = match enter {
            Enter::Try => "try",
            Enter::Wait => "wait",
        };
        let (units, limit) = (claim.units().to_string(), claim.limit().to_string());
        let arguments = [token.as_str(), &ttl, mode, &tail, &units, &limit];
        let answer = self.servers.request(claim.key.as_str(), async |visit| {
            let answer = visit.run(&scripts::ENTER, &names, &arguments).await?;
            let entered = answers::entered(answer)?;
            if matches!(entered, Entered::Held(_)) {
                self.wait_for_replicas(&visit).await?;
            }
            Ok(entered)
        });
        answer.await
    }

    async fn ask_to_enter_all(
        &self,
        session: &Session,
        first: &Claim,
        claims: &[Claim],
    ) -> Result<EnteredAll, Failure> {
        let names: Vec<_> = claims.iter().flat_map(|claim| keys::names(&claim.key)).collect();
        let mut arguments = vec![session.ttl()];
        for claim in claims {
            let told_by = self.servers.told_by(session, &claim.key);
            let tail = keys::tail(&told_by, session.owner(), &claim.note);
            let (units, limit) = (claim.units().to_string(), claim.limit().to_string());
            arguments.extend([claim.id.to_hex(), tail, units, limit]);
        }
        let answer = self.servers.request(first.key.as_str(), async |visit| {
            let answer = visit.run(&scripts::ENTER_ALL, &names, &arguments).await?;
            let entered = answers::entered_all(answer, claims.len())?;
            if matches!(entered, EnteredAll::Held(_)) {
                self.wait_for_replicas(&visit).await?;
            }
            Ok(entered)
        });
        answer.await
    }

    /// Listens to what a claim in line is told by.
    async fn hear(&self, session: &Session, claim: &Claim) -> Result<Ear, Failure> {
        let ear = self.servers.hear(session, &claim.key).await?;
        if ear != Ear::Deaf {
            let channel = channel_name(&self.servers.told_by(session, &claim.key));
            self.inbox.woken_by(claim.id, &channel);
        }
        Ok(ear)
    }
}

/// When a claim in line asks again, if nobody tells it anything.
fn look_in(behind: &Behind, ear: Ear) -> Duration {
    let rank = behind.rank;
    let lapse = behind.lapse.map(|lapse| {
        // A key still exists in the millisecond that it lapses in.
        lapse.saturating_add(Duration::from_millis(1)).saturating_add(STAGGER.saturating_mul(rank))
    });
    if (behind.foreign || ear == Ear::Deaf) && rank == 0 {
        let jitter = Random::new(random::seed().unwrap_or_default()).fraction();
        let poll = POLL.mul_f64(0.75 + 0.5 * jitter);
        return lapse.map_or(poll, |lapse| lapse.min(poll));
    }
    lapse.unwrap_or(GUARANTEES.recheck)
}
