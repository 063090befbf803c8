//! Every execution of two claims over three servers: tokens may expire at any moment, requests may
//! be delivered late and twice, replies may be late or lost.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use leasehold_core::quorum::{Attempt, Server, Step, Vote};
use leasehold_core::{ClaimId, Fence};

const SERVERS: usize = 3;
const CLAIMS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Request {
    Acquire,
    Raise(u64),
    Release,
}

/// A request or reply under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Request { claim: usize, server: usize, request: Request },
    Reply { claim: usize, server: usize, request: Request, vote: Vote },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    servers: Vec<Server>,
    attempts: Vec<Option<Attempt>>,
    granted: Vec<Option<Fence>>,
    /// Sorted, so that equal worlds are equal.
    messages: Vec<Message>,
    /// Expiries that the adversary has left.
    expiries: u8,
    /// Requests that may be delivered once more: a retry, or a duplicate of the network.
    retries: u8,
}

/// What the checker varies.
#[derive(Clone, Copy)]
struct Rules {
    proposals: [u64; CLAIMS],
    /// The counters before the first claim.
    counters: [u64; SERVERS],
    expiries: u8,
    retries: u8,
    /// The second claim begins after the first was granted.
    in_order: bool,
    /// The adversary may erase a server instead of expiring its token.
    forgetful: bool,
}

fn token(claim: usize) -> ClaimId {
    ClaimId::from_random([u8::try_from(claim).unwrap() + 1; 16])
}

impl World {
    fn new(rules: &Rules) -> Self {
        let servers = rules.counters.map(|counter| {
            let mut server = Server::default();
            let before = ClaimId::from_random([99; 16]);
            server.acquire(before, 0, 0);
            server.raise(before, counter);
            server.release(before);
            server
        });
        let mut world = Self {
            servers: servers.into(),
            attempts: vec![None; CLAIMS],
            granted: vec![None; CLAIMS],
            messages: Vec::new(),
            expiries: rules.expiries,
            retries: rules.retries,
        };
        world.begin(0);
        if !rules.in_order {
            world.begin(1);
        }
        world
    }

    fn begin(&mut self, claim: usize) {
        self.attempts[claim] = Some(Attempt::new(SERVERS));
        self.send(claim, 0..SERVERS, Request::Acquire);
    }

    fn send(&mut self, claim: usize, servers: impl IntoIterator<Item = usize>, request: Request) {
        let requests =
            servers.into_iter().map(|server| Message::Request { claim, server, request });
        self.messages.extend(requests);
        self.messages.sort_unstable();
    }

    /// The attempt is over: what is still told to it changes nothing.
    fn end(&mut self, claim: usize) {
        self.attempts[claim] = None;
        self.messages
            .retain(|message| !matches!(message, Message::Reply { claim: of, .. } if *of == claim));
    }

    fn successors(&self, rules: &Rules) -> Vec<Self> {
        let mut next = Vec::new();
        for (index, message) in self.messages.iter().enumerate() {
            // Equal messages lead to equal worlds.
            if index > 0 && self.messages[index - 1] == *message {
                continue;
            }
            let mut world = self.clone();
            world.messages.remove(index);
            if self.retries > 0 && matches!(message, Message::Request { .. }) {
                let mut again = self.clone();
                again.retries -= 1;
                again.deliver(*message, rules);
                next.push(again);
            }
            world.deliver(*message, rules);
            next.push(world);
        }
        if self.expiries > 0 {
            for server in 0..SERVERS {
                let mut world = self.clone();
                world.expiries -= 1;
                if rules.forgetful {
                    world.servers[server].forget();
                } else {
                    world.servers[server].expire();
                }
                if world.servers != self.servers {
                    next.push(world);
                }
            }
        }
        next
    }

