//! What one server says of itself, and what that means for locks: a function of one connection.

use std::collections::HashMap;
use std::time::Duration;

use super::examine_cluster;
use super::failure::Failure;
use super::servers::Servers;
use super::wire::Wire;
use crate::error::ErrorKind;
use crate::examination::{Examination, Examined, Finding};

/// What a user has to be allowed for the whole examination.
const ALLOW: &str = "ACL SETUSER <user> +info +config|get";
/// The part of a limit that is too near to it.
const NEAR: u64 = 80;

/// Examines all servers that grant locks, and a cluster as a whole.
pub(super) async fn servers(servers: &Servers) -> Result<Examination, Failure> {
    let mut found = Examination::default();
    let all = servers.all().await?;
    let mut cluster = None;
    for one in &all {
        let config = one.config();
        let examined = async {
            let live = one.request(async |live| Ok(live)).await?;
            if matches!(servers, Servers::Many(_)) && cluster.is_none() {
                cluster = Some(examine_cluster::read(&live.wire, config.timeout).await?);
            }
            server(&live.wire, &config.to_string(), config.timeout).await
        };
        match examined.await {
            Ok((server, findings)) => found.add_server(server, findings),
            // In a cluster the others go on.
            Err(failure) if all.len() > 1 => {
                let says = format!(
                    "The node cannot be asked: {failure}. The keys in its slots cannot be locked."
                );
                found.add(Finding::danger("node", says).at(config.to_string()));
            }
            Err(failure) => return Err(failure),
        }
    }
    if let Servers::Many(_) = servers {
        cluster.unwrap_or_default().judge().into_iter().for_each(|finding| found.add(finding));
    }
    Ok(found)
}

/// Examines the server behind a connection, whose requests may take `patience` each.
pub(in crate::stores) async fn server(
    wire: &Wire,
    name: &str,
    patience: Duration,
) -> Result<(Examined, Vec<Finding>), Failure> {
    let measured = Examined::new(name).measure(|| within(patience, wire.time())).await?;
    let facts = Facts::read(wire, patience).await?;
    let mut findings = facts.judge();
    if measured.clock.is_none() {
        let says = "The server does not tell its time (TIME is refused), by which leases end.";
        findings.push(Finding::unknown("clock", says).change("ACL SETUSER <user> +time"));
    }
    let server = Examined {
        version: facts.fact("redis_version").map(str::to_owned),
        role: facts
            .fact("role")
            .map(|role| if role == "master" { "primary" } else { "replica" }.to_owned()),
        ..measured
    };
    Ok((server, findings))
}

pub(super) async fn within<T>(
    patience: Duration,
    request: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(patience, request).await.unwrap_or_else(|_| {
        Err(Failure::new(ErrorKind::Unavailable, format!("no answer within {patience:?}")))
    })
}

/// The directives that `INFO` does not tell.
const DIRECTIVES: [&str; 8] = [
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "save",
    "maxmemory",
    "maxmemory-policy",
    "maxclients",
    "min-replicas-to-write",
];

/// What a server said. What it refused to say is not there.
#[derive(Debug, Default)]
struct Facts {
    info: Option<HashMap<String, String>>,
    directives: HashMap<&'static str, String>,
}

impl Facts {
    async fn read(wire: &Wire, patience: Duration) -> Result<Self, Failure> {
        let info = within(patience, wire.info()).await?.map(|text| parse(&text));
        let mut directives = HashMap::new();
        for name in DIRECTIVES {
            // Who may not read one may not read the others.
            let Some(value) = within(patience, wire.directive(name)).await? else { break };
            directives.insert(name, value);
        }
        Ok(Self { info, directives })
    }

    fn fact(&self, name: &str) -> Option<&str> {
        self.info.as_ref()?.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.fact(name)?.parse().ok()
    }

    fn directive(&self, name: &str) -> Option<&str> {
        self.directives.get(name).map(String::as_str)
    }

    fn judge(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        if self.info.is_none() {
            found.push(
                Finding::unknown(
                    "info",
                    "The server does not say how it runs (INFO is refused): whether it is the \
                     primary, has replicas, or runs out of memory could not be found out.",
                )
                .change(ALLOW),
            );
        }
        found.extend(self.role());
        found.extend(self.durability());
        found.extend(self.eviction());
        found.extend(self.replication());
        found.extend(self.clients());
        found
    }

