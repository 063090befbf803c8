//! Seeded simulation of a quorum: virtual time, lost, late and repeated messages, clocks that drift.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use leasehold_core::backoff::Random;
use leasehold_core::quorum::{
    Attempt, Beat, PROPOSAL_AHEAD, Renewal, Server, Step, Verdict, Vote, proposal,
};
use leasehold_core::{ClaimId, Fence};

const TTL: u64 = 1_000_000;
const DRIFT: u64 = 50_000; // parts in a million, of every clock
const JUMP: u64 = 5_000;
const MARGIN: u64 = 2 * DRIFT + JUMP + 1_000;
const BASE: u64 = 100_000_000;
/// The same where servers restart: their clocks must not come apart by more than a proposal is ahead.
const SLOW_DRIFT: u64 = 1_000;
/// By what the servers' clocks may differ: at first, and by what drift adds in the longest run.
const SKEW: u64 = 20_000 + 2 * SLOW_DRIFT * LONGEST / 1_000_000;
const LONGEST: u64 = 100 * TTL;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum World {
    /// Clocks jump within the bound.
    Sound,
    /// Clocks jump by a TTL: tokens expire in the middle of a lease.
    Unsound,
    /// A server forgets everything, and starts again after this time.
    Restarts(u64),
}

/// As long as a server must stay away that forgets: by then the leases that it voted for have lapsed,
/// and its clock has passed what any proposal pushed a fence to.
const AWAY: u64 = PROPOSAL_AHEAD + 2 * SKEW;

/// The rule that a test breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    DeadlineFromAnswer,
    Forgets,
    NoMargin,
    /// A top-up begins where the tenure before it stood, or at the fence.
    TopUpKeeps,
    /// A renewal counts whoever has the token, since whenever.
    AnyTenureCounts,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ask {
    Acquire(u64),
    Raise(u64),
    Extend(u64),
    TopUp(u64),
    Release,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Answer {
    Acquired(Vote),
    Raised(u64, Vote),
    Beat(Beat),
    ToppedUp(Vote),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Start(usize),
    Arrives(usize, usize, u64, ClaimId, Ask),
    Answered(usize, usize, u64, Answer),
    Times(usize, u64),
    Again(usize, u64),
    Shakes(usize),
    Returns(usize),
}

struct Machine {
    up: bool,
    rule: Server,
    expires: u64,
    rate: u64,
    offset: u64,
}

struct Client {
    rate: u64,
    round: u64,
    token: ClaimId,
    sent: u64,
    began: u64,
    retried: bool,
    rounds: u64,
    tries: u64,
    attempt: Option<Attempt>,
    hold: Option<(Renewal, usize)>,
}

#[derive(Debug, Clone)]
struct Grant {
    token: ClaimId,
    began: u64,
    granted: u64,
    end: u64,
    fence: u64,
    /// When it was proven: when each round was sent that was kept, and when that was known.
    proofs: Vec<(u64, u64)>,
    /// It was the claim's second: what the first got is found again.
    again: bool,
}

impl Grant {
    /// Whether it went on although another was asked for and granted since it was last proven.
    fn was_interrupted_by(&self, other: &Self) -> bool {
        self.proofs.windows(2).any(|pair| pair[0].1 < other.began && other.granted < pair[1].0)
    }
}

#[derive(Default, Debug)]
struct Coverage {
    grants: u64,
    contended: u64,
    raises: u64,
    top_ups: u64,
    kept: u64,
    lost: u64,
    early: u64,
    asked_again: u64,
    returned: u64,
}

struct Run<'a> {
    world: World,
    broken: Broken,
    random: Random,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    machines: Vec<Machine>,
    clients: Vec<Client>,
    grants: Vec<Grant>,
    tokens: u64,
    coverage: &'a mut Coverage,
}

