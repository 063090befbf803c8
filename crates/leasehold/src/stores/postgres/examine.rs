//! What the server says of itself, and what that means for locks.

use std::time::Duration;

use super::config::Config;
use super::wire::{Facts, Failure, POLL, Standby, Wire};
use crate::examination::{Examination, Examined, Finding};

/// The part of a limit that is too near to it.
const NEAR: i64 = 80;
/// Of the 2,146,483,648 transactions after which the server stops to write, this many.
const UNFROZEN: i64 = 1_500_000_000;

/// Examines the server that the store would use, for holds with this TTL.
pub(super) async fn examine(wire: &Wire, ttl: Duration) -> Result<Examination, Failure> {
    let glance = wire.glance().await?;
    let server = Examined::new(wire.config().to_string());
    let server = server.measure(|| async { glance.time().await.map(Some) }).await?;
    let facts = glance.facts().await?;
    let role = if facts.standby { "standby" } else { "primary" };
    let server = Examined {
        version: facts.setting("server_version").map(str::to_owned),
        role: Some(role.to_owned()),
        ..server
    };
    let mut findings = facts.judge(wire.config(), ttl);
    // That it fails is what taking a lock tells.
    if let Ok(pooled) = wire.set_up().await {
        findings.extend(judge_link(wire.config(), pooled));
    }
    let mut found = Examination::default();
    found.add_server(server, findings);
    Ok(found)
}

fn judge_link(config: &Config, pooled: bool) -> Vec<Finding> {
    let mut found = vec![Finding::fine(
        "schema",
        format!(
            "The tables in the schema {} are of the version that this leasehold writes.",
            config.schema
        ),
    )];
    if pooled {
        found.push(
            Finding::note(
                "pooler",
                format!(
                    "A transaction pooler stands between: nobody can be woken, so waiters ask \
                     every {POLL:?} and a hand-over takes that long. Locks are as safe as without \
                     it."
                ),
            )
            .change("name the server itself in the URL, or a pool with pool_mode = session"),
        );
    }
    found
}

impl Facts {
    fn judge(&self, config: &Config, ttl: Duration) -> Vec<Finding> {
        let mut found = vec![self.role()];
        found.extend(self.durability());
        if !self.standby {
            found.push(self.replication(config));
        }
        found.extend(self.connections(ttl));
        found.extend(self.upkeep());
        found
    }

