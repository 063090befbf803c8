//! Seeded simulation of a quorum: virtual time, lost, late and repeated messages, clocks that drift.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use leasehold_core::ClaimId;
use leasehold_core::backoff::Random;
use leasehold_core::quorum::{Attempt, Beat, Renewal, Server, Step, Verdict, Vote, proposal};

const TTL: u64 = 1_000_000;
const DRIFT: u64 = 10_000; // parts in a million, of every clock
const JUMP: u64 = 5_000;
const MARGIN: u64 = 2 * TTL / 100 + JUMP + 1_000;
const BASE: u64 = 100_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum World {
    Sound,
    Unsound,
}

/// The rule that a test breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    DeadlineFromAnswer,
    Forgets,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ask {
    Acquire(u64),
    Raise(u64),
    Renew(u64),
    Release,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Answer {
    Acquired(Vote),
    Raised(u64, Vote),
    Beat(Beat),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Start(usize),
    Arrives(usize, usize, u64, ClaimId, Ask),
    Answered(usize, usize, u64, Answer),
    Times(usize, u64),
    Again(usize, u64),
    Shakes(usize),
}

struct Machine {
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
    coverage: u64,
    attempt: Option<Attempt>,
    hold: Option<(Renewal, usize)>,
}

#[derive(Debug, Clone)]
struct Grant {
    began: u64,
    granted: u64,
    end: u64,
    fence: u64,
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
        from + (TTL - MARGIN) * 1_000_000 / client.rate
    }
    fn leave(&mut self, client: usize) {
        self.all(client, Ask::Release);
        if let Some((_, grant)) = self.clients[client].hold.take() {
            self.grants[grant].end = self.grants[grant].end.min(self.now);
        }
        self.clients[client].attempt = None;
        self.clients[client].round += 1;
        let after = self.below(TTL);
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
                let began = self.clients[client].began;
                self.coverage.contended +=
                    u64::from(self.grants.iter().any(|other| other.end > began));
                self.grants.push(Grant { began, granted: self.now, end, fence: fence.get() });
                let renewal = Renewal::new(&attempt, fence);
                self.clients[client].coverage = fence.get();
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
        let (round, coverage) = (it.round, it.coverage);
        let proposed = if self.below(2) == 0 { 0 } else { proposal(BASE + now, coverage) };
        self.all(client, Ask::Acquire(proposed));
        self.at(TTL / 4, Event::Times(client, round));
    }
    fn serve(&mut self, server: usize, token: ClaimId, ask: Ask) -> Option<Answer> {
        let wall = self.wall(server);
        let clock = if self.broken == Broken::Forgets { 0 } else { wall };
        let machine = &mut self.machines[server];
        if machine.expires <= wall {
            machine.rule.expire();
        }
        let answer = match ask {
            Ask::Acquire(least) => Answer::Acquired(machine.rule.acquire(token, least, clock)),
            Ask::Raise(fence) => Answer::Raised(fence, machine.rule.raise(token, fence)),
            Ask::Renew(fence) => Answer::Beat(machine.rule.renew(token, fence, clock)),
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
                renewal.again();
                let fence = renewal.fence().get();
                let it = &mut self.clients[client];
                (it.rounds, it.round, it.sent) = (it.rounds - 1, it.round + 1, now);
                self.all(client, Ask::Renew(fence));
                self.rest(client);
            }
            Event::Times(..) | Event::Again(..) => {}
            Event::Shakes(server) => {
                if self.broken == Broken::Forgets {
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
            Answer::Beat(beat) => {
                let deadline = self.deadline(client);
                let Some((renewal, grant)) = &mut self.clients[client].hold else { return };
                renewal.told(server, beat);
                self.coverage.top_ups += u64::from(matches!(beat, Beat::ToppedUp(_)));
                match renewal.step() {
                    Verdict::Kept if self.now < self.grants[*grant].end => {
                        self.coverage.kept += 1;
                        self.grants[*grant].end = self.grants[*grant].end.max(deadline);
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
    for server in 0..servers {
        let rate = 1_000_000 - DRIFT + run.below(2 * DRIFT);
        let offset = BASE + run.below(20_000);
        run.machines.push(Machine { rule: Server::default(), expires: 0, rate, offset });
        let after = run.below(3 * TTL);
        run.at(after, Event::Shakes(server));
    }
    for client in 0..usize::try_from(2 + run.below(3)).expect("small") {
        let rate = 1_000_000 - DRIFT + run.below(2 * DRIFT);
        let token = ClaimId::from_random([0; 16]);
        run.clients.push(Client {
            rate,
            round: 0,
            token,
            sent: 0,
            began: 0,
            retried: false,
            rounds: 3,
            tries: 3,
            coverage: 0,
            attempt: None,
            hold: None,
        });
        let after = run.below(TTL);
        run.at(after, Event::Start(client));
    }
    while let Some(Reverse((now, _, event))) = run.events.pop() {
        run.now = now;
        run.happens(event);
    }
    for (index, a) in run.grants.iter().enumerate() {
        for b in &run.grants[index + 1..] {
            let wrong = if a.fence == b.fence {
                "the same fence twice"
            } else if a.granted < b.began && a.fence > b.fence {
                "fences out of order"
            } else if world == World::Sound && (b.granted < a.end || a.fence > b.fence) {
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
    let Coverage { grants, contended, raises, top_ups, kept, lost, early } = coverage;
    assert!([grants, contended, raises, top_ups, kept, lost].iter().all(|&n| n > 0));
    assert_eq!(early > 0, world == World::Unsound);
}

fn breaks(world: World, broken: Broken, how: &str) {
    let wrong =
        (0..300_000).find_map(|seed| run(seed, 3, world, broken, &mut Coverage::default()).err());
    let wrong = wrong.expect("no seed breaks it");
    println!("{}", wrong.lines().next().unwrap_or_default());
    assert!(wrong.contains(how), "{wrong}");
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
fn a_deadline_counted_from_the_answer_breaks_exclusion() {
    breaks(World::Sound, Broken::DeadlineFromAnswer, "two hold at once");
}
#[test]
fn a_server_that_forgets_its_counter_breaks_the_fences() {
    breaks(World::Unsound, Broken::Forgets, "fence");
}
