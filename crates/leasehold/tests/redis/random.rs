//! Random operations on a real server, compared step by step with the rule in memory.

use std::collections::HashMap;
use std::time::Duration;

use leasehold::core::backoff::Random;
use leasehold::core::table::NoEntry;
use leasehold::core::{Claim, ClaimId, Enter, Fence, Left, Moment, Note, Place, SessionId, Table};
use leasehold::{ErrorKind, Store};

use crate::server::{Raw, Server};
use crate::{Node, claim, share, terms};

/// Each with the limit that goes with it, mostly.
const KEYS: [(&str, u32); 4] = [("a", 1), ("b}", 3), ("{}c", u32::MAX), ("d", 5)];

/// The store and the rule, side by side. Nothing lapses unless [`World::lapse`] says so.
struct World {
    nodes: Vec<Node>,
    sessions: Vec<SessionId>,
    table: Table,
    now: Moment,
    /// The claims made so far and not over, each with its node.
    claims: Vec<(usize, Claim)>,
    raw: Raw,
    /// The fences that were told, and the greatest of each key.
    fences: HashMap<ClaimId, Fence>,
    greatest: HashMap<String, Fence>,
}

impl World {
    async fn new(server: &Server) -> Self {
        let mut nodes = Vec::new();
        let mut table = Table::new(0);
        let mut sessions = Vec::new();
        for number in 0..3 {
            nodes.push(Node::new(&server.url()).await);
            let session = SessionId::new(&number.to_string());
            table.open(Moment::ORIGIN, session.clone(), terms(Duration::from_hours(24)));
            sessions.push(session);
        }
        let raw = server.raw();
        Self {
            nodes,
            sessions,
            table,
            now: Moment::ORIGIN,
            claims: Vec::new(),
            raw,
            fences: HashMap::new(),
            greatest: HashMap::new(),
        }
    }

    async fn enter(&mut self, index: usize, enter: Enter) {
        let (node, claim) = self.claims[index].clone();
        let theirs = self.nodes[node].store.enter(&self.nodes[node].session, &claim, enter).await;
        let ours = self.table.enter(self.now, &self.sessions[node], &claim, enter);
        match (&theirs, &ours) {
            (Ok(Place::Held(fence)), Ok(Place::Held(_))) => self.granted(&claim, *fence),
            (Ok(Place::Waiting(theirs)), Ok(Place::Waiting(ours)))
            | (Ok(Place::Refused(theirs)), Ok(Place::Refused(ours))) => {
                assert_eq!(theirs.rank, ours.rank);
                let id = |ahead: &leasehold::core::Ahead| {
                    ahead.holder.as_ref().and_then(|holder| holder.claim)
                };
                assert_eq!(id(theirs), id(ours));
            }
            (Err(theirs), Err(NoEntry::Disagrees { limit })) => {
                assert_eq!(theirs.kind(), ErrorKind::Disagrees, "{theirs}");
                assert!(theirs.to_string().contains(&format!("limit of {limit}")), "{theirs}");
            }
            _ => panic!("{theirs:?} but by the rule {ours:?}"),
        }
        if matches!(ours, Ok(Place::Refused(_)) | Err(_)) {
            self.claims.remove(index);
        }
    }

    /// A fence that was told of: the same whenever it is, and no two claims have one. A claim that
    /// holds alone was granted after all others that were ever seen to hold.
    fn granted(&mut self, claim: &Claim, fence: Fence) {
        if let Some(before) = self.fences.insert(claim.id, fence) {
            assert_eq!(before, fence);
            return;
        }
        let greatest = self.greatest.entry(claim.key.as_str().to_owned()).or_insert(Fence::new(0));
        if claim.is_exclusive() {
            assert!(fence > *greatest, "{fence:?} after {greatest:?}");
        }
        *greatest = fence.max(*greatest);
        let alike = self.fences.values().filter(|other| **other == fence).count();
        assert_eq!(alike, 1, "{fence:?} twice");
    }

    async fn amend(&mut self, index: usize, units: u32) {
        let (node, claim) = self.claims[index].clone();
        let amended = claim.amended(Note::new("amended").unwrap(), units.try_into().unwrap());
        let theirs = self.nodes[node].store.amend(&self.nodes[node].session, &amended).await;
        let held = self.table.amend(self.now, &self.sessions[node], &amended);
        assert_eq!(theirs.unwrap(), held);
        if held {
            self.claims[index].1 = amended;
        }
    }

    async fn leave(&mut self, index: usize) {
        let (node, claim) = self.claims.remove(index);
        let theirs = self.nodes[node].leave(&claim).await;
        assert_eq!(theirs, self.table.leave(self.now, &self.sessions[node], &claim));
        let again = self.nodes[node].leave(&claim).await;
        assert_eq!(again, Left::Gone);
    }

