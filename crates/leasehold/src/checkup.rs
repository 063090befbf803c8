//! The part of an examination that is the same for every store: a lock that nobody else wants, and
//! what its times and the servers' clocks mean for a TTL.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::{
    Claim, Enter, Fence, Key, Left, Note, Place, Renewed, SessionId, Terms, Timing,
};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::examination::{Examination, Finding, Probe};
use crate::property::Property;
use crate::random;
use crate::store::{Guarantees, Store};

/// Examines a store for holds with this timing. The key of the probe begins with `prefix`.
pub(crate) async fn examine(
    store: &Arc<dyn Store>,
    timing: Timing,
    owner: Note,
    prefix: &str,
) -> Result<Examination> {
    let name = format!("{prefix}leasehold-doctor-{}", random::token()?);
    let key = Key::new(&name).map_err(|error| {
        let detail = format!("the prefix of the probe's key: {error}");
        Error::new(ErrorKind::Invalid, "examine the store", detail).at(store)
    })?;
    let mut found = store.examine(timing.ttl()).await?;
    let terms = Terms { ttl: timing.ttl(), owner, detached: false };
    // A task of its own, so that it gives back what it took also when nobody waits any more.
    let probing = tokio::spawn(probe(Arc::clone(store), terms, key));
    match probing.await {
        Ok(Ok(probe)) => {
            found.add(Finding::fine(
                "probe",
                "A lock was taken, renewed and released twice, and its fence grew.",
            ));
            found.probe = Some(probe);
        }
        Ok(Err(finding)) => found.add(finding),
        Err(_) => found.add(Finding::unknown(
            "probe",
            "The runtime that took a lock for a try was shut down.",
        )),
    }
    judge_time(timing, &mut found);
    judge_clocks(timing, &mut found);
    note_limits(store.guarantees(), &mut found);
    found.sort();
    Ok(found)
}

/// Takes a lock that nobody else wants, twice, and gives back everything.
async fn probe(store: Arc<dyn Store>, terms: Terms, key: Key) -> Result<Probe, Finding> {
    let began = clock::now();
    let session = store.open(&terms).await.map_err(|error| impossible(&error))?;
    let open = clock::now().since(began);
    let outcome = rounds(&*store, &session, &key).await;
    let closed = store.close(&session).await;
    let (mut probe, fences) = outcome?;
    closed.map_err(|error| impossible(&error))?;
    probe.open = open;
    let [first, second] = fences;
    if second <= first {
        return Err(Finding::danger(
            "probe",
            format!(
                "The fence did not grow: {first} was followed by {second}. What a lock protects \
                 cannot tell an old holder from a new one."
            ),
        ));
    }
    Ok(probe)
}

async fn rounds(
    store: &dyn Store,
    session: &SessionId,
    key: &Key,
) -> Result<(Probe, [Fence; 2]), Finding> {
    let (first, one) = round(store, session, key).await?;
    let (second, two) = round(store, session, key).await?;
    let probe = Probe {
        open: Duration::ZERO,
        enter: first.enter.max(second.enter),
        renew: first.renew.max(second.renew),
        leave: first.leave.max(second.leave),
    };
    Ok((probe, [one, two]))
}

async fn round(
    store: &dyn Store,
    session: &SessionId,
    key: &Key,
) -> Result<(Probe, Fence), Finding> {
    let id = random::claim_id().map_err(|error| impossible(&error))?;
    let claim = Claim::exclusive(id, key.clone(), Note::default());
    let held = hold(store, session, &claim).await;
    let began = clock::now();
    let left = store.leave(session, &claim).await;
    let leave = clock::now().since(began);
    let (enter, renew, fence) = held?;
    match left {
        Ok(Left::Released) => Ok((Probe { open: Duration::ZERO, enter, renew, leave }, fence)),
        Ok(_) => Err(broken("was gone when it was released")),
        Err(error) => Err(impossible(&error)),
    }
}

