//! Six Redis servers that are a cluster: three primaries, and a replica of each.

use tempfile::TempDir;

use crate::redis::{Redis, RedisOptions};
use crate::sentinel::{replicating, until};

/// How many serve slots at first. As many replicate them.
const PRIMARIES: usize = 3;

/// How many slots there are in any cluster.
const SLOTS: usize = 16384;

/// A Redis Cluster. It ends with this value, and with the test process.
///
/// At first the nodes 0, 1 and 2 serve a third of the slots each, and 3, 4 and 5 replicate them in
/// that order.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
    options: RedisOptions,
    _certificates: TempDir,
}

impl RedisCluster {
    /// Starts it, and waits until each node serves or replicates what it should. About three seconds,
    /// of which a new node takes two to trust in itself.
    ///
    /// `cluster-node-timeout` is two seconds unless `options` say otherwise.
    #[must_use]
    pub fn start(options: &RedisOptions) -> Self {
        let certificates =
            TempDir::with_prefix("leasehold-cluster-").expect("cannot make a directory");
        let node = replicating(options.clone().cluster(certificates.path()));
        // Each waits for its own process only.
        let starting: Vec<_> = (0..2 * PRIMARIES)
            .map(|_| {
                let node = node.clone();
                std::thread::spawn(move || node.start())
            })
            .collect();
        let nodes: Vec<Redis> =
            starting.into_iter().map(|starting| starting.join().expect("a node starts")).collect();
        let cluster = Self { nodes, options: options.clone(), _certificates: certificates };
        cluster.introduce();
        for (number, node) in cluster.nodes.iter().enumerate().skip(PRIMARIES) {
            let primary = cluster.id(number - PRIMARIES);
            assert_eq!(node.cli(&["CLUSTER", "REPLICATE", &primary]), "OK");
        }
        cluster.until_well();
        cluster
    }

    /// Gives the slots out and makes everybody know everybody.
    fn introduce(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number < PRIMARIES {
                let first = (number * SLOTS / PRIMARIES).to_string();
                let last = ((number + 1) * SLOTS / PRIMARIES - 1).to_string();
                assert_eq!(node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]), "OK");
            }
            for other in &self.nodes[..number] {
                let (port, bus) = (other.node_port().to_string(), other.cluster_port());
                assert_eq!(node.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "OK");
            }
        }
        self.until("all nodes know each other", || {
            self.nodes.iter().all(|node| {
                let known = node.cli(&["CLUSTER", "NODES"]);
                known.lines().count() == self.nodes.len()
                    && known
                        .lines()
                        .all(|line| line.contains(" connected") && !line.contains("handshake"))
            })
        });
    }

    /// `redis+cluster://[:PASSWORD@]127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT`, of two that are
    /// primaries at first and one that is a replica.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            [0, 1, 5].map(|node| format!("127.0.0.1:{}", self.nodes[node].port())).to_vec();
        format!("redis+cluster://{}{}", self.options.credentials(), hosts.join(","))
    }

    /// `rediss+cluster://…`, for [`Certificates::ca`](crate::Certificates::ca) of any node.
    #[must_use]
    pub fn tls_url(&self) -> String {
        let hosts: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.tls_port())).collect();
        format!("rediss+cluster://{}{}", self.options.credentials(), hosts.join(","))
    }

    /// [`RedisCluster::url`] as an ACL user.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        let hosts: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{user}:{password}@{}", hosts.join(","))
    }

    /// All nodes. Which of them are primaries changes.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The index of the node that serves the slot of a key, as the node `seen_by` knows it.
    #[must_use]
    pub fn serving(&self, key: &str, seen_by: usize) -> usize {
        self.server_of(self.slot(key), seen_by).expect("somebody serves the slot")
    }

    /// The slot of a key.
    #[must_use]
    pub fn slot(&self, key: &str) -> u16 {
        let asked = self.nodes.iter().find(|node| node.is_answering()).expect("a node runs");
        asked.cli(&["CLUSTER", "KEYSLOT", key]).parse().expect("a slot")
    }

    fn server_of(&self, slot: u16, seen_by: usize) -> Option<usize> {
        let known = self.nodes[seen_by].cli(&["CLUSTER", "NODES"]);
        known.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let serves = fields[8..].iter().any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let bounds = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
                bounds.is_some_and(|(first, last)| (first..=last).contains(&slot))
            });
            let port = fields[1].split(['@', ':']).nth(1)?.parse::<u16>().ok()?;
            serves.then(|| self.nodes.iter().position(|node| node.node_port() == port))?
        })
    }

    /// Waits until all nodes that answer agree that everything is served and nobody is missed.
    pub fn until_well(&self) {
        self.until("the cluster is well", || {
            self.answering().all(|node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
            }) && self.answering().all(|node| {
                let info = node.cli(&["INFO", "replication"]);
                info.contains("master_link_status:up") || info.contains("state=online")
            })
        });
    }

    /// Waits until `node` is the primary of the slot of `key`, and everybody who answers knows and
    /// thinks that the cluster works.
    pub fn until_served_by(&self, key: &str, node: usize) {
        let slot = self.slot(key);
        self.until("the failover", || {
            self.nodes.iter().enumerate().filter(|(_, asked)| asked.is_answering()).all(
                |(number, asked)| {
                    self.server_of(slot, number) == Some(node)
                        && asked.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                },
            )
        });
    }

    /// Begins to move the slot of a key: from now on its keys may be on both nodes.
    pub fn begin_move(&self, key: &str, from: usize, to: usize) {
        let slot = self.slot(key).to_string();
        let set = |node: usize, what: &str, other: usize| {
            let set = ["CLUSTER", "SETSLOT", &slot, what, &self.id(other)].map(str::to_owned);
            let set: Vec<&str> = set.iter().map(String::as_str).collect();
            assert_eq!(self.nodes[node].cli(&set), "OK");
        };
        set(to, "IMPORTING", from);
        set(from, "MIGRATING", to);
    }

    /// Moves what is in the slot of a key.
    pub fn move_keys(&self, key: &str, from: usize, to: usize) {
        let slot = self.slot(key).to_string();
        let keys = self.nodes[from].cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
        let port = self.nodes[to].port().to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "10000"];
        let admin = self.options.admin_password();
        if let Some((user, password)) = admin {
            migrate.extend(["AUTH2", user, password]);
        }
        migrate.push("KEYS");
        migrate.extend(keys.lines());
        assert_eq!(self.nodes[from].cli(&migrate), "OK");
    }

    /// Ends the move: `to` serves the slot of the key.
    pub fn end_move(&self, key: &str, from: usize, to: usize) {
        let (slot, id) = (self.slot(key).to_string(), self.id(to));
        for node in [to, from] {
            assert_eq!(self.nodes[node].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]), "OK");
        }
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].cli(&["CLUSTER", "MYID"])
    }

    fn answering(&self) -> impl Iterator<Item = &Redis> {
        self.nodes.iter().filter(|node| node.is_answering())
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        until(self, what, done);
    }
}