    fn role(&self) -> Option<Finding> {
        if self.fact("role")? == "master" {
            return Some(Finding::fine("role", "The server is a primary, which may grant locks."));
        }
        let primary = match (self.fact("master_host"), self.fact("master_port")) {
            (Some(host), Some(port)) => format!("--store redis://{host}:{port}   # its primary"),
            _ => "--store redis://PRIMARY".to_owned(),
        };
        let says = "The server is a replica: it grants no locks, and a replica that may be \
                    written to grants what its primary does not know of.";
        Some(Finding::danger("role", says).change(primary))
    }

    /// Whether a restart forgets grants.
    fn durability(&self) -> Vec<Finding> {
        let appends = match (self.fact("aof_enabled"), self.directive("appendonly")) {
            (Some(enabled), _) => enabled == "1",
            (None, Some(value)) => value == "yes",
            (None, None) => {
                let says = "Whether a restart of the server forgets who holds could not be found \
                            out: it refuses INFO and CONFIG GET.";
                return vec![Finding::unknown("durability", says).change(ALLOW)];
            }
        };
        let mut found = vec![if appends { self.appending() } else { self.not_appending() }];
        if appends && self.fact("aof_last_write_status").is_some_and(|status| status != "ok") {
            found.push(Finding::danger(
                "disk",
                "The server could not write to its append-only file: it refuses to grant, or \
                 forgets at a restart what it granted. See its log, and make room on its disk.",
            ));
        }
        if self.fact("rdb_last_bgsave_status").is_some_and(|status| status != "ok") {
            found.push(Finding::warning(
                "disk",
                "The server's last snapshot failed. Unless told otherwise it then refuses to \
                 write, so no lock can be taken. See its log, and make room on its disk.",
            ));
        }
        found
    }

    fn appending(&self) -> Finding {
        const TWO: &str = "two may hold for up to a TTL, told apart only by their fences";
        let always = "CONFIG SET appendfsync always\nCONFIG REWRITE";
        match self.directive("appendfsync") {
            Some("always") if self.directive("no-appendfsync-on-rewrite") == Some("yes") => {
                Finding::warning(
                    "durability",
                    format!(
                        "While the append-only file is rewritten, grants are answered before they \
                         are on the disk: a crash of the machine then forgets them, and {TWO}."
                    ),
                )
                .change("CONFIG SET no-appendfsync-on-rewrite no\nCONFIG REWRITE")
            }
            Some("always") => Finding::fine(
                "durability",
                "Every grant is on the disk before it is answered: a restart forgets nobody who \
                 holds.",
            ),
            Some("everysec") => Finding::warning(
                "durability",
                format!(
                    "A crash of the machine forgets the grants of the last second or two \
                     (appendfsync everysec): {TWO}."
                ),
            )
            .change(always),
            Some(other) => Finding::warning(
                "durability",
                format!(
                    "A crash of the machine forgets the grants of up to half a minute \
                     (appendfsync {}): {TWO}.",
                    other.escape_debug()
                ),
            )
            .change(always),
            None => Finding::unknown(
                "durability",
                "The server keeps an append-only file, but how soon a grant is on the disk could \
                 not be found out: CONFIG GET is refused, as by many providers. Unless it is \
                 `appendfsync always`, a crash of the machine may forget the last grants.",
            )
            .change(ALLOW),
        }
    }

    fn not_appending(&self) -> Finding {
        let kept = match self.directive("save") {
            Some("") => "all grants (it writes nothing to its disk)",
            Some(_) => "the grants since its last snapshot",
            None => "the grants since its last snapshot, or all of them if it makes none",
        };
        Finding::warning(
            "durability",
            format!(
                "A crash or a restart forgets {kept}: two may then hold for up to a TTL, told \
                 apart only by their fences, which go on growing."
            ),
        )
        .change("CONFIG SET appendonly yes\nCONFIG SET appendfsync always\nCONFIG REWRITE")
    }

