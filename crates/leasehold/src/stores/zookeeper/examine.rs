//! What the members of the ensemble say of themselves, and what that means for locks.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::config::{Config, Member};
use super::wire::{self, Answer, Code, Failure, Link, Pace, Request};
use super::{TICKS_MIN, VISIT, ZooKeeper, patience};
use crate::examination::{Examination, Examined, Finding};

/// Where the members keep the list of themselves.
const CONFIGURATION: &str = "/zookeeper/config";
/// What the examination reads.
const WHITELIST: &str = "4lw.commands.whitelist=srvr, conf   # in zoo.cfg, on each member";

/// Examines every member that the URL names, for sessions of this TTL.
pub(super) async fn examine(store: &ZooKeeper, ttl: Duration) -> Result<Examination, Failure> {
    let config = store.config();
    // Fails when none of them serves.
    let tick = store.tick(ttl).await?;
    let (link, granted) = store.passing_link(ttl, patience(ttl)).await?;
    let ensemble = ensemble(&link).await;
    let _ = link.ask(Request::Close).await;
    let ensemble = ensemble?;

    let mut found = Examination::default();
    let asked = join_all(config.members.iter().map(|member| ask(config, member))).await;
    let modes: Vec<Option<String>> =
        asked.iter().map(|asked| asked.examined.role.clone()).collect();
    let serving = asked.iter().filter(|asked| asked.failure.is_none()).count();
    for asked in asked {
        let findings = asked.judge(tick, config);
        found.add_server(asked.examined, findings);
    }
    found.findings.extend(judge_session(ttl, granted, tick));
    found.findings.extend(judge_ensemble(ensemble.as_deref(), &modes, serving));
    if config.user.is_none() {
        found.add(
            Finding::note(
                "access",
                "The URL names no user: whoever reaches the servers can end any lock.",
            )
            .change("zookeeper://USER:PASSWORD@…"),
        );
    }
    found.add(Finding::note(
        "clock",
        "ZooKeeper tells no time. Sessions run by the leader's clock, which counts ticks and \
         cannot be set; it cannot be compared from here.",
    ));
    found.add(Finding::fine(
        "durability",
        "A grant is on the disks of most members before it is answered (unless they run with \
         forceSync=no, which they do not tell), so the loss of a minority forgets nobody.",
    ));
    Ok(found)
}

