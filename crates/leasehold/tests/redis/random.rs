//! Random operations on a real server, compared step by step with the rule in memory.

use std::time::Duration;

use leasehold::Store;
use leasehold::core::backoff::Random;
use leasehold::core::{Claim, ClaimId, Enter, Fence, Left, Moment, Place, SessionId, Table};

use crate::server::{Raw, Server};
use crate::{Node, claim, terms};

const KEYS: [&str; 3] = ["a", "b}", "{}c"];

/// The store and the rule, side by side. Nothing lapses unless [`World::lapse`] says so.
struct World {
    nodes: Vec<Node>,
    sessions: Vec<SessionId>,
    table: Table,
    now: Moment,
    /// The claims made so far and not over, each with its node.
    claims: Vec<(usize, Claim)>,
    raw: Raw,
    /// The greatest fence of each key, and all claims that had it.
    fences: [Option<(Fence, ClaimId)>; KEYS.len()],
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
            fences: [None; 3],
        }
    }

    async fn enter(&mut self, index: usize, enter: Enter) {
        let (node, claim) = self.claims[index].clone();
        let theirs =
            self.nodes[node].store.enter(&self.nodes[node].session, &claim, enter).await.unwrap();
        let ours = self.table.enter(self.now, &self.sessions[node], &claim, enter).unwrap();
        match (&theirs, &ours) {
            (Place::Held(fence), Place::Held(_)) => self.granted(&claim, *fence),
            (Place::Waiting(theirs), Place::Waiting(ours))
            | (Place::Refused(theirs), Place::Refused(ours)) => {
                assert_eq!(theirs.rank, ours.rank);
                let id = |ahead: &leasehold::core::Ahead| {
                    ahead.holder.as_ref().and_then(|holder| holder.claim)
                };
                assert_eq!(id(theirs), id(ours));
            }
            _ => panic!("{theirs:?} but by the rule {ours:?}"),
        }
        if matches!(ours, Place::Refused(_)) {
            self.claims.remove(index);
        }
    }

    fn granted(&mut self, claim: &Claim, fence: Fence) {
        let key = KEYS.iter().position(|key| *key == claim.key.as_str()).unwrap();
        if let Some((last, holder)) = self.fences[key] {
            let again = holder == claim.id && fence == last;
            assert!(again || (holder != claim.id && fence > last), "{fence:?} after {last:?}");
        }
        self.fences[key] = Some((fence, claim.id));
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

    /// The holder of a key lapses, as by its TTL: the rule has no such thing for one claim, so it
    /// is revoked there.
    async fn lapse(&mut self, key: &str, by: usize) {
        let value: Option<String> = self.raw.run(&["GET", key]);
        let Some(holder) = value.and_then(|value| ClaimId::from_hex(&value)) else { return };
        let _: i64 = self.raw.run(&["DEL", key]);
        let key = claim(key).key;
        assert!(self.table.revoke(self.now, &key, holder).is_some());
        let index = self.claims.iter().position(|(_, claim)| claim.id == holder).unwrap();
        let (node, lost) = self.claims.remove(index);
        assert!(!self.nodes[node].extends(&lost).await);
        // No script ran: whoever asks next hands it to the first in line.
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
        for key in KEYS {
            let key = claim(key).key;
            let theirs = self.nodes[0].store.inspect(&key).await.unwrap();
            let ours = self.table.inspect(self.now, &key);
            let ids = |parties: &[leasehold::core::Party]| {
                parties.iter().map(|party| party.claim).collect::<Vec<_>>()
            };
            assert_eq!(ids(&theirs.holders), ids(&ours.holders), "{key:?}");
            assert_eq!(ids(&theirs.waiters), ids(&ours.waiters), "{key:?}");
            if let Some(holder) = theirs.holders.first() {
                let index = KEYS.iter().position(|known| *known == key.as_str()).unwrap();
                let told = holder.fence.unwrap();
                assert!(
                    self.fences[index]
                        .is_none_or(|(last, id)| told > last || Some(id) == holder.claim)
                );
            }
        }
        assert_eq!(self.nodes[0].store.keys("").await.unwrap(), self.table.keys(self.now, ""));
    }

    async fn step(&mut self, random: &mut Random) {
        let mut pick = |below: usize| usize::try_from(random.bits() % below as u64).unwrap();
        let (what, key, node) = (pick(100), KEYS[pick(KEYS.len())], pick(self.nodes.len()));
        let index = if self.claims.is_empty() { None } else { Some(pick(self.claims.len())) };
        match (what, index) {
            (0..25, _) => {
                self.claims.push((node, claim(key)));
                self.enter(self.claims.len() - 1, Enter::Wait).await;
            }
            (25..35, _) => {
                self.claims.push((node, claim(key)));
                self.enter(self.claims.len() - 1, Enter::Try).await;
            }
            (35..50, Some(index)) => self.enter(index, Enter::Wait).await,
            (50..75, Some(index)) => self.leave(index).await,
            (75..80, Some(index)) => self.revoke(index, node).await,
            (80..90, _) => self.lapse(key, node).await,
            (90..95, _) => self.renew(node).await,
            (95.., _) => self.compare().await,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_thousand_random_steps_agree_with_the_rule() {
    let server = Server::start();
    for seed in 0..5 {
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
