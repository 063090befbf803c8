//! What the nodes say of their cluster, and what that means for locks.

use std::time::Duration;

use super::examine::within;
use super::failure::Failure;
use super::wire::Wire;
use crate::examination::Finding;

/// What a user has to be allowed for this part.
const ALLOW: &str = "ACL SETUSER <user> +cluster|info +cluster|nodes +config|get";

/// What one node said of the cluster. What it refused to say is not there.
#[derive(Debug, Default)]
pub(super) struct Facts {
    info: Option<String>,
    /// A line each: who they are, what they are, and which slots they serve.
    nodes: Option<String>,
    full_coverage: Option<String>,
    /// Of the server that was asked.
    version: Option<String>,
}

pub(super) async fn read(wire: &Wire, patience: Duration) -> Result<Facts, Failure> {
    Ok(Facts {
        info: within(patience, wire.cluster_says("INFO")).await?,
        nodes: within(patience, wire.cluster_says("NODES")).await?,
        full_coverage: within(patience, wire.directive("cluster-require-full-coverage")).await?,
        version: within(patience, wire.info()).await?.as_deref().and_then(version),
    })
}

impl Facts {
    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut found = vec![self.state()];
        found.extend(self.members());
        found.extend(self.coverage());
        found.push(self.wake_ups());
        found
    }

    fn fact(&self, name: &str) -> Option<&str> {
        let mut lines = self.info.as_ref()?.lines();
        lines.find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.fact(name)?.parse().ok()
    }

    /// Whether it works, and for all keys.
    fn state(&self) -> Finding {
        let Some(state) = self.fact("cluster_state") else {
            let says =
                "Whether the cluster works could not be found out (CLUSTER INFO is refused).";
            return Finding::unknown("cluster", says).change(ALLOW);
        };
        let served = self.number("cluster_slots_ok").unwrap_or_default();
        let check = "redis-cli --cluster check HOST:PORT\nredis-cli --cluster fix HOST:PORT";
        if state != "ok" {
            let says = format!(
                "The cluster is down (cluster_state {}): {served} of the 16384 slots are served, and \
                 no lock can be taken.",
                state.escape_debug()
            );
            return Finding::danger("cluster", says).change(check);
        }
        if served < 16384 {
            let says = format!(
                "{served} of the 16384 slots are served: keys in the others cannot be locked."
            );
            return Finding::danger("cluster", says).change(check);
        }
        Finding::fine("cluster", "The cluster works, and every slot is served.")
    }

    /// Whether a failover is possible, and for whom.
    fn members(&self) -> Vec<Finding> {
        let Some(nodes) = &self.nodes else {
            let says = "Which nodes the cluster has, and whether each has a replica, could not be \
                        found out (CLUSTER NODES is refused).";
            return vec![Finding::unknown("members", says).change(ALLOW)];
        };
        let nodes: Vec<Member> = nodes.lines().filter_map(Member::read).collect();
        let mut found = Vec::new();
        let primaries: Vec<&Member> = nodes.iter().filter(|node| node.serves).collect();
        if primaries.len() < 3 {
            let says = format!(
                "The cluster has {} primaries; a failover takes the votes of most of them, and with \
                 fewer than three there is none when one is away.",
                primaries.len()
            );
            found.push(Finding::warning("members", says).change("redis-cli --cluster add-node …"));
        } else {
            let says = format!("The cluster has {} primaries.", primaries.len());
            found.push(Finding::fine("members", says));
        }
        for failing in nodes.iter().filter(|node| node.failing) {
            let says = if failing.serves {
                "The others cannot reach this node: until its slots are taken over, their keys cannot \
                 be locked."
            } else {
                "The others cannot reach this node: it cannot take over from its primary."
            };
            found.push(Finding::warning("node", says).at(failing.address.to_owned()));
        }
        for alone in primaries.iter().filter(|primary| {
            !nodes.iter().any(|node| node.replicates == Some(primary.id) && !node.failing)
        }) {
            let says = "No replica can take over from this primary: when it is away, the keys in its \
                        slots cannot be locked.";
            let change = "redis-cli --cluster add-node … --cluster-slave";
            found.push(
                Finding::warning("replicas", says).at(alone.address.to_owned()).change(change),
            );
        }
        found
    }

    /// Whether one node's end stops all locks.
    fn coverage(&self) -> Option<Finding> {
        let Some(full) = &self.full_coverage else {
            let says = "Whether all locks stop when some slots are not served could not be found out \
                        (CONFIG GET is refused).";
            return Some(Finding::unknown("coverage", says).change(ALLOW));
        };
        (full != "no").then(|| {
            let says = "When one slot is not served, the whole cluster stops \
                        (cluster-require-full-coverage): no key can be locked then, and no hold renewed.";
            let change = "CONFIG SET cluster-require-full-coverage no\nCONFIG REWRITE   # on every node";
            Finding::note("coverage", says).change(change)
        })
    }

    /// Whether the next in line is told.
    fn wake_ups(&self) -> Finding {
        let major =
            self.version.as_ref().and_then(|version| version.split('.').next()?.parse().ok());
        match major {
            Some(7..=u32::MAX) => {
                let says = "Whoever comes next in line is told, in the slot of the key (sharded \
                            messages).";
                Finding::fine("wake-ups", says)
            }
            Some(_) => {
                let says = "The nodes are older than 7.0 and have no sharded messages: the first in \
                            line asks every 50 ms, and who stands behind it now and then.";
                Finding::note("wake-ups", says)
            }
            None => {
                let says = "Whether the nodes can tell the next in line could not be found out (INFO \
                            is refused); if not, it asks every 50 ms.";
                Finding::unknown("wake-ups", says).change("ACL SETUSER <user> +info")
            }
        }
    }
}