async fn hold(
    store: &dyn Store,
    session: &SessionId,
    claim: &Claim,
) -> Result<(Duration, Duration, Fence), Finding> {
    let began = clock::now();
    let place = store.enter(session, claim, Enter::Try).await;
    let enter = clock::now().since(began);
    let fence = match place {
        Ok(Place::Held(fence)) => fence,
        Ok(_) => return Err(broken("was refused, though nobody else can know its key")),
        Err(error) => return Err(impossible(&error)),
    };
    let began = clock::now();
    let renewed = store.renew(session, std::slice::from_ref(claim)).await;
    let renew = clock::now().since(began);
    match renewed {
        Ok(Renewed::Extended { lost }) if lost.is_empty() => Ok((enter, renew, fence)),
        Ok(_) => Err(broken("was lost before it was renewed")),
        Err(error) => Err(impossible(&error)),
    }
}

fn impossible(error: &Error) -> Finding {
    let mut says = format!("A lock cannot be taken, renewed and released here: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        says = format!("{says}: {error}");
        cause = error.source();
    }
    Finding::danger("probe", says + ".")
}

fn broken(what: &str) -> Finding {
    let says = format!("A lock for a try {what}. Something else writes to this store's data.");
    Finding::danger("probe", says)
}

/// Whether renewals are answered in time.
fn judge_time(timing: Timing, found: &mut Examination) {
    let round_trips = found.servers.iter().filter_map(|server| server.round_trip);
    // A first lock may cost more than what comes after it; a renewal is what has to be in time.
    let renewal = found.probe.map(|probe| probe.renew);
    let usual = round_trips.clone().map(|trip| trip.median).chain(renewal).max();
    let slowest = round_trips.map(|trip| trip.max).chain(renewal).max();
    let (Some(usual), Some(slowest)) = (usual, slowest) else { return };
    let (ttl, patience) = (timing.ttl(), timing.renew_every() / 2);
    // From when a renewal is due until the loss is signalled.
    let room = ttl.saturating_sub(timing.renew_every() + timing.drift() + timing.grace());
    let silence = room.saturating_sub(patience).saturating_sub(slowest);
    let enough = Timing::MIN_TTL.max(ttl).max(slowest * 36);
    let longer = format!("--ttl {0}, or ClientBuilder::ttl: at least {0}", whole(enough));
    found.add(if usual >= patience || usual >= room {
        Finding::danger(
            "ttl",
            format!(
                "A request usually takes {usual:.0?}, and with a TTL of {ttl:?} a renewal is given \
                 up after {:.0?}: holds are lost while everything works.",
                patience.min(room)
            ),
        )
        .change(longer)
    } else if slowest * 3 >= patience {
        Finding::warning(
            "ttl",
            format!(
                "A request took up to {slowest:.0?}, and with a TTL of {ttl:?} a renewal is given \
                 up after {patience:.0?}: a lost packet or a busy moment makes it fail, and there \
                 is no time for many more attempts before the hold is lost."
            ),
        )
        .change(longer)
    } else {
        Finding::fine(
            "ttl",
            format!(
                "Requests took up to {slowest:.1?}. With a TTL of {ttl:?}, renewed every \
                 {:.1?}, a store that is silent for up to about {silence:.1?} costs no hold.",
                timing.renew_every()
            ),
        )
    });
}

