//! What the members of the cluster say of themselves, and what that means for locks.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;

use super::procedure::{MEMBERS, STATUS};
use super::proto::{Member, MembersRequest, StatusRequest, StatusResponse};
use super::wire::{Failure, Wire};
use crate::error::Result;
use crate::examination::{Examination, Examined, Finding};

const EXAMINE: &str = "examine the store";
/// The quota of a database, unless configured.
const QUOTA: i64 = 2 << 30;
/// The part of the quota that is too near to it.
const NEAR: i64 = 80;

/// A member that the URL names, and what it said.
struct Asked {
    examined: Examined,
    answer: Result<StatusResponse, Failure>,
}

/// Examines every member that the URL names.
pub(super) async fn examine(wire: &Wire, ttl: Duration) -> Result<Examination> {
    // Fails when none of them serves; whichever does knows the others.
    let members = wire.call(EXAMINE, &MEMBERS, MembersRequest {}).await?.body.members;
    let asked = join_all((0..wire.config().members.len()).map(|at| ask(wire, at))).await;
    let mut found = Examination::default();
    let statuses = asked.iter().filter_map(|asked| asked.answer.as_ref().ok());
    let statuses: Vec<StatusResponse> = statuses.cloned().collect();
    for Asked { examined, answer } in asked {
        let findings = match answer {
            Ok(status) => judge_member(&status),
            Err(failure) => vec![silent(&failure)],
        };
        found.add_server(examined, findings);
    }
    found.findings.extend(judge_cluster(&members, &statuses, wire.config().members.len()));
    if ttl.subsec_nanos() > 0 {
        found.add(Finding::note(
            "rounding",
            format!(
                "Leases are of whole seconds: with a TTL of {ttl:?} a crash blocks the others \
                     up to a second longer than that."
            ),
        ));
    }
    Ok(found)
}

async fn ask(wire: &Wire, at: usize) -> Asked {
    let mut examined = Examined::new(wire.config().members[at].clone());
    let answer = wire.ask(at, &STATUS, StatusRequest {}).await;
    let Ok(status) = &answer else { return Asked { examined, answer } };
    examined.version = Some(status.version.clone());
    let own = status.header.map(|header| header.member);
    let role = match (status.learner, own == Some(status.leader)) {
        (true, _) => "learner",
        (_, true) => "leader",
        _ => "follower",
    };
    examined.role = Some(role.to_owned());
    let exchange = || async { wire.ask(at, &STATUS, StatusRequest {}).await.map(|_| None) };
    match examined.clone().measure(exchange).await {
        Ok(examined) => Asked { examined, answer },
        Err(failure) => Asked { examined, answer: Err(failure) },
    }
}

fn silent(failure: &Failure) -> Finding {
    let reason = failure.reason();
    let reason = reason.escape_debug();
    if let Failure::Refused { .. } = failure {
        let says = format!("The member does not say how it is: {reason}.");
        return Finding::unknown("member", says).change("etcdctl endpoint status   # as root");
    }
    let says = format!(
        "The member does not serve ({reason}). While most members do, locks go on; each that is \
         missing brings the end of that nearer."
    );
    Finding::warning("member", says).change("etcdctl endpoint health --cluster")
}

/// What one member says of itself.
fn judge_member(status: &StatusResponse) -> Vec<Finding> {
    let mut found = vec![judge_version(&status.version)];
    found.extend(status.errors.iter().map(|error| judge_error(error)));
    if status.leader == 0 {
        found.push(Finding::danger(
            "leader",
            "The member knows no leader: no lock can be taken or renewed there.",
        ));
    }
    let (quota, told) = if status.quota > 0 { (status.quota, true) } else { (QUOTA, false) };
    let size = status.size >> 20;
    if status.size.saturating_mul(100) / quota >= NEAR {
        let quota = quota >> 20;
        let says = format!(
            "The database has {size} of {quota} MiB{}: when they are full, no session can be \
             opened.",
            if told { "" } else { " (the default quota; before 3.6 it does not tell its own)" }
        );
        let defrag = "etcdctl compact REVISION; etcdctl defrag   # or raise --quota-backend-bytes";
        found.push(Finding::warning("space", says).change(defrag));
    } else if told {
        let says = format!("The database has {size} of {} MiB.", quota >> 20);
        found.push(Finding::fine("space", says));
    } else {
        found.push(Finding::note(
            "space",
            format!(
                "The database has {size} MiB. Its quota could not be read (it tells it from \
                     3.6 on); unless configured it is 2048 MiB."
            ),
        ));
    }
    found
}

