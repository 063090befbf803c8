//! What the servers say of themselves, and what that means for a quorum of them.

use std::collections::HashMap;
use std::time::Duration;

use leasehold_core::quorum::PROPOSAL_AHEAD;

use super::config;
use super::quorum::Quorum;
use crate::error::Result;
use crate::examination::{Examination, Examined, Finding, Severity};
use crate::stores::redis::examine as one;
use crate::stores::redis::failure::Failure;

/// What one server was found to be.
#[derive(Debug)]
struct Found {
    server: Examined,
    findings: Vec<Finding>,
    /// What it calls itself since its start.
    run_id: Option<String>,
}

/// Examines every server, and then all of them together.
pub(super) async fn examine(quorum: &Quorum) -> Result<Examination> {
    // Each server is asked a few dozen things one after the other.
    let patience = quorum.config.common().timeout * 4;
    let mut answers = quorum.ask(patience, |server| async move {
        let live = server.live().await?;
        let patience = server.patience();
        let (examined, findings) = one::server(&live.wire, &server.name, patience).await?;
        let info = tokio::time::timeout(patience, live.wire.info()).await;
        let info = info.ok().transpose()?.flatten().unwrap_or_default();
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let run_id = run_id.map(|id| id.trim().to_owned());
        Ok::<_, Failure>(Found { server: examined, findings, run_id })
    });
    let mut found: Vec<Option<Found>> = quorum.servers.iter().map(|_| None).collect();
    while let Some((server, examined)) = answers.next().await {
        found[server] = examined.ok();
    }
    if answers.answered() < quorum.majority() {
        return Err(answers.too_few("examine the store", quorum));
    }
    let mut all = Examination::default();
    all.add(margin(quorum, &found));
    all.findings.extend(independence(quorum, &found));
    all.findings.extend(clocks(&found));
    for (server, one) in quorum.servers.iter().zip(found) {
        if let Some(Found { server, findings, .. }) = one {
            all.add_server(server, findings.into_iter().map(for_a_quorum).collect());
        } else {
            let says = "The server does not answer: its vote is missing.";
            let down = vec![Finding::warning("reachable", says)];
            all.add_server(Examined::new(&server.name), down);
        }
    }
    Ok(all)
}

/// How many more may fail.
fn margin(quorum: &Quorum, found: &[Option<Found>]) -> Finding {
    let (count, majority) = (found.len(), quorum.majority());
    let up = found.iter().flatten().count();
    let more = up - majority;
    let says = if more == 0 {
        format!(
            "Of {count} servers {up} answer, and {majority} have to agree: with the next failure no \
             lock can be taken, and none renewed."
        )
    } else {
        format!(
            "Of {count} servers {up} answer, and {majority} have to agree: {more} more may fail."
        )
    };
    if up < count { Finding::warning("quorum", says) } else { Finding::fine("quorum", says) }
}

/// Whether the votes are independent.
fn independence(quorum: &Quorum, found: &[Option<Found>]) -> Vec<Finding> {
    let ids = quorum
        .servers
        .iter()
        .zip(found)
        .filter_map(|(server, one)| Some((one.as_ref()?.run_id.clone()?, server.name.clone())));
    let mut findings = Vec::new();
    for (_, names) in repeated(ids) {
        let says = format!(
            "{} are one server under several names: its vote counts more than once, and two may hold.",
            names.join(" and ")
        );
        findings.push(
            Finding::danger("independence", says)
                .change("--store redlock://A,B,C   # each of them once"),
        );
    }
    let hosts = quorum
        .config
        .servers
        .iter()
        .filter_map(|server| Some((config::host_of(server)?, config::name_of(server))));
    for (host, names) in repeated(hosts) {
        let says = format!(
            "{} are on one host, {}: one failure takes {} votes at once.",
            names.join(" and "),
            host.escape_debug(),
            names.len()
        );
        let majority_at_once = names.len() > found.len() - quorum.majority();
        let finding = if majority_at_once {
            let says =
                format!("{says} No majority is left then: the quorum is no safer than one server.");
            Finding::danger("independence", says)
        } else {
            Finding::warning("independence", says)
        };
        findings.push(finding.change(
            "Run each server on a machine of its own, without a common disk, rack or hypervisor.",
        ));
    }
    if findings.is_empty() {
        let says = "The servers have different hosts and are different servers. That no replica or \
                    failover stands behind any of them, and that they share no machine, cannot be \
                    seen from here.";
        findings.push(Finding::note("independence", says));
    }
    findings
}

/// What several have in common, and who they are.
fn repeated(each: impl Iterator<Item = (String, String)>) -> Vec<(String, Vec<String>)> {
    let mut by: HashMap<String, Vec<String>> = HashMap::new();
    for (common, name) in each {
        by.entry(common).or_default().push(name);
    }
    let mut repeated: Vec<_> = by.into_iter().filter(|(_, names)| names.len() > 1).collect();
    repeated.sort();
    repeated
}

/// Whether the servers' clocks are near enough for one round trip.
fn clocks(found: &[Option<Found>]) -> Option<Finding> {
    let offsets: Vec<_> = found.iter().flatten().filter_map(|one| one.server.clock).collect();
    let ahead = |clock: &&crate::examination::ClockOffset| clock.ahead_micros;
    let (first, last) = (offsets.iter().min_by_key(ahead)?, offsets.iter().max_by_key(ahead)?);
    let apart = Duration::from_micros(last.ahead_micros.abs_diff(first.ahead_micros));
    let certain = apart.saturating_sub(first.uncertainty + last.uncertainty);
    let bound = Duration::from_micros(PROPOSAL_AHEAD / 2);
    Some(if certain > bound {
        let says = format!(
            "The servers' clocks are {apart:.1?} apart. Fences stay unique, but the servers do not \
             agree on the next one at once: each lock costs two round trips instead of one."
        );
        Finding::warning("clocks-apart", says).change("Run chrony or another NTP client on each.")
    } else {
        Finding::fine("clocks-apart", format!("The servers' clocks are {apart:.1?} apart."))
    })
}

/// What a finding about a single server means where that server has one vote of several.
fn for_a_quorum(finding: Finding) -> Finding {
    match (finding.topic, finding.severity) {
        ("durability", Severity::Fine | Severity::Unknown) => finding,
        ("durability", _) => {
            let says = "A restart may forget grants and counters. While one server of the majority \
                        forgets, two may hold, and *with the same or a falling fence*: the fence of a \
                        quorum needs each answer on the disk first (appendfsync always), or a server \
                        that stays away after a crash until every lease has lapsed and its clock has \
                        passed every fence: the longest TTL or 10 s, whichever is more, and twice \
                        what the clocks are apart.";
            Finding { severity: Severity::Danger, says: says.to_owned(), ..finding }
        }
        ("replication", Severity::Note) => {
            let says =
                "The server has no replica, as it should: a failover would forget its votes.";
            Finding::fine("replication", says)
        }
        ("replication", _) => {
            let says = "The server has replicas. One that takes its place has not seen its last votes, \
                        and then two may hold, with fences that do not grow.";
            Finding::danger("replication", says)
                .change("Fail over by hand only, and only after the longest TTL or 10 s, whichever is more.")
        }
        _ => finding,
    }
}