impl Run<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.bits() % bound
    }
    fn at(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + after, self.order, event)));
    }
    fn latency(&mut self) -> u64 {
        if self.below(10) == 0 { self.below(2 * TTL) } else { 1 + self.below(50_000) }
    }
    fn send(&mut self, client: usize, server: usize, ask: Ask) {
        let (round, token) = (self.clients[client].round, self.clients[client].token);
        for copy in 0..2 {
            if self.below(10) < if copy == 0 { 9 } else { 1 } {
                let after = self.latency();
                self.at(after, Event::Arrives(client, server, round, token, ask));
            }
        }
    }
    fn all(&mut self, client: usize, ask: Ask) {
        for server in 0..self.machines.len() {
            self.send(client, server, ask);
        }
    }
    fn wall(&self, server: usize) -> u64 {
        let machine = &self.machines[server];
        machine.offset + self.now * machine.rate / 1_000_000
    }
    fn deadline(&self, client: usize) -> u64 {
        let client = &self.clients[client];
        let from = if self.broken == Broken::DeadlineFromAnswer { self.now } else { client.sent };
        let margin = if self.broken == Broken::NoMargin { 0 } else { MARGIN };
        from + (TTL - margin) * 1_000_000 / client.rate
    }
    fn leave(&mut self, client: usize) {
        self.all(client, Ask::Release);
        if let Some((_, grant)) = self.clients[client].hold.take() {
            self.grants[grant].end = self.grants[grant].end.min(self.now);
        }
        self.clients[client].attempt = None;
        self.clients[client].round += 1;
        let pause = if matches!(self.world, World::Restarts(_)) { 10 * TTL } else { TTL };
        let after = self.below(pause);
        self.at(after, Event::Start(client));
    }
    fn go(&mut self, client: usize) {
        let Some(mut attempt) = self.clients[client].attempt.take() else { return };
        match attempt.step() {
            Step::Granted(fence) => {
                let end = self.deadline(client);
                if end <= self.now {
                    return self.leave(client);
                }
                self.coverage.grants += 1;
                let Client { began, token, .. } = self.clients[client];
                let others = || self.grants.iter().filter(|other| other.token != token);
                self.coverage.contended += u64::from(others().any(|other| other.end > began));
                let again = others().count() < self.grants.len();
                self.coverage.asked_again += u64::from(again);
                let fence = fence.get();
                let proofs = vec![(self.clients[client].sent, self.now)];
                let grant = Grant { token, began, granted: self.now, end, fence, proofs, again };
                self.grants.push(grant);
                let renewal = Renewal::new(self.machines.len(), Fence::new(fence));
                self.clients[client].hold = Some((renewal, self.grants.len() - 1));
                self.clients[client].round += 1;
                self.rest(client);
            }
            Step::Raise { servers, fence } => {
                self.coverage.raises += 1;
                for server in servers {
                    self.send(client, server, Ask::Raise(fence));
                }
                self.clients[client].attempt = Some(attempt);
            }
            Step::Wait => self.clients[client].attempt = Some(attempt),
            Step::Failed => self.leave(client),
        }
    }
    fn rest(&mut self, client: usize) {
        let pause = if self.below(8) == 0 { 2 * TTL } else { TTL / 2 };
        let after = self.below(pause);
        self.at(after, Event::Again(client, self.clients[client].round));
    }
    /// Asks for the claim that it holds, as another process would: it knows nothing of the hold.
    fn ask_again(&mut self, client: usize) {
        let (now, servers) = (self.now, self.machines.len());
        let it = &mut self.clients[client];
        if let Some((_, grant)) = it.hold.take() {
            self.grants[grant].end = self.grants[grant].end.min(now);
        }
        (it.round, it.sent, it.began, it.retried) = (it.round + 1, now, now, true);
        it.attempt = Some(Attempt::new(servers));
        let round = it.round;
        self.all(client, Ask::Acquire(0));
        self.at(TTL / 4, Event::Times(client, round));
    }
    fn start(&mut self, client: usize) {
        if self.clients[client].tries == 0 {
            return;
        }
        self.tokens += 1;
        let token = ClaimId::from_random(u128::from(self.tokens).to_be_bytes());
        let (now, servers) = (self.now, self.machines.len());
        let it = &mut self.clients[client];
        (it.tries, it.round, it.token) = (it.tries - 1, it.round + 1, token);
        (it.sent, it.began, it.retried) = (now, now, false);
        it.attempt = Some(Attempt::new(servers));
        let round = it.round;
        let proposed = if self.below(2) == 0 { 0 } else { proposal(BASE + now) };
        self.all(client, Ask::Acquire(proposed));
        self.at(TTL / 4, Event::Times(client, round));
    }
    fn serve(&mut self, server: usize, token: ClaimId, ask: Ask) -> Option<Answer> {
        let wall = self.wall(server);
        if !self.machines[server].up {
            return None;
        }
        let clock = if self.broken == Broken::Forgets { 0 } else { wall };
        let machine = &mut self.machines[server];
        if machine.expires <= wall {
            machine.rule.expire();
        }
        let answer = match ask {
            Ask::Acquire(least) => Answer::Acquired(machine.rule.acquire(token, least, clock)),
            Ask::Raise(fence) => Answer::Raised(fence, machine.rule.raise(token, fence)),
            Ask::Extend(fence) => Answer::Beat(machine.rule.extend(token, fence)),
            Ask::TopUp(fence) => {
                if self.broken == Broken::TopUpKeeps && machine.rule.holder().is_none() {
                    let at = machine.rule.counter().max(fence);
                    machine.rule = Server::restarted(at - 1);
                    Answer::ToppedUp(machine.rule.acquire(token, 0, 0))
                } else {
                    Answer::ToppedUp(machine.rule.acquire(token, fence, clock))
                }
            }
            Ask::Release => {
                machine.rule.release(token);
                return None;
            }
        };
        if machine.rule.holder() == Some(token) && !matches!(ask, Ask::Raise(_)) {
            machine.expires = wall + TTL;
        }
        Some(answer)
    }
    fn happens(&mut self, event: Event) {
        match event {
            Event::Start(client) => self.start(client),
            Event::Arrives(client, server, round, token, ask) => {
                if let Some(answer) = self.serve(server, token, ask)
                    && self.below(10) > 0
                {
                    let after = self.latency();
                    self.at(after, Event::Answered(client, server, round, answer));
                }
            }
            Event::Answered(client, server, round, answer) => {
                if self.clients[client].round == round {
                    self.hears(client, server, answer);
                }
            }
            Event::Times(client, round) if self.clients[client].round == round => {
                if self.clients[client].attempt.is_none() {
                    return;
                }
                if self.clients[client].retried {
                    return self.leave(client);
                }
                self.clients[client].retried = true;
                self.all(client, Ask::Acquire(0));
                self.at(TTL / 4, Event::Times(client, round));
            }
            Event::Again(client, round) if self.clients[client].round == round => {
                let (now, spent) = (self.now, self.clients[client].rounds == 0);
                let Some((renewal, grant)) = &mut self.clients[client].hold else { return };
                if self.grants[*grant].end <= now || spent {
                    return self.leave(client);
                }
                if self.random.bits().is_multiple_of(8) {
                    return self.ask_again(client);
                }
                renewal.again();
                let fence = renewal.fence().get();
                let it = &mut self.clients[client];
                (it.rounds, it.round, it.sent) = (it.rounds - 1, it.round + 1, now);
                self.all(client, Ask::Extend(fence));
                self.rest(client);
            }
            Event::Times(..) | Event::Again(..) => {}
            Event::Returns(server) => {
                self.coverage.returned += 1;
                self.machines[server].up = true;
            }
            Event::Shakes(server) => {
                if let World::Restarts(away) = self.world {
                    self.machines[server].rule.forget();
                    self.machines[server].up = false;
                    self.at(away, Event::Returns(server));
                } else if self.broken == Broken::Forgets {
                    self.machines[server].rule.forget();
                } else if self.world == World::Unsound {
                    self.coverage.early += u64::from(self.machines[server].rule.holder().is_some());
                    self.machines[server].offset += TTL;
                } else {
                    let jump = self.below(JUMP);
                    self.machines[server].offset += jump;
                }
            }
        }
    }
    fn hears(&mut self, client: usize, server: usize, answer: Answer) {
        match answer {
            Answer::Acquired(vote) => {
                let Some(attempt) = &mut self.clients[client].attempt else { return };
                attempt.answered(server, vote);
                self.go(client);
            }
            Answer::Raised(fence, vote) => {
                let Some(attempt) = &mut self.clients[client].attempt else { return };
                attempt.raised(server, fence, vote);
                self.go(client);
            }
            Answer::ToppedUp(vote) => {
                let Some((renewal, _)) = &mut self.clients[client].hold else { return };
                if let Vote::Granted(counter) = vote {
                    self.coverage.top_ups += 1;
                    renewal.given(server, counter);
                }
            }
            Answer::Beat(beat) => {
                let (deadline, sent) = (self.deadline(client), self.clients[client].sent);
                let Some((renewal, grant)) = &mut self.clients[client].hold else { return };
                if let (Broken::AnyTenureCounts, Beat::Extended(_)) = (self.broken, beat) {
                    renewal.told(server, Beat::Extended(renewal.fence().get()));
                } else {
                    renewal.told(server, beat);
                }
                match renewal.step() {
                    Verdict::Kept if self.now < self.grants[*grant].end => {
                        self.coverage.kept += 1;
                        self.grants[*grant].end = self.grants[*grant].end.max(deadline);
                        self.grants[*grant].proofs.push((sent, self.now));
                        let fence = renewal.fence().get();
                        for server in renewal.without().collect::<Vec<_>>() {
                            self.send(client, server, Ask::TopUp(fence));
                        }
                    }
                    Verdict::Lost | Verdict::Kept => {
                        self.coverage.lost += 1;
                        self.leave(client);
                    }
                    Verdict::Wait | Verdict::Unknown => {}
                }
            }
        }
    }
}