    /// Whether locks may vanish when the memory is full, and whether it is.
    fn eviction(&self) -> Vec<Finding> {
        let number = |name: &str| self.directive(name).and_then(|value| value.parse().ok());
        let limit = self.number("maxmemory").or_else(|| number("maxmemory"));
        let policy = self.fact("maxmemory_policy").or_else(|| self.directive("maxmemory-policy"));
        let Some(policy) = policy else {
            let says = "Whether the server deletes locks when its memory is full could not be \
                        found out: it refuses INFO and CONFIG GET.";
            return vec![Finding::unknown("eviction", says).change(ALLOW)];
        };
        let shown = policy.escape_debug();
        let noeviction = "CONFIG SET maxmemory-policy noeviction\nCONFIG REWRITE";
        let limited = limit.is_none_or(|limit| limit > 0);
        let mut found = vec![match (policy, limited) {
            ("noeviction", _) => Finding::fine(
                "eviction",
                "The server does not delete locks when its memory is full (noeviction).",
            ),
            (_, true) => {
                let evicted = self.number("evicted_keys").filter(|keys| *keys > 0);
                let already = evicted.map_or(String::new(), |keys| {
                    format!(" It has deleted {keys} keys so far for that reason.")
                });
                Finding::danger(
                    "eviction",
                    format!(
                        "When its memory is full, the server deletes keys, locks among them \
                         (maxmemory-policy {shown}): somebody else then holds at once.{already}"
                    ),
                )
                .change(noeviction)
            }
            (_, false) => Finding::warning(
                "eviction",
                format!(
                    "The server would delete locks when its memory is full (maxmemory-policy \
                     {shown}). It has no limit now; with the first `maxmemory` it will."
                ),
            )
            .change(noeviction),
        }];
        let used = self.number("used_memory");
        if let (Some(limit), Some(used)) = (limit.filter(|limit| *limit > 0), used)
            && policy == "noeviction"
            && used.saturating_mul(100) / limit >= NEAR
        {
            let says = format!(
                "The server uses {used} of the {limit} bytes that it may; when they are full, it \
                 grants no lock."
            );
            found.push(
                Finding::warning("memory", says).change("CONFIG SET maxmemory 0   # or more"),
            );
        }
        found
    }

    /// What a failover loses.
    fn replication(&self) -> Option<Finding> {
        if self.fact("role")? != "master" {
            return None;
        }
        let replicas = self.number("connected_slaves")?;
        if replicas == 0 {
            let says = "The server has no replica: a failover cannot forget a grant, and while it \
                        is down no lock can be taken.";
            return Some(Finding::note("replication", says));
        }
        let behind: Vec<String> = (0..replicas)
            .filter_map(|number| self.fact(&format!("slave{number}")))
            .filter_map(lag)
            .collect();
        let enough = self.directive("min-replicas-to-write");
        let narrowed = enough.is_some_and(|enough| enough != "0");
        let cut_off = if narrowed {
            "A primary that is cut off from its replicas stops granting soon, which narrows it."
        } else {
            "A primary that is cut off from them goes on granting meanwhile."
        };
        let finding = Finding::warning(
            "replication",
            format!(
                "The server answers before its {replicas} {} it ({}): a failover forgets the last \
                 grants, and two may hold for up to a TTL, told apart only by their fences. \
                 {cut_off} No setting makes it safe; a store that grants by majority does.",
                if replicas == 1 { "replica has" } else { "replicas have" },
                if behind.is_empty() { "lag unknown".to_owned() } else { behind.join(", ") },
            ),
        );
        let narrow = "CONFIG SET min-replicas-to-write 1\nCONFIG SET min-replicas-max-lag 10\nCONFIG REWRITE";
        Some(if narrowed { finding } else { finding.change(narrow) })
    }