/// Alarms come here as text. They are not asked for by name: a list of alarms is a write, after
/// which members of 3.5.0 to 3.5.4 may not start again (etcd#14429).
fn judge_error(error: &str) -> Finding {
    if error.contains("NOSPACE") {
        let says = "The alarm NOSPACE is raised: the database reached its quota, and no session \
                    can be opened.";
        let repair = "etcdctl compact REVISION; etcdctl defrag; etcdctl alarm disarm";
        return Finding::danger("alarm", says).change(repair);
    }
    if error.contains("CORRUPT") {
        return Finding::danger(
            "alarm",
            "The alarm CORRUPT is raised: the members have different data, so a lock may have two \
             holders. Replace the member that is wrong.",
        );
    }
    let says = format!("The member reports: {}.", error.escape_debug());
    Finding::warning("alarm", says)
}

fn judge_version(version: &str) -> Finding {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    let shown = version.escape_debug();
    let newer = "upgrade to 3.4.31, 3.5.13, 3.6 or newer";
    match (major, minor, patch) {
        (3, 5, 0..=2) => Finding::danger(
            "version",
            format!(
                "etcd {shown} may come to have different data on different members after a crash \
                 (fixed in 3.5.3): a lock may then have two holders."
            ),
        )
        .change(newer),
        (3, 4, 0..=30) | (3, 5, 3..=12) => Finding::warning(
            "version",
            format!(
                "In etcd {shown} a leader that was replaced without noticing (a slow disk, a busy \
                 machine) may end leases that are being renewed (etcd#15247): holders lose their \
                 locks, and another may hold before they know."
            ),
        )
        .change(newer),
        (0..=2, ..) => {
            Finding::unknown("version", format!("The version {shown} could not be read."))
        }
        _ => Finding::fine(
            "version",
            format!("etcd {shown} has no known fault that ends leases early."),
        ),
    }
}

/// What follows from who is there.
fn judge_cluster(members: &[Member], statuses: &[StatusResponse], named: usize) -> Vec<Finding> {
    let voters: Vec<&Member> = members.iter().filter(|member| !member.learner).collect();
    let heard: BTreeSet<u64> =
        statuses.iter().filter_map(|status| Some(status.header?.member)).collect();
    let unheard: Vec<&str> = voters
        .iter()
        .filter(|member| !heard.contains(&member.id))
        .map(|member| member.addresses.first().unwrap_or(&member.name).as_str())
        .collect();
    // A member that the URL names and that is silent is told of by itself.
    let silent = named.saturating_sub(statuses.len());
    let mut found = vec![judge_size(voters.len(), silent)];
    if unheard.len() > silent {
        found.push(
            Finding::unknown(
                "members",
                format!(
                    "{} of the {} members were not asked, because the URL does not name them, so \
                     how they are is not known; and while those that it names are down, no lock \
                     can be taken.",
                    unheard.len() - silent,
                    voters.len()
                ),
            )
            .change(format!("name all in the URL, also: {}", unheard.join(", ").escape_debug())),
        );
    }
    let leaders: BTreeSet<u64> = statuses.iter().map(|status| status.leader).collect();
    if leaders.len() > 1 {
        found.push(Finding::warning(
            "leader",
            "The members follow different leaders: an election is under way, or the network \
             between them is in parts.",
        ));
    }
    found.push(Finding::note(
        "clock",
        "etcd tells no time. Leases run by the leader's clock, which cannot be compared from here.",
    ));
    found.push(Finding::fine(
        "durability",
        "A grant is on the disks of most members before it is answered (unless they run with \
         --unsafe-no-fsync, which they do not tell), so the loss of a minority forgets nobody.",
    ));
    found
}

