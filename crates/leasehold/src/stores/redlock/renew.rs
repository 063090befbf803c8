//! Holds that go on: a round of requests for all of a roll, and what was lost put right.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backoff::Backoff;
use leasehold_core::quorum::{Renewal, Verdict};
use leasehold_core::{Claim, ClaimId, Moment};

use super::inbox::Hold;
use super::quorum::{Quorum, end_again};
use super::wire::{End, Tenure, Vote};
use crate::clock;
use crate::error::{Error, Result};
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
    quorum: &Quorum,
    session: &Session,
    roll: &[Claim],
    doing: &'static str,
) -> Result<Vec<ClaimId>> {
    // Half of what a session waits for a renewal.
    let patience = quorum.patience(session.lasts(), 12);
    let until = clock::now() + patience;
    let (mut undecided, mut lost) = find(quorum, roll, doing, patience).await?;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1, random::seed().unwrap_or_default());
    let mut kept = Vec::new();
    let mut trouble = None;
    loop {
        trouble = round(quorum, session, &mut undecided, doing, until).await.or(trouble);
        for going in std::mem::take(&mut undecided) {
            match going.verdict() {
                Verdict::Kept => kept.push(going),
                Verdict::Lost => {
                    drop_remains(quorum, &going);
                    lost.push(going.claim.id);
                }
                Verdict::Wait | Verdict::Unknown => undecided.push(going),
            }
        }
        let pause = backoff.next_wait();
        if undecided.is_empty() || clock::now() + pause >= until {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    top_up(quorum, session, &mut kept, until).await;
    for going in &kept {
        quorum.inbox.goes_on(going.claim.id, &going.hold.renewal);
    }
    match trouble.filter(|_| !undecided.is_empty()) {
        // Enough servers answer, so these cannot be proven any more: a majority was interrupted.
        // They must not cost the others their holds.
        Some(_) if !kept.is_empty() => {
            for going in undecided {
                let (claim, key) = (going.claim.id, &going.claim.key);
                let end = End::GiveBack(going.hold.attempt);
                quorum.end(doing, (key, claim), end, patience).await?;
                quorum.inbox.holds_no_more(claim);
                lost.push(claim);
            }
            Ok(lost)
        }
        Some(error) => Err(error),
        None => Ok(lost),
    }
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
                let error = Error::new(crate::ErrorKind::Unavailable, doing, detail);
                return Err(error.at(&quorum.config).about(&claim.key).outcome_unknown());
            }
        }
    }
    Ok((found, lost))
}

/// Asks every server for all of the claims. An error if some remain undecided.
async fn round(
    quorum: &Quorum,
    session: &Session,
    roll: &mut [Going],
    doing: &'static str,
    until: Moment,
) -> Option<Error> {
    if roll.is_empty() {
        return None;
    }
    roll.iter_mut().for_each(|going| going.hold.renewal.again());
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
                roll.iter_mut().for_each(|going| going.hold.renewal.gave_up(server));
            }
            None => {
                for going in &mut *roll {
                    (0..quorum.servers.len()).for_each(|it| going.hold.renewal.gave_up(it));
                }
            }
        }
    }
    let undecided = roll.iter().any(|going| going.verdict() == Verdict::Unknown);
    undecided.then(|| answers.too_few(doing, quorum))
}

/// Begins tenures where the token of a kept hold is missing. They count from a later round on.
async fn top_up(quorum: &Quorum, session: &Session, kept: &mut [Going], until: Moment) {
    let missing = kept.iter().enumerate().flat_map(|(index, going)| {
        let without = going.hold.renewal.without();
        without.map(move |server| (index, server)).collect::<Vec<_>>()
    });
    let requests = missing.collect::<Vec<_>>().into_iter().map(|(index, at)| {
        let Going { claim, hold } = &kept[index];
        let Hold { renewal, attempt } = hold;
        let tenure = Tenure::new(session, claim, *attempt, renewal.fence().get());
        let (server, claim, attempt) = (Arc::clone(&quorum.servers[at]), claim.clone(), *attempt);
        let inbox = Arc::clone(&quorum.inbox);
        let given = tokio::spawn(async move {
            let counter = match server.acquire(&tenure).await {
                Ok(Vote::Granted(counter)) => Some(counter),
                Err(failure) if !failure.had_no_effect() => None,
                Ok(Vote::Denied(_)) | Err(_) => return None,
            };
            if inbox.hold(claim.id).is_none() {
                // Released meanwhile: nothing must be left of it.
                let end = End::GiveBack(attempt);
                if server.release(&claim.key, claim.id, end).await.is_err() {
                    end_again(&server, &claim.key, claim.id, end).await;
                }
                return None;
            }
            counter
        });
        async move { (index, at, given.await.ok().flatten()) }
    });
    let given = futures::future::join_all(requests.collect::<Vec<_>>());
    let Ok(given) = tokio::time::timeout(until.since(clock::now()), given).await else { return };
    for (index, server, counter) in given {
        if let Some(counter) = counter {
            kept[index].hold.renewal.given(server, counter);
        }
    }
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