    fn deliver(&mut self, message: Message, rules: &Rules) {
        match message {
            Message::Request { claim, server, request } => {
                let at = &mut self.servers[server];
                let vote = match request {
                    Request::Acquire => at.acquire(token(claim), rules.proposals[claim], 0),
                    Request::Raise(fence) => at.raise(token(claim), fence),
                    Request::Release => return at.release(token(claim)),
                };
                if self.attempts[claim].is_some() {
                    self.messages.push(Message::Reply { claim, server, request, vote });
                    self.messages.sort_unstable();
                }
            }
            Message::Reply { claim, server, request, vote } => {
                let Some(attempt) = &mut self.attempts[claim] else { return };
                match request {
                    Request::Acquire => attempt.answered(server, vote),
                    Request::Raise(fence) => attempt.raised(server, fence, vote),
                    Request::Release => {}
                }
                match attempt.step() {
                    Step::Wait => {}
                    Step::Raise { servers, fence } => {
                        self.send(claim, servers, Request::Raise(fence));
                    }
                    Step::Granted(fence) => {
                        self.granted[claim] = Some(fence);
                        self.end(claim);
                        if rules.in_order && claim == 0 {
                            self.begin(1);
                        }
                    }
                    Step::Failed => {
                        self.end(claim);
                        self.send(claim, 0..SERVERS, Request::Release);
                    }
                }
            }
        }
    }

    fn violates(&self, rules: &Rules) -> bool {
        match (self.granted[0], self.granted[1]) {
            (Some(first), Some(second)) if rules.in_order => first >= second,
            (Some(first), Some(second)) => first == second,
            _ => false,
        }
    }
}

/// Visits every world that can be reached; says how many, and whether one violates the promise.
fn explore(rules: &Rules) -> (usize, bool) {
    let first = World::new(rules);
    // 128 bits of a world stand for it: two that share them among a million would be a marvel.
    let mut seen = HashSet::from([digest(&first)]);
    let mut ahead = vec![first];
    let mut violated = false;
    while let Some(world) = ahead.pop() {
        violated |= world.violates(rules);
        for next in world.successors(rules) {
            if seen.insert(digest(&next)) {
                ahead.push(next);
            }
        }
    }
    (seen.len(), violated)
}

fn digest(world: &World) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, world).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

const UNEVEN: Rules = Rules {
    proposals: [0, 0],
    counters: [1, 2, 3],
    expiries: 2,
    retries: 0,
    in_order: false,
    forgetful: false,
};

#[test]
fn fences_are_unique_under_any_expiry() {
    let (worlds, violated) = explore(&UNEVEN);
    println!("{worlds} worlds");
    assert!(!violated && worlds > 10_000, "{worlds} worlds");
}

#[test]
fn fences_are_unique_under_any_expiry_with_proposals() {
    let (worlds, violated) = explore(&Rules { proposals: [3, 5], counters: [1, 4, 4], ..UNEVEN });
    println!("{worlds} worlds");
    assert!(!violated && worlds > 10_000, "{worlds} worlds");
}

#[test]
fn fences_are_unique_under_any_expiry_and_retries() {
    let (worlds, violated) = explore(&Rules { retries: 1, counters: [1, 2, 2], ..UNEVEN });
    println!("{worlds} worlds");
    assert!(!violated && worlds > 10_000, "{worlds} worlds");
}

#[test]
fn a_later_attempt_has_a_greater_fence_under_any_expiry_and_retries() {
    let rules = Rules { retries: 1, expiries: 2, in_order: true, ..UNEVEN };
    let (worlds, violated) = explore(&rules);
    println!("{worlds} worlds");
    assert!(!violated && worlds > 10_000, "{worlds} worlds");
}

/// The checker sees what it should: a server that forgets its counter breaks the promise.
#[test]
fn servers_that_forget_their_counters_break_the_order() {
    let (_, violated) = explore(&Rules { in_order: true, forgetful: true, ..UNEVEN });
    assert!(violated, "a forgotten counter must be able to break the order of fences");
}