/// `silent` of the voters are known not to serve.
fn judge_size(voters: usize, silent: usize) -> Finding {
    let quorum = voters / 2 + 1;
    let serving = voters.saturating_sub(silent);
    if voters == 1 {
        return Finding::warning(
            "members",
            "The cluster has one member: while it is down no lock can be taken or renewed, and \
             with its disk all locks and the order of the fences are lost.",
        )
        .change("etcdctl member add   # three members survive the loss of one");
    }
    if silent > 0 && serving <= quorum {
        let says = format!(
            "{silent} of {voters} members do not serve, and {quorum} are needed: with the next one that \
             fails, no lock can be taken or renewed."
        );
        return Finding::warning("members", says).change("etcdctl endpoint health --cluster");
    }
    let spare = serving.saturating_sub(quorum);
    if voters.is_multiple_of(2) {
        let says = format!(
            "The cluster has {voters} members and survives the loss of {spare}, as it would with \
             one member less."
        );
        return Finding::note("members", says).change("etcdctl member add   # or remove");
    }
    let says = format!("The cluster has {voters} members and survives the loss of {spare}.");
    Finding::fine("members", says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examination::Severity::{self, Danger, Fine, Note, Unknown, Warning};

    fn worst(found: &[Finding], topic: &str) -> Option<Severity> {
        found.iter().filter(|found| found.topic == topic).map(|found| found.severity).max()
    }

    fn status(member: u64) -> StatusResponse {
        let header = Some(super::super::proto::Answerer { member });
        StatusResponse { header, version: "3.5.16".into(), leader: 1, ..Default::default() }
    }

    fn cluster(size: u64) -> Vec<Member> {
        (1..=size).map(|id| Member { id, name: format!("m{id}"), ..Default::default() }).collect()
    }

    #[test]
    fn versions_with_faults_are_known() {
        for (version, severity) in [
            ("3.4.23", Warning),
            ("3.4.30", Warning),
            ("3.4.31", Fine),
            ("3.5.0", Danger),
            ("3.5.2", Danger),
            ("3.5.3", Warning),
            ("3.5.12", Warning),
            ("3.5.13", Fine),
            ("3.6.0-rc.1", Fine),
            ("nonsense", Unknown),
        ] {
            assert_eq!(judge_version(version).severity, severity, "{version}");
        }
    }

    #[test]
    fn alarms_space_and_the_lack_of_a_leader_are_seen() {
        let judged = |status: StatusResponse| judge_member(&status);
        assert_eq!(judge_error("memberID:1 alarm:NOSPACE ").severity, Danger);
        assert_eq!(judge_error("memberID:1 alarm:CORRUPT ").severity, Danger);
        assert_eq!(judge_error("etcdserver: no leader").severity, Warning);
        let lost = StatusResponse { leader: 0, ..status(1) };
        assert_eq!(worst(&judged(lost), "leader"), Some(Danger));
        for (size, quota, severity) in
            [(100, 0, Note), (QUOTA / 10 * 8 + 8, 0, Warning), (79, 100, Fine), (80, 100, Warning)]
        {
            let status = StatusResponse { size, quota, ..status(1) };
            assert_eq!(worst(&judged(status), "space"), Some(severity), "{size} of {quota}");
        }
    }

    #[test]
    fn the_size_of_a_cluster_and_who_is_missing_matter() {
        let three: Vec<_> = (1..=3).map(status).collect();
        let members = |size, statuses: &[StatusResponse], named| {
            worst(&judge_cluster(&cluster(size), statuses, named), "members").unwrap()
        };
        assert_eq!(members(1, &three[..1], 1), Warning);
        assert_eq!(members(3, &three, 3), Fine);
        assert_eq!(members(3, &three[..2], 3), Warning, "one does not serve");
        assert_eq!(members(3, &three[..1], 1), Unknown, "two are not named");
        assert_eq!(members(2, &three[..2], 2), Note);
        assert_eq!(judge_size(5, 1).severity, Fine);
        assert!(judge_size(5, 1).says.contains("survives the loss of 1"), "one is missing");
        assert_eq!(judge_size(5, 2).severity, Warning);
        // The same member by two names is one.
        assert_eq!(members(3, &[status(1), status(1)], 2), Unknown);
        let split = [status(1), StatusResponse { leader: 2, ..status(2) }, status(3)];
        assert_eq!(worst(&judge_cluster(&cluster(3), &split, 3), "leader"), Some(Warning));
    }
}