    fn clients(&self) -> Option<Finding> {
        let now = self.number("connected_clients")?;
        let limit = self.number("maxclients");
        let limit = limit.or_else(|| self.directive("maxclients")?.parse().ok())?;
        if limit > 0 && now.saturating_mul(100) / limit < NEAR {
            let says = format!("Of the {limit} clients that the server allows, {now} are there.");
            return Some(Finding::fine("clients", says));
        }
        let says = format!(
            "Of the {limit} clients that the server allows, {now} are there: a process that comes new \
             or reconnects may be refused, and then loses what it holds."
        );
        let more = limit.saturating_mul(2).max(10_000);
        Some(
            Finding::warning("clients", says)
                .change(format!("CONFIG SET maxclients {more}\nCONFIG REWRITE")),
        )
    }
}

/// The lines of `INFO`: `name:value`.
fn parse(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `ip=10.0.0.2,port=6379,state=online,offset=14,lag=1` as `10.0.0.2:6379 heard from 1 s ago`.
fn lag(replica: &str) -> Option<String> {
    let fields: HashMap<&str, &str> =
        replica.split(',').filter_map(|field| field.split_once('=')).collect();
    let (host, port) = (fields.get("ip")?, fields.get("port")?);
    Some(match (fields.get("state"), fields.get("lag")) {
        (Some(&"online"), Some(lag)) => format!("{host}:{port} heard from {lag} s ago"),
        (state, _) => format!("{host}:{port} {}", state.unwrap_or(&"in an unknown state")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examination::Severity;

    fn facts(info: &str, directives: &[(&'static str, &str)]) -> Facts {
        let directives = directives.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Facts { info: Some(parse(info)), directives: directives.collect() }
    }

    fn severity(facts: &Facts, topic: &str) -> Option<Severity> {
        let found = facts.judge();
        found.iter().filter(|finding| finding.topic == topic).map(|found| found.severity).max()
    }

    #[test]
    fn what_servers_rarely_show_is_judged_too() {
        for (info, directives, topic, expected) in [
            ("aof_enabled:1\r\n", &[("appendfsync", "no")][..], "durability", Severity::Warning),
            ("aof_enabled:1", &[("appendfsync", "everysec")], "durability", Severity::Warning),
            (
                "aof_enabled:1",
                &[("appendfsync", "always"), ("no-appendfsync-on-rewrite", "yes")],
                "durability",
                Severity::Warning,
            ),
            (
                "aof_enabled:1",
                &[("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no")],
                "durability",
                Severity::Fine,
            ),
            ("aof_enabled:1\naof_last_write_status:err", &[], "disk", Severity::Danger),
            ("aof_enabled:0\nrdb_last_bgsave_status:err", &[], "disk", Severity::Warning),
            (
                "maxmemory:100\nmaxmemory_policy:noeviction\nused_memory:80",
                &[],
                "memory",
                Severity::Warning,
            ),
            ("maxmemory:0\nmaxmemory_policy:allkeys-lru", &[], "eviction", Severity::Warning),
            // The limit is not known: it counts as one.
            ("maxmemory_policy:volatile-ttl", &[], "eviction", Severity::Danger),
            ("connected_clients:8\nmaxclients:10", &[], "clients", Severity::Warning),
            ("connected_clients:7", &[("maxclients", "10")], "clients", Severity::Fine),
            ("role:master\nconnected_slaves:0", &[], "replication", Severity::Note),
        ] {
            assert_eq!(severity(&facts(info, directives), topic), Some(expected), "{info}");
        }
        let room = facts("maxmemory:100\nmaxmemory_policy:noeviction\nused_memory:79", &[]);
        assert_eq!(severity(&room, "memory"), None);
    }

    #[test]
    fn nothing_is_fine_that_was_not_read() {
        let found = Facts::default().judge();
        let topics: Vec<_> = found.iter().map(|finding| finding.topic).collect();
        assert_eq!(topics, ["info", "durability", "eviction"]);
        assert!(found.iter().all(|finding| finding.severity == Severity::Unknown), "{found:?}");
    }

    #[test]
    fn a_replica_is_shown_with_its_lag() {
        let online = "ip=10.0.0.2,port=6379,state=online,offset=14,lag=1";
        assert_eq!(lag(online).unwrap(), "10.0.0.2:6379 heard from 1 s ago");
        assert_eq!(lag("ip=a,port=1,state=wait_bgsave").unwrap(), "a:1 wait_bgsave");
        assert_eq!(lag("nonsense"), None);
    }
}