    async fn revoke(&mut self, index: usize, by: usize) {
        let (_, claim) = self.claims.remove(index);
        assert!(self.nodes[by].store.revoke(&claim.key, &claim.id).await.unwrap());
        assert!(self.table.revoke(self.now, &claim.key, claim.id).is_some());
    }

    /// Whoever holds a key lapses, as by their TTLs: the rule has no such thing for one claim, so they
    /// are revoked there, at once.
    async fn lapse(&mut self, key: &str, by: usize) {
        if self.raw.run::<i64>(&["DEL", key]) == 0 {
            return;
        }
        let key = claim(key).key;
        let line = self.table.inspect(self.now, &key);
        let held: Vec<ClaimId> = line.holders.iter().filter_map(|holder| holder.claim).collect();
        // The last one first: nobody is granted beside those who are about to go.
        for holder in held.iter().rev() {
            let index = self.claims.iter().position(|(_, claim)| claim.id == *holder).unwrap();
            let (node, lost) = self.claims.remove(index);
            assert!(!self.nodes[node].extends(&lost).await);
            assert!(self.table.revoke(self.now, &key, *holder).is_some());
        }
        // No script ran but these: whoever asks next hands it to the first in line.
        let asks = claim(key.as_str());
        self.claims.push((by, asks));
        self.enter(self.claims.len() - 1, Enter::Try).await;
    }

    async fn renew(&mut self, node: usize) {
        let roll: Vec<Claim> = self
            .claims
            .iter()
            .filter(|(of, _)| *of == node)
            .map(|(_, claim)| claim.clone())
            .collect();
        let renewed = self.nodes[node].store.renew(&self.nodes[node].session, &roll).await.unwrap();
        assert_eq!(renewed, leasehold::core::Renewed::Extended { lost: vec![] });
    }

    async fn compare(&mut self) {
        for (key, _) in KEYS {
            let key = claim(key).key;
            let theirs = self.nodes[0].store.inspect(&key).await.unwrap();
            let ours = self.table.inspect(self.now, &key);
            let seen = |parties: &[leasehold::core::Party]| {
                let parties = parties.iter();
                parties
                    .map(|party| (party.claim, party.units, party.limit, party.note.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(seen(&theirs.holders), seen(&ours.holders), "{key:?}");
            assert_eq!(seen(&theirs.waiters), seen(&ours.waiters), "{key:?}");
            let fences: Vec<Fence> = theirs.holders.iter().filter_map(|one| one.fence).collect();
            assert_eq!(fences.len(), theirs.holders.len(), "{key:?}");
            assert!(fences.is_sorted_by(|a, b| a < b), "{key:?}: {fences:?}");
            for holder in theirs.holders {
                let told = self.fences.get(&holder.claim.unwrap());
                assert!(told.is_none_or(|told| Some(*told) == holder.fence), "{key:?}");
            }
        }
        assert_eq!(self.nodes[0].store.keys("").await.unwrap(), self.table.keys(self.now, ""));
    }

    async fn step(&mut self, random: &mut Random) {
        let mut pick = |below: usize| usize::try_from(random.bits() % below as u64).unwrap();
        let (what, (key, limit), node) =
            (pick(100), KEYS[pick(KEYS.len())], pick(self.nodes.len()));
        let index = if self.claims.is_empty() { None } else { Some(pick(self.claims.len())) };
        // Now and then one that does not agree on the limit.
        let limit = if pick(12) == 0 { KEYS[pick(KEYS.len())].1 } else { limit };
        let units = match pick(4) {
            0 => limit,
            some => u32::try_from(some).unwrap().min(limit),
        };
        match (what, index) {
            (0..25, _) => {
                self.claims.push((node, share(key, units, limit)));
                self.enter(self.claims.len() - 1, Enter::Wait).await;
            }
            (25..35, _) => {
                self.claims.push((node, share(key, units, limit)));
                self.enter(self.claims.len() - 1, Enter::Try).await;
            }
            (35..45, Some(index)) => self.enter(index, Enter::Wait).await,
            (45..47, Some(index)) => self.enter(index, Enter::Try).await,
            (47..53, Some(index)) => self.amend(index, units).await,
            (53..75, Some(index)) => self.leave(index).await,
            (75..80, Some(index)) => self.revoke(index, node).await,
            (80..86, _) => self.lapse(key, node).await,
            (86..92, _) => self.renew(node).await,
            (92.., _) => self.compare().await,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_thousand_random_steps_agree_with_the_rule() {
    let server = Server::start();
    for seed in 0..8 {
        let _: String = server.raw().run(&["FLUSHALL"]);
        let mut world = World::new(&server).await;
        let mut random = Random::new(seed);
        for step in 0..1000 {
            let context = format!("seed {seed}, step {step}");
            let _shown_on_panic = Shown(&context);
            world.step(&mut random).await;
        }
        world.compare().await;
    }
}

/// Says where a panic happened.
struct Shown<'a>(&'a str);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}
