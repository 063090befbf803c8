//! Which node of a cluster serves which slots.

use std::collections::BTreeMap;

use ::redis::Value;

use super::failure::Destination;
use super::wire::decode;

/// What one node knows, and how new that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topology {
    /// Whether it thinks that the cluster works. One that is cut off from most primaries does not.
    works: bool,
    /// The highest configuration epoch that it has heard of. Whoever takes slots over makes a new one.
    epoch: u64,
    /// The last slot of each range, and the first, and who serves it.
    ranges: BTreeMap<u16, (u16, Destination)>,
}

impl Topology {
    /// From the answers to `CLUSTER INFO` and `CLUSTER SLOTS`.
    pub(super) fn read(info: &str, slots: Value) -> Option<Self> {
        let fact = |name: &str| {
            info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
        };
        let works = fact("cluster_state") == Some("ok");
        let epoch = fact("cluster_current_epoch")?.parse().ok()?;
        let Value::Array(slots) = slots else { return None };
        let ranges = slots.into_iter().map(range).collect::<Option<_>>()?;
        Some(Self { works, epoch, ranges })
    }

    /// Whether this is to be believed rather than `other`.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        (self.works, self.epoch) > (other.works, other.epoch)
    }

    /// Who serves a slot.
    pub(super) fn serving(&self, slot: u16) -> Option<&Destination> {
        let (_, (first, node)) = self.ranges.range(slot..).next()?;
        (*first <= slot).then_some(node)
    }

    /// Notes that another node serves a slot now.
    pub(super) fn moved(&mut self, slot: u16, to: Destination) {
        let around = self.ranges.range(slot..).next().map(|(last, (first, _))| (*last, *first));
        if let Some((last, first)) = around.filter(|(_, first)| *first <= slot)
            && let Some((_, node)) = self.ranges.remove(&last)
        {
            if slot < last {
                self.ranges.insert(last, (slot + 1, node.clone()));
            }
            if first < slot {
                self.ranges.insert(slot - 1, (first, node));
            }
        }
        self.ranges.insert(slot, (slot, to));
    }

    /// All who serve slots.
    pub(super) fn primaries(&self) -> Vec<Destination> {
        let mut primaries = Vec::new();
        for (_, node) in self.ranges.values() {
            if !primaries.contains(node) {
                primaries.push(node.clone());
            }
        }
        primaries
    }

    /// The same, with the host of the node that was asked where it does not name one.
    pub(super) fn asked_at(mut self, host: &str) -> Self {
        for (_, node) in self.ranges.values_mut() {
            node.fill_in(host);
        }
        self
    }
}

impl Destination {
    /// A node that does not know its own address means the one at which it was asked.
    pub(super) fn fill_in(&mut self, host: &str) {
        if self.host.is_empty() {
            host.clone_into(&mut self.host);
        }
    }
}

/// `[first, last, [host, port, …], replicas…]`
fn range(value: Value) -> Option<(u16, (u16, Destination))> {
    let Value::Array(fields) = value else { return None };
    let mut fields = fields.into_iter();
    let (first, last) = (small(&fields.next()?)?, small(&fields.next()?)?);
    let Value::Array(node) = fields.next()? else { return None };
    let mut node = node.into_iter();
    let host = match node.next()? {
        Value::Nil => String::new(),
        // A node without the host name that it was told to give.
        host => decode::<String>(host).ok().filter(|host| host != "?").unwrap_or_default(),
    };
    Some((last, (first, Destination { host, port: small(&node.next()?)? })))
}

/// The driver would cut off what does not fit.
fn small(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Destination {
        Destination { host: host.to_owned(), port }
    }

    fn served(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = Value::Array(vec![host, Value::Int(port)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn two() -> Topology {
        let slots = vec![served(0, 8191, text("a"), 1), served(8193, 16383, Value::Nil, 2)];
        let info = "cluster_state:ok\r\ncluster_current_epoch:7\r\n";
        Topology::read(info, Value::Array(slots)).unwrap().asked_at("b")
    }

    #[test]
    fn each_slot_is_served_by_one_or_by_nobody() {
        let two = two();
        for (slot, by) in [
            (0, Some(node("a", 1))),
            (8191, Some(node("a", 1))),
            (8192, None),
            (8193, Some(node("b", 2))),
            (16383, Some(node("b", 2))),
        ] {
            assert_eq!(two.serving(slot), by.as_ref(), "{slot}");
        }
        assert_eq!(two.primaries(), [node("a", 1), node("b", 2)]);
    }

    #[test]
    fn a_slot_moves_alone() {
        for slot in [0, 5, 8191, 8192, 8193, 16383] {
            let (before, mut after) = (two(), two());
            after.moved(slot, node("c", 3));
            for other in [0, 4, 5, 6, 8190, 8191, 8192, 8193, 8194, 16382, 16383] {
                let expected =
                    if other == slot { Some(node("c", 3)) } else { before.serving(other).cloned() };
                assert_eq!(after.serving(other), expected.as_ref(), "{other} after {slot} moved");
            }
        }
    }

    #[test]
    fn whoever_works_and_then_the_newest_is_believed() {
        let [old, mut cut_off, mut newer] = [two(), two(), two()];
        (cut_off.works, cut_off.epoch) = (false, 9);
        newer.epoch = 8;
        assert!(newer.is_newer_than(&old) && !old.is_newer_than(&newer));
        assert!(old.is_newer_than(&cut_off) && !old.is_newer_than(&old));
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let info = "cluster_state:ok\ncluster_current_epoch:7";
        for slots in [
            Value::Nil,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![served(0, 70_000, text("a"), 1)]),
            Value::Array(vec![served(0, 1, text("a"), -1)]),
        ] {
            assert_eq!(Topology::read(info, slots.clone()), None, "{slots:?}");
        }
        assert_eq!(Topology::read("", Value::Array(vec![])), None);
    }
}