fn run(
    seed: u64,
    servers: usize,
    world: World,
    broken: Broken,
    coverage: &mut Coverage,
) -> Result<(), String> {
    let random = Random::new(seed.wrapping_mul(0x9e37_79b9) ^ 0x5eed);
    let mut run = Run {
        world,
        broken,
        random,
        now: 0,
        order: 0,
        events: BinaryHeap::new(),
        machines: vec![],
        clients: vec![],
        grants: vec![],
        tokens: 0,
        coverage,
    };
    let restarts = matches!(world, World::Restarts(_));
    let (drift, early, tries) = if restarts { (SLOW_DRIFT, 20 * TTL, 6) } else { (DRIFT, TTL, 3) };
    for server in 0..servers {
        let rate = 1_000_000 - drift + run.below(2 * drift);
        let offset = BASE + run.below(20_000);
        run.machines.push(Machine { up: true, rule: Server::default(), expires: 0, rate, offset });
        let after = run.below(if restarts { 10 * TTL } else { 3 * TTL });
        run.at(after, Event::Shakes(server));
    }
    for client in 0..usize::try_from(2 + run.below(3)).expect("small") {
        let rate = 1_000_000 - drift + run.below(2 * drift);
        let token = ClaimId::from_random([0; 16]);
        run.clients.push(Client {
            rate,
            round: 0,
            token,
            sent: 0,
            began: 0,
            retried: false,
            rounds: 3,
            tries,
            attempt: None,
            hold: None,
        });
        let after = run.below(early);
        run.at(after, Event::Start(client));
    }
    while let Some(Reverse((now, _, event))) = run.events.pop() {
        assert!(now < LONGEST, "the skew is reckoned for less");
        run.now = now;
        run.happens(event);
    }
    for (index, a) in run.grants.iter().enumerate() {
        for b in run.grants[index + 1..].iter().filter(|b| b.token != a.token) {
            let wrong = if a.fence == b.fence {
                "the same fence twice"
            } else if a.granted < b.began && a.fence > b.fence && !b.again {
                "fences out of order"
            } else if a.was_interrupted_by(b) {
                "a hold went on over another's"
            } else if world != World::Unsound && (b.granted < a.end || a.fence > b.fence) {
                "two hold at once"
            } else {
                continue;
            };
            return Err(format!("{wrong}: seed {seed}, {servers} servers: {:#?}", run.grants));
        }
    }
    Ok(())
}