fn version(info: &str) -> Option<String> {
    info.lines().find_map(|line| line.trim_end().strip_prefix("redis_version:").map(str::to_owned))
}

/// `ID ADDRESS FLAGS PRIMARY PING PONG EPOCH LINK SLOTS…`
#[derive(Debug)]
struct Member<'a> {
    id: &'a str,
    address: &'a str,
    failing: bool,
    replicates: Option<&'a str>,
    serves: bool,
}

impl<'a> Member<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [id, address, flags, primary, _, _, _, _, slots @ ..] = fields.as_slice() else {
            return None;
        };
        let is = |flag: &str| flags.split(',').any(|has| has == flag);
        Some(Self {
            id,
            address: address.split('@').next().unwrap_or(address),
            failing: is("fail") || is("fail?"),
            replicates: (*primary != "-").then_some(*primary),
            serves: is("master") && !slots.is_empty(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examination::Severity;

    const WELL: &str = "\
        a 10.0.0.1:1@2 myself,master - 0 0 1 connected 0-5000\n\
        b 10.0.0.2:1@2 master - 0 0 2 connected 5001-10000\n\
        c 10.0.0.3:1@2,name master - 0 0 3 connected 10001-16383\n\
        d 10.0.0.4:1@2 slave a 0 0 1 connected\n\
        e 10.0.0.5:1@2 slave b 0 0 2 connected\n\
        f 10.0.0.6:1@2 slave c 0 0 3 connected\n";

    fn severities(nodes: &str, info: &str) -> Vec<(&'static str, Severity, Option<String>)> {
        let facts = Facts {
            info: Some(info.to_owned()),
            nodes: Some(nodes.to_owned()),
            full_coverage: Some("no".to_owned()),
            version: Some("7.0.15".to_owned()),
        };
        facts.judge().into_iter().map(|found| (found.topic, found.severity, found.server)).collect()
    }

    #[test]
    fn what_is_wrong_with_a_cluster_is_said_and_where() {
        let ok = "cluster_state:ok\r\ncluster_slots_ok:16384\r\n";
        let fine = ["cluster", "members", "wake-ups"].map(|topic| (topic, Severity::Fine, None));
        assert_eq!(severities(WELL, ok), fine);
        let gap = "cluster_state:ok\r\ncluster_slots_ok:16383";
        assert_eq!(severities(WELL, gap)[0].1, Severity::Danger);
        assert_eq!(severities(WELL, "cluster_state:fail")[0].1, Severity::Danger);
        let failing = WELL
            .replace("slave b", "slave,fail b")
            .replace("b 10.0.0.2:1@2 master", "b 10.0.0.2:1@2 master,fail?");
        let said = severities(&failing, ok);
        let at = |port: &str| Some(port.to_owned());
        assert!(said.contains(&("node", Severity::Warning, at("10.0.0.2:1"))), "{said:?}");
        assert!(said.contains(&("node", Severity::Warning, at("10.0.0.5:1"))), "{said:?}");
        assert!(said.contains(&("replicas", Severity::Warning, at("10.0.0.2:1"))), "{said:?}");
        let two = WELL.replace(" 10001-16383", "");
        assert!(severities(&two, ok).contains(&("members", Severity::Warning, None)));
    }

    #[test]
    fn nothing_is_fine_that_was_not_read() {
        let found = Facts::default().judge();
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|finding| finding.severity == Severity::Unknown), "{found:?}");
    }
}
