//! Holds that go on: a round of requests for all of a roll, and what was lost put right.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backoff::Backoff;
use leasehold_core::quorum::{Beat, Renewal, Verdict};
use leasehold_core::{Claim, ClaimId, Moment};

use super::inbox::{Hold, Inbox};
use super::quorum::{Answers, Quorum, end_again};
use super::wire::{End, Server, Tenure, Vote};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::random;
use crate::stores::redis::session::Session;

/// The waits before a round is repeated that decided too little.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// A claim of a roll on its way through the rounds.
#[derive(Debug)]
struct Going {
    claim: Claim,
    hold: Hold,
}

impl Going {
    fn verdict(&self) -> Verdict {
        self.hold.renewal.step()
    }
}

/// Renews the claims of a roll, and says which are lost: for certain. Where it cannot be told of a
/// claim, the renewal of the whole roll fails with an outcome that is not known.
pub(super) async fn renew(
    quorum: &Arc<Quorum>,
    session: &Session,
    roll: &[Claim],
    doing: &'static str,
) -> Result<Vec<ClaimId>> {
    // A session waits for a sixth of the TTL; what is left of it is for ending what is not proven.
    let patience = quorum.patience(session.lasts(), 8);
    let until = clock::now() + patience;
    let (mut undecided, mut lost) = find(quorum, roll, doing, patience).await?;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1, random::seed().unwrap_or_default());
    let mut is_any_kept = false;
    while !undecided.is_empty() {
        let answers = round(quorum, session, &mut undecided, until).await;
        let error = answers.too_few(doing, quorum);
        let mut kept = Vec::new();
        for (index, going) in std::mem::take(&mut undecided).into_iter().enumerate() {
            match going.verdict() {
                Verdict::Kept => {
                    quorum.inbox.goes_on(going.claim.id, &going.hold.renewal);
                    kept.push((index, going));
                }
                Verdict::Lost => {
                    drop_remains(quorum, &going);
                    lost.push(going.claim.id);
                }
                Verdict::Wait | Verdict::Unknown => undecided.push(going),
            }
        }
        is_any_kept |= !kept.is_empty();
        tokio::spawn(afterwards(Arc::clone(quorum), session.clone(), kept, answers));
        let pause = backoff.next_wait();
        if !undecided.is_empty() && clock::now() + pause >= until {
            if !is_any_kept {
                return Err(error);
            }
            // Enough servers answer, so these cannot be proven any more: a majority was interrupted.
            // They must not cost the others their holds. Once they are ended, they are lost for certain.
            for Going { claim, hold } in std::mem::take(&mut undecided) {
                let end = End::GiveBack(hold.attempt);
                let claimed = (&claim.key, claim.id);
                quorum.end_for_certain(doing, claimed, end, patience / 3).await?;
                quorum.inbox.holds_no_more(claim.id);
                lost.push(claim.id);
            }
        }
        if !undecided.is_empty() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(lost)
}