fn holds(servers: usize, world: World) {
    let mut coverage = Coverage::default();
    for seed in 0..250_000 {
        if let Err(wrong) = run(seed, servers, world, Broken::Nothing, &mut coverage) {
            panic!("{wrong}");
        }
    }
    println!("{coverage:?}");
    let Coverage { grants, contended, raises, top_ups, kept, lost, early, asked_again, returned } =
        coverage;
    assert!([grants, contended, raises, top_ups, kept, lost, asked_again].iter().all(|&n| n > 0));
    assert_eq!(early > 0, world == World::Unsound);
    assert_eq!(returned > 0, matches!(world, World::Restarts(_)));
}

fn breaks(world: World, broken: Broken, how: &str) {
    let wrong = (0..300_000).find_map(|seed| {
        let wrong = run(seed, 3, world, broken, &mut Coverage::default()).err();
        wrong.filter(|wrong| wrong.contains(how))
    });
    let wrong = wrong.expect("no seed breaks it");
    println!("{}", wrong.lines().next().unwrap_or_default());
}

#[test]
fn three_servers_with_sound_clocks() {
    holds(3, World::Sound);
}
#[test]
fn five_servers_with_sound_clocks() {
    holds(5, World::Sound);
}
#[test]
fn three_servers_with_unsound_clocks() {
    holds(3, World::Unsound);
}
#[test]
fn five_servers_with_unsound_clocks() {
    holds(5, World::Unsound);
}
#[test]
fn servers_that_forget_and_stay_away_long_enough_do_no_harm() {
    holds(3, World::Restarts(AWAY));
}
#[test]
fn a_server_that_forgets_and_returns_at_once_breaks_exclusion() {
    breaks(World::Restarts(0), Broken::Nothing, "two hold at once");
}
#[test]
fn a_server_that_forgets_and_stays_away_for_a_ttl_only_breaks_the_fences() {
    breaks(World::Restarts(TTL + 2 * SKEW), Broken::Nothing, "fences out of order");
}
#[test]
fn a_deadline_counted_from_the_answer_breaks_exclusion() {
    breaks(World::Sound, Broken::DeadlineFromAnswer, "two hold at once");
}
#[test]
fn a_deadline_without_a_margin_for_drift_breaks_exclusion() {
    breaks(World::Sound, Broken::NoMargin, "two hold at once");
}
#[test]
fn a_server_that_forgets_its_counter_breaks_the_fences() {
    breaks(World::Unsound, Broken::Forgets, "fence");
}
#[test]
fn a_top_up_that_does_not_raise_the_counter_breaks_the_fences() {
    breaks(World::Unsound, Broken::TopUpKeeps, "fence");
}
#[test]
fn a_renewal_that_counts_interrupted_tenures_goes_on_over_another_hold() {
    breaks(World::Unsound, Broken::AnyTenureCounts, "a hold went on over another's");
}