    fn role(&self) -> Finding {
        if self.standby {
            let says = "The server is a standby, where no lock can be taken.";
            return Finding::danger("role", says)
                .change("name the primary, or all servers: postgres://h1,h2/db");
        }
        Finding::fine("role", "The server is a primary, which may grant locks.")
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Whether a crash forgets commits.
    fn durability(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (name, effect) in [
            ("fsync", "forgets grants that were answered, and may damage the tables beyond repair"),
            (
                "full_page_writes",
                "in the middle of a write damages the tables, those of the locks too",
            ),
        ] {
            match self.setting(name) {
                Some("on") => {}
                Some(_) => found.push(
                    Finding::danger(
                        "durability",
                        format!("{name} is off: a crash of the server's machine {effect}."),
                    )
                    .change(set(&format!("{name} = on"))),
                ),
                None => found.push(Finding::unknown(
                    "durability",
                    format!("The server does not say whether {name} is on."),
                )),
            }
        }
        if found.is_empty() {
            found.push(Finding::fine(
                "durability",
                "Every grant is on the disk before it is answered (synchronous_commit is raised \
                 to on for locks where it is less): a restart forgets nobody who holds.",
            ));
        }
        found
    }

    /// What the promotion of a standby loses.
    fn replication(&self, config: &Config) -> Finding {
        let wanted = self.setting("synchronous_standby_names").unwrap_or_default();
        let shown: Vec<String> = self.standbys.iter().map(Standby::show).collect();
        let shown = shown.join(", ");
        let name = self.standbys.iter().find_map(|standby| standby.name.as_deref());
        let name = name.unwrap_or("standby1");
        let synchronous =
            |standby: &&Standby| matches!(standby.sync.as_deref(), Some("sync" | "quorum"));
        if self.standbys.is_empty() && wanted.is_empty() {
            return Finding::note(
                "replication",
                "The server has no standby: no promotion can forget a grant, and while it is down \
                 no lock can be taken. (A standby that reads archived files only is not seen \
                 here; its promotion forgets the last grants.)",
            );
        }
        if wanted.is_empty() {
            return Finding::warning(
                "replication",
                format!(
                    "The server answers before its standbys have it ({shown}): promoting one \
                     forgets the last grants, and two may hold for up to a TTL, told apart only \
                     by their fences."
                ),
            )
            .change(set(&format!("synchronous_standby_names = 'ANY 1 (\"{name}\")'")));
        }
        if self.standbys.iter().any(|standby| standby.sync.is_none()) {
            let role = config.user.as_deref().unwrap_or("the_role");
            return Finding::unknown(
                "replication",
                "Whether a standby that the server waits for (synchronous_standby_names is set) \
                 is connected could not be found out: this role may not read it. Without one \
                 every request for a lock hangs.",
            )
            .change(format!("GRANT pg_read_all_stats TO {role};"));
        }
        if !self.standbys.iter().any(|standby| synchronous(&standby)) {
            return Finding::danger(
                "replication",
                format!(
                    "The server waits for standbys ({}), and none of them is connected: every \
                     request for a lock hangs.",
                    wanted.escape_debug()
                ),
            )
            .change("start the standby; its application_name has to be one of those names");
        }
        Finding::fine(
            "replication",
            format!(
                "Every grant is on the disks of as many standbys as synchronous_standby_names asks \
                 for before it is answered ({shown}): promoting the one that has received most \
                 forgets nobody who holds."
            ),
        )
    }

    fn connections(&self, ttl: Duration) -> Vec<Finding> {
        let mut found = Vec::new();
        let number = |name: &str| self.setting(name).and_then(|value| value.parse::<i64>().ok());
        let kept = ["superuser_reserved_connections", "reserved_connections"];
        let kept: i64 = kept.into_iter().filter_map(number).sum();
        let all = number("max_connections");
        let limit = all.map(|all| (all - kept).max(1));
        if let Some(limit) = limit.filter(|limit| self.connections * 100 / limit >= NEAR) {
            found.push(
                Finding::warning(
                    "clients",
                    format!(
                        "The server has {} connections of the {limit} that it has for ordinary roles: a process \
                         that comes new or reconnects may be refused, and then loses what it holds.",
                        self.connections
                    ),
                )
                .change(format!("{}   -- and restart", alter(&format!("max_connections = {}", (limit + kept) * 2)))),
            );
        }
        let idle = self.setting("idle_session_timeout").and_then(|value| value.parse().ok());
        if let Some(idle) = idle.filter(|idle| *idle > 0).map(Duration::from_millis) {
            let says = format!(
                "The server ends connections that are idle for {idle:?} (idle_session_timeout); \
                 they are made again when needed, which delays waiters and renewals."
            );
            let finding = if idle <= ttl / 3 {
                Finding::warning("idle", format!("{says} Renewals are rarer than that."))
            } else {
                Finding::note("idle", says)
            };
            let role = "ALTER ROLE the_role SET idle_session_timeout = 0;";
            found.push(finding.change(role));
        }
        found
    }

    /// Whether the server will go on writing.
    fn upkeep(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        if self.setting("autovacuum") == Some("off") {
            found.push(
                Finding::warning(
                    "autovacuum",
                    "autovacuum is off: the tables of the locks grow with every lock and get \
                     slow, and without VACUUM the server stops to write one day.",
                )
                .change(set("autovacuum = on")),
            );
        }
        if self.unfrozen > UNFROZEN {
            found.push(
                Finding::warning(
                    "wraparound",
                    format!(
                        "The oldest rows were frozen {} transactions ago; at about 2,146,000,000 \
                         the server stops to write, and no lock can be taken or renewed.",
                        self.unfrozen
                    ),
                )
                .change("vacuumdb --all --freeze"),
            );
        }
        found
    }
}

impl Standby {
    fn show(&self) -> String {
        let name = self.name.as_deref().unwrap_or("one of unknown name").escape_debug();
        let state = self.state.as_deref().unwrap_or("state unknown");
        let sync = self.sync.as_deref().unwrap_or("synchrony unknown");
        match self.lag_ms {
            Some(lag) => format!("{name}: {state}, {sync}, {lag} ms behind"),
            None => format!("{name}: {state}, {sync}"),
        }
    }
}

fn alter(setting: &str) -> String {
    format!("ALTER SYSTEM SET {setting};")
}

fn set(setting: &str) -> String {
    format!("{}\nSELECT pg_reload_conf();", alter(setting))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examination::Severity;

    const TTL: Duration = Duration::from_secs(30);

    fn facts(settings: &[(&str, &str)]) -> Facts {
        let good = [("fsync", "on"), ("full_page_writes", "on"), ("max_connections", "100")];
        let all = good.iter().chain(settings);
        let settings = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Facts { settings: settings.collect(), connections: 3, ..Facts::default() }
    }

    fn severity(facts: &Facts, topic: &str) -> Option<Severity> {
        let found = facts.judge(&Config::parse("postgres://app@h/db").unwrap(), TTL);
        found.iter().filter(|finding| finding.topic == topic).map(|found| found.severity).max()
    }

    fn standby(sync: Option<&str>) -> Standby {
        Standby { name: Some("s".into()), sync: sync.map(str::to_owned), ..Standby::default() }
    }

    #[test]
    fn what_servers_rarely_show_is_judged_too() {
        assert_eq!(severity(&facts(&[]), "durability"), Some(Severity::Fine));
        assert_eq!(severity(&facts(&[("fsync", "off")]), "durability"), Some(Severity::Danger));
        assert_eq!(severity(&Facts::default(), "durability"), Some(Severity::Unknown));
        let full = Facts { connections: 80, ..facts(&[]) };
        assert_eq!(severity(&full, "clients"), Some(Severity::Warning));
        assert_eq!(severity(&Facts { connections: 79, ..full }, "clients"), None);
        let old = Facts { unfrozen: 1_900_000_000, ..facts(&[]) };
        assert_eq!(severity(&old, "wraparound"), Some(Severity::Warning));
        for (millis, expected) in
            [("0", None), ("10000", Some(Severity::Warning)), ("60000", Some(Severity::Note))]
        {
            assert_eq!(severity(&facts(&[("idle_session_timeout", millis)]), "idle"), expected);
        }
    }

    #[test]
    fn a_promotion_is_safe_only_with_a_synchronous_standby_that_is_there() {
        let replication = |wanted: &str, standbys: Vec<Standby>| {
            let facts = facts(&[("synchronous_standby_names", wanted)]);
            severity(&Facts { standbys, ..facts }, "replication").unwrap()
        };
        assert_eq!(replication("", vec![]), Severity::Note);
        assert_eq!(replication("", vec![standby(Some("async"))]), Severity::Warning);
        assert_eq!(replication("", vec![standby(None)]), Severity::Warning);
        assert_eq!(replication("s", vec![standby(None)]), Severity::Unknown);
        assert_eq!(replication("s", vec![]), Severity::Danger);
        assert_eq!(replication("s", vec![standby(Some("async"))]), Severity::Danger);
        assert_eq!(replication("s", vec![standby(Some("sync"))]), Severity::Fine);
        assert_eq!(replication("ANY 1 (s)", vec![standby(Some("quorum"))]), Severity::Fine);
    }
}