/// What is known of the claims; those that another process was granted are looked for. The second
/// are those that certainly hold nowhere.
async fn find(
    quorum: &Quorum,
    roll: &[Claim],
    doing: &'static str,
    patience: Duration,
) -> Result<(Vec<Going>, Vec<ClaimId>)> {
    let (mut found, mut unknown, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for claim in roll {
        match quorum.inbox.hold(claim.id) {
            Some(hold) => found.push(Going { claim: claim.clone(), hold }),
            None => unknown.push(claim),
        }
    }
    if unknown.is_empty() {
        return Ok((found, lost));
    }
    let keys = unknown.iter().map(|claim| claim.key.clone()).collect();
    let views = quorum.look(doing, keys, patience).await?;
    for (claim, view) in unknown.into_iter().zip(views) {
        let fence = view.holder().and_then(|holder| holder.fence);
        match (view.has(claim.id), fence) {
            (Some(false), _) => lost.push(claim.id),
            (Some(true), Some(fence)) => {
                let renewal = Renewal::new(quorum.servers.len(), fence);
                let hold = Hold { renewal, attempt: quorum.next_attempt() };
                quorum.inbox.holds(claim.id, hold.clone());
                found.push(Going { claim: claim.clone(), hold });
            }
            _ => {
                let detail = "too few servers stand where it was granted to tell whether it still \
                              holds";
                let error = Error::new(ErrorKind::Unavailable, doing, detail);
                return Err(error.at(&quorum.config).about(&claim.key).outcome_unknown());
            }
        }
    }
    Ok((found, lost))
}

/// Asks every server for all of the claims, until it is decided what becomes of each, or not to be.
async fn round(
    quorum: &Quorum,
    session: &Session,
    roll: &mut [Going],
    until: Moment,
) -> Answers<Vec<Beat>> {
    for going in &mut *roll {
        going.hold.renewal.again();
    }
    let asked = roll.iter().map(|going| (going.claim.clone(), going.hold.renewal.fence()));
    let asked: Arc<Vec<_>> = Arc::new(asked.collect());
    let session = Arc::new(session.clone());
    let mut answers = quorum.ask(until.since(clock::now()), |server| {
        let (session, asked) = (Arc::clone(&session), Arc::clone(&asked));
        async move { server.extend(&session, &asked).await }
    });
    while roll.iter().any(|going| going.verdict() == Verdict::Wait) {
        match answers.next().await {
            Some((server, Ok(beats))) => {
                for (going, beat) in roll.iter_mut().zip(beats) {
                    going.hold.renewal.told(server, beat);
                }
            }
            Some((server, Err(_))) => {
                for going in &mut *roll {
                    going.hold.renewal.gave_up(server);
                }
            }
            None => {
                for going in &mut *roll {
                    (0..quorum.servers.len()).for_each(|it| going.hold.renewal.gave_up(it));
                }
            }
        }
    }
    answers
}

/// What is left to do for the claims that are kept, by their place in the roll: hears the servers that
/// were not waited for, and gives the token to those that lost it.
async fn afterwards(
    quorum: Arc<Quorum>,
    session: Session,
    kept: Vec<(usize, Going)>,
    mut answers: Answers<Vec<Beat>>,
) {
    let give = |going: &Going, server: usize| {
        let (inbox, at) = (Arc::clone(&quorum.inbox), Arc::clone(&quorum.servers[server]));
        let Going { claim, hold } = going;
        let fence = hold.renewal.fence().get();
        let tenure = Tenure::new(&session, claim, hold.attempt, fence);
        let (claim, attempt) = (claim.clone(), hold.attempt);
        tokio::spawn(async move {
            if let Some(counter) = top_up(&inbox, &at, &claim, attempt, &tenure).await {
                inbox.given(claim.id, server, counter);
            }
        });
    };
    for (_, going) in &kept {
        going.hold.renewal.without().for_each(|server| give(going, server));
    }
    while let Some((server, answer)) = answers.next().await {
        let beats = answer.unwrap_or_default();
        for (index, going) in &kept {
            match beats.get(*index) {
                Some(Beat::Extended(counter)) => {
                    quorum.inbox.given(going.claim.id, server, *counter);
                }
                Some(Beat::Gone) => give(going, server),
                None => {}
            }
        }
    }
}

/// Begins a tenure where the token of a kept hold is missing: the counter that it stands at.
async fn top_up(
    inbox: &Inbox,
    server: &Server,
    claim: &Claim,
    attempt: u64,
    tenure: &Tenure,
) -> Option<u64> {
    let counter = match server.acquire(tenure).await {
        Ok(Vote::Granted(counter)) => Some(counter),
        Err(failure) if !failure.had_no_effect() => None,
        Ok(Vote::Denied(_)) | Err(_) => return None,
    };
    if inbox.hold(claim.id).is_some() {
        return counter;
    }
    // Released meanwhile: nothing must be left of it.
    let end = End::GiveBack(attempt);
    if server.release(&claim.key, claim.id, end).await.is_err() {
        end_again(server, &claim.key, claim.id, end).await;
    }
    None
}

/// A minority may still have what is lost. The claim may be entered again meanwhile: what is given
/// back here is the old hold's.
fn drop_remains(quorum: &Quorum, going: &Going) {
    let Going { claim, hold } = going;
    quorum.inbox.holds_no_more(claim.id);
    if hold.renewal.without().count() == quorum.servers.len() {
        return;
    }
    let (key, claim, end) = (claim.key.clone(), claim.id, End::GiveBack(hold.attempt));
    let servers = quorum.servers.clone();
    tokio::spawn(async move {
        let ended = servers.iter().map(|server| server.release(&key, claim, end));
        futures::future::join_all(ended).await;
    });
}