/// The lines `server.N=…` of the ensemble's list of itself; `None` if it may not be read. One
/// server alone has none.
async fn ensemble(link: &Link) -> Result<Option<Vec<String>>, Failure> {
    let path = CONFIGURATION.to_owned();
    match link.ask(Request::Data { path, watch: false }).await {
        Ok(Answer::Data { data, .. }) => {
            let text = String::from_utf8_lossy(&data).into_owned();
            let lines = text.lines().filter(|line| line.starts_with("server."));
            Ok(Some(lines.map(str::to_owned).collect()))
        }
        Ok(_) => Err(Failure::Cut),
        Err(Failure::Answered(Code::NO_NODE | Code::NO_AUTH)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A member, and what it said.
struct Asked {
    examined: Examined,
    /// Why it carries no session.
    failure: Option<Failure>,
    /// Its `tickTime`.
    tick: Option<Duration>,
}

async fn ask(config: &Config, member: &Member) -> Asked {
    let examined = Examined::new(member.to_string());
    let (mut examined, failure) = match visit(config, member, examined.clone()).await {
        Ok(examined) => (examined, None),
        Err(failure) => (examined, Some(failure)),
    };
    let (srvr, conf) = futures::join!(say(config, member, "srvr"), say(config, member, "conf"));
    let srvr = srvr.unwrap_or_default();
    let field = |name: &str| srvr.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    examined.version = field("Zookeeper version:")
        .and_then(|version| version.split(['-', ',']).next())
        .map(str::to_owned);
    examined.role = field("Mode:").map(str::to_owned);
    Asked { examined, failure, tick: conf.as_deref().and_then(tick_of) }
}

/// Opens a session at one member, which may be cut off from the others.
async fn visit(config: &Config, member: &Member, examined: Examined) -> Result<Examined, Failure> {
    let alone = Arc::new(Config { members: vec![member.clone()], ..config.clone() });
    let pace = Pace { timeout: VISIT, patience: patience(VISIT) };
    let opened = wire::open(alone, None, pace, Box::new(|_| {})).await?;
    let link = opened.link;
    let measured = examined.measure(|| {
        let answer = link.ask(Request::Touch);
        async { answer.await.map(|_| None) }
    });
    let measured = measured.await;
    let _ = link.ask(Request::Close).await;
    measured
}

/// What a member answers to a four-letter word; `None` if it may not.
async fn say(config: &Config, member: &Member, word: &str) -> Option<String> {
    let answer = tokio::time::timeout(patience(VISIT), wire::say(config, member, word)).await;
    let answer = answer.ok()?.ok()?;
    let refused = answer.is_empty() || answer.contains("is not executed because");
    (!refused).then_some(answer)
}

fn tick_of(conf: &str) -> Option<Duration> {
    let millis = conf.lines().find_map(|line| line.trim().strip_prefix("tickTime="))?;
    Some(Duration::from_millis(millis.parse().ok()?))
}

impl Asked {
    /// `tick` is what the store takes the member's to be.
    fn judge(&self, tick: Duration, config: &Config) -> Vec<Finding> {
        if let Some(failure) = &self.failure {
            let error = failure.clone().while_trying("open a session");
            let says = format!(
                "The member does not serve ({error}). While most members do, locks go on; each \
                 that is missing brings the end of that nearer."
            );
            return vec![Finding::warning("member", says)];
        }
        let mut found = Vec::new();
        match self.examined.role.as_deref() {
            None => found.push(
                Finding::unknown(
                    "member",
                    "Its version and what it is among the members could not be read: it does not \
                     answer to `srvr`.",
                )
                .change(WHITELIST),
            ),
            Some("read-only") => found.push(Finding::warning(
                "member",
                "The member is cut off from the others and serves reads only: no lock can be \
                 taken there.",
            )),
            Some(mode) => {
                let says = format!("The member serves, as {}.", mode.escape_debug());
                found.push(Finding::fine("member", says));
            }
        }
        found.push(judge_tick(self.tick, tick, config.tick.is_some()));
        found
    }
}

/// A renewal waits for half a tick, so that what a member heard has reached the leader. With too
/// short a one it would prove nothing.
fn judge_tick(real: Option<Duration>, taken: Duration, configured: bool) -> Finding {
    let whence = if configured { "by the URL's `tick=`" } else { "from its shortest session" };
    match real {
        None => Finding::unknown(
            "tick",
            format!(
                "Its tickTime could not be read: it does not answer to `conf`. It is taken to be \
                 {taken:?} ({whence}); if it is longer, a member that is cut off may confirm what \
                 the others let lapse, and two may hold."
            ),
        )
        .change(WHITELIST),
        Some(real) if real > taken => Finding::danger(
            "tick",
            format!(
                "Its tickTime is {real:?}, and is taken to be {taken:?} ({whence}): a member that \
                 is cut off may confirm what the others let lapse, and two may hold."
            ),
        )
        .change(format!("?tick={}ms   # in the store's URL", real.as_millis())),
        Some(real) => {
            Finding::fine("tick", format!("Its tickTime is {real:?}; renewals wait long enough."))
        }
    }
}

/// Whether sessions last for the TTL.
fn judge_session(ttl: Duration, granted: Duration, tick: Duration) -> Vec<Finding> {
    let mut found = vec![judge_timeout(ttl, granted, tick)];
    let least = tick * TICKS_MIN;
    if ttl < least {
        found.push(
            Finding::danger(
                "tick",
                format!(
                    "A TTL of {ttl:?} is too short for servers with a tickTime of {tick:?}, of \
                     which a renewal takes half: no lock can be taken."
                ),
            )
            .change(format!("--ttl {least:?}, or a shorter tickTime")),
        );
    }
    found
}

fn judge_timeout(ttl: Duration, granted: Duration, tick: Duration) -> Finding {
    match granted.cmp(&ttl) {
        Ordering::Less => Finding::danger(
            "session",
            format!(
                "The servers grant sessions of at most {granted:?}: with a TTL of {ttl:?} no lock \
                 can be taken."
            ),
        )
        .change(format!(
            "--ttl {granted:?}, or maxSessionTimeout={}   # in zoo.cfg, on each member",
            ttl.as_millis()
        )),
        Ordering::Greater => Finding::note(
            "session",
            format!(
                "The servers grant no session under {granted:?}: with a TTL of {ttl:?} a crash \
                 blocks the others for that long, and up to {tick:?} more."
            ),
        )
        .change(format!(
            "minSessionTimeout={}   # in zoo.cfg, on each member; then ?tick={}ms in the URL",
            ttl.as_millis(),
            tick.as_millis()
        )),
        Ordering::Equal => {
            let says = format!("The servers grant sessions of {ttl:?}, as the TTL wants them.");
            Finding::fine("session", says)
        }
    }
}

/// What follows from who is there. `members` are the lines of the ensemble's list of itself.
fn judge_ensemble(
    members: Option<&[String]>,
    modes: &[Option<String>],
    serving: usize,
) -> Vec<Finding> {
    let asked = modes.len();
    let alone = modes.iter().flatten().any(|mode| mode == "standalone");
    let Some(members) = members else {
        let says = "How many members the ensemble has could not be read.";
        let change = format!("setAcl {CONFIGURATION} world:anyone:r");
        return vec![Finding::unknown("members", says).change(change)];
    };
    let voters = members.iter().filter(|line| !line.contains(":observer")).count();
    if alone || voters <= 1 {
        return vec![
            Finding::warning(
                "members",
                "The ensemble has one server: while it is down no lock can be taken or renewed, \
                 and with its disk all locks and the order of the fences are lost.",
            )
            .change("three servers survive the loss of one"),
        ];
    }
    let quorum = voters / 2 + 1;
    let mut found = Vec::new();
    if asked < members.len() {
        found.push(
            Finding::unknown(
                "members",
                format!(
                    "{} of the {} members were not asked, because the URL does not name them, so \
                     how they are is not known; and while those that it names are down, no lock \
                     can be taken.",
                    members.len() - asked,
                    members.len()
                ),
            )
            .change(format!("name all in the URL; they are: {}", members.join(" ").escape_debug())),
        );
    }
    let missing = asked - serving;
    let spare = (voters - quorum).saturating_sub(missing);
    if missing > 0 && spare == 0 {
        let says = format!(
            "{missing} of {voters} members do not serve, and {quorum} are needed: with the next \
             one that fails, no lock can be taken or renewed."
        );
        found.push(Finding::warning("members", says));
    } else if voters.is_multiple_of(2) {
        let says = format!(
            "The ensemble has {voters} members and survives the loss of {spare}, as it would with \
             one member less."
        );
        found.push(Finding::note("members", says));
    } else {
        let says = format!("The ensemble has {voters} members and survives the loss of {spare}.");
        found.push(Finding::fine("members", says));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examination::Severity::{self, Danger, Fine, Note, Unknown, Warning};

    fn worst(found: &[Finding], topic: &str) -> Option<Severity> {
        found.iter().filter(|found| found.topic == topic).map(|found| found.severity).max()
    }

    #[test]
    fn a_tick_that_is_taken_for_shorter_than_it_is_is_a_danger() {
        let second = Duration::from_secs(1);
        assert_eq!(judge_tick(Some(2 * second), second, false).severity, Danger);
        assert_eq!(judge_tick(Some(second), second, false).severity, Fine);
        assert_eq!(judge_tick(Some(second), 2 * second, true).severity, Fine);
        assert_eq!(judge_tick(None, second, false).severity, Unknown);
        assert_eq!(tick_of("clientPort=1\r\ntickTime=200\n"), Some(second / 5));
    }

    #[test]
    fn the_bounds_of_sessions_are_held_against_the_ttl() {
        let second = Duration::from_secs(1);
        let session = |ttl, granted, tick| judge_session(second * ttl, second * granted, tick);
        assert_eq!(worst(&session(30, 30, 2 * second), "session"), Some(Fine));
        assert_eq!(worst(&session(30, 20, second), "session"), Some(Danger));
        assert_eq!(worst(&session(30, 40, second), "session"), Some(Note));
        assert_eq!(worst(&session(9, 9, 2 * second), "tick"), Some(Danger));
        assert_eq!(worst(&session(10, 10, 2 * second), "tick"), None);
    }

    #[test]
    fn the_size_of_an_ensemble_and_who_is_missing_matter() {
        let lines: Vec<String> = (1..=5).map(|n| format!("server.{n}=h:1:2:participant")).collect();
        let modes = |n| vec![Some("follower".to_owned()); n];
        let members = |size, asked, serving| {
            worst(&judge_ensemble(Some(&lines[..size]), &modes(asked), serving), "members").unwrap()
        };
        assert_eq!(members(3, 3, 3), Fine);
        assert_eq!(members(3, 3, 2), Warning);
        assert_eq!(members(5, 5, 4), Fine, "one more may go");
        assert_eq!(members(5, 5, 3), Warning);
        assert_eq!(members(4, 4, 4), Note);
        assert_eq!(members(3, 1, 1), Unknown);
        assert_eq!(members(0, 1, 1), Warning);
        assert_eq!(worst(&judge_ensemble(None, &modes(1), 1), "members"), Some(Unknown));
        let alone = [Some("standalone".to_owned())];
        assert_eq!(worst(&judge_ensemble(Some(&[]), &alone, 1), "members"), Some(Warning));
    }

    #[test]
    fn a_member_that_does_not_say_what_it_is_is_not_fine() {
        let config = Config::parse("zookeeper://h").unwrap();
        let tick = Some(Duration::from_secs(1));
        for (mode, severity) in
            [(None, Unknown), (Some("read-only"), Warning), (Some("follower"), Fine)]
        {
            let examined = Examined { role: mode.map(str::to_owned), ..Examined::new("h:1") };
            let asked = Asked { examined, failure: None, tick };
            let found = asked.judge(Duration::from_secs(1), &config);
            assert_eq!(worst(&found, "member"), Some(severity), "{mode:?}");
        }
    }
}