/// A duration to write down: whole seconds upwards.
fn whole(span: Duration) -> String {
    format!("{}s", span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

/// Whether a server's clock could be set right by more than the drift margin allows for.
fn judge_clocks(timing: Timing, found: &mut Examination) {
    let drift = timing.drift();
    let mut judged = Vec::new();
    for server in &found.servers {
        let Some(clock) = server.clock else { continue };
        let (by, off) = (clock.at_least(), clock.uncertainty);
        let side = if clock.ahead_micros < 0 { "behind" } else { "ahead of" };
        judged.push(
            if by <= drift {
                Finding::fine(
                    "clock",
                    format!(
                        "The server's clock agrees with the one here within the drift margin of \
                         {drift:?} (it is {:.1?} {side} it, ± {off:.1?}).",
                        Duration::from_micros(clock.ahead_micros.unsigned_abs())
                    ),
                )
            } else {
                Finding::warning(
                    "clock",
                    format!(
                        "The server's clock is at least {by:.1?} {side} the one here, so one of \
                         them is wrong. Locks do not compare them; but leases end by the server's, \
                         and when it is set right by a jump of more than the drift margin of \
                         {drift:?}, leases end while their holders still trust them."
                    ),
                )
                .change("chronyc tracking   # on both machines: both should follow a time server")
            }
            .at(server.name.clone()),
        );
    }
    found.findings.extend(judged);
}

/// What the store cannot do.
fn note_limits(guarantees: Guarantees, found: &mut Examination) {
    if !guarantees.has(Property::Line) {
        found.add(Finding::note(
            "line",
            "This store keeps no line: who of several waiters comes next is chance.",
        ));
    }
    if !guarantees.has(Property::Counting) {
        found.add(Finding::note(
            "counting",
            "This store has mutexes only: no semaphores, no readers beside a writer.",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examination::{ClockOffset, Examined, RoundTrip, Severity};

    const SECOND: Duration = Duration::from_secs(1);

    fn found(slowest: Duration, ahead_micros: i64) -> Examination {
        let mut server = Examined::new("h:1");
        server.round_trip =
            Some(RoundTrip { exchanges: 8, min: slowest, median: slowest, max: slowest });
        let uncertainty = Duration::from_millis(1);
        server.clock = Some(ClockOffset { ahead_micros, uncertainty });
        Examination { servers: vec![server], ..Examination::default() }
    }

    fn severity(slowest: Duration, timing: Timing) -> (Severity, Option<String>) {
        let mut found = found(slowest, 0);
        judge_time(timing, &mut found);
        (found.findings[0].severity, found.findings[0].change.clone())
    }

    #[test]
    fn a_ttl_is_judged_against_how_long_a_request_takes() {
        let timing = Timing::new(30 * SECOND).unwrap();
        assert_eq!(severity(Duration::from_millis(1), timing), (Severity::Fine, None));
        // Given up after five seconds.
        let (bad, change) = severity(2 * SECOND, timing);
        assert_eq!(bad, Severity::Warning);
        assert!(change.unwrap().starts_with("--ttl 72s"));
        assert_eq!(severity(5 * SECOND, timing).0, Severity::Danger);
        assert_eq!(severity(Duration::from_nanos(4_999_999_999), timing).0, Severity::Warning);
        // What is advised is fine then.
        let advised = Timing::new(72 * SECOND).unwrap();
        assert_eq!(severity(2 * SECOND, advised).0, Severity::Fine);
        // A long grace leaves less room than the patience for a renewal.
        let tight = timing.with_grace(16 * SECOND).unwrap();
        assert_eq!(severity(Duration::from_millis(1100), tight).0, Severity::Danger);
    }

    #[test]
    fn the_slowest_step_counts_wherever_it_was_measured() {
        let timing = Timing::new(SECOND).unwrap();
        let quick = Duration::from_millis(1);
        let mut found = found(quick, 0);
        let slow = Duration::from_millis(170);
        found.probe = Some(Probe { open: quick, enter: quick, renew: slow, leave: quick });
        judge_time(timing, &mut found);
        assert_eq!(found.worst(), Severity::Danger, "given up after 167 ms");
        // Once in a while is not always.
        let mut rarely = super::tests::found(quick, 0);
        rarely.servers[0].round_trip =
            Some(RoundTrip { exchanges: 8, min: quick, median: quick, max: slow });
        judge_time(timing, &mut rarely);
        assert_eq!(rarely.worst(), Severity::Warning);
        let mut nothing = Examination::default();
        judge_time(timing, &mut nothing);
        assert!(nothing.findings.is_empty());
    }

    #[test]
    fn a_clock_may_be_off_by_the_drift_margin() {
        let timing = Timing::new(30 * SECOND).unwrap();
        for (ahead, severity) in [
            (0, Severity::Fine),
            (3_000_000, Severity::Fine),
            (-3_000_000, Severity::Fine),
            // Within what is not certain.
            (3_000_900, Severity::Fine),
            (3_100_000, Severity::Warning),
            (-3_100_000, Severity::Warning),
            (i64::MIN, Severity::Warning),
        ] {
            let mut found = found(Duration::ZERO, ahead);
            judge_clocks(timing, &mut found);
            assert_eq!(found.worst(), severity, "{ahead}: {found:?}");
            assert_eq!(found.findings[0].server.as_deref(), Some("h:1"));
        }
    }
}
