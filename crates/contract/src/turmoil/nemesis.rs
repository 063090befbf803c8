//! The one who troubles the fleet: by a seed, so that the same seed asks for the same faults.

use std::time::Duration;

use leasehold::{Moment, Property, clock};
use leasehold_core::backoff::Random;

use super::fleet::Fleet;
use super::log::Span;
use crate::actor::{key, sleep_until};
use crate::{Bench, Weather};

/// How many stay out of trouble.
const SPARED: usize = 2;

/// How many faults there were.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    rounds: u32,
    kills: u32,
    stops: u32,
    stops_past_the_ttl: u32,
    cuts: u32,
    weathers: u32,
    weathers_past_the_ttl: u32,
    freezes: u32,
}

pub(super) struct Nemesis<'a> {
    bench: &'a dyn Bench,
    fleet: Fleet<'a>,
    random: Random,
    patience: Duration,
    /// Whether a process that was stopped in a bad moment keeps all others out: an embedded store's
    /// may stand still within a transaction.
    embedded: bool,
    faults: Faults,
}

impl<'a> Nemesis<'a> {
    pub(super) fn new(
        bench: &'a dyn Bench,
        fleet: Fleet<'a>,
        seed: u64,
        patience: Duration,
    ) -> Self {
        let embedded = !bench.handle().guarantees().has(Property::Machines);
        let (random, faults) = (Random::new(seed), Faults::default());
        Self { bench, fleet, random, patience, embedded, faults }
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("small");
        usize::try_from(self.random.bits() % bound).expect("small")
    }

    fn some(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.random.fraction())
    }

    /// Some faults, one soon after the other.
    pub(super) async fn burst(&mut self, round: u32) {
        self.faults.rounds = round + 1;
        for _ in 0..4 + self.below(5) {
            let healthy = self.fleet.healthy();
            let troubled = self.fleet.troubled();
            if healthy.len() <= SPARED || (!troubled.is_empty() && self.below(4) == 0) {
                let at = troubled[self.below(troubled.len())];
                self.fleet.heal(at);
            } else {
                let at = self.victim();
                self.trouble(at).await;
            }
            let pause = self.some(self.fleet.ttl() / 4);
            // sleep: faults come at any time.
            tokio::time::sleep(pause).await;
        }
        for at in self.fleet.troubled() {
            if self.below(2) == 0 || !self.fleet.post(at).is_silent() {
                self.fleet.heal(at);
            }
        }
    }

    /// Mostly one that holds: who waits is hit often enough by chance. Also one that is slow: what it
    /// knows of its lease is old then.
    fn victim(&mut self) -> usize {
        let reaching = self.fleet.reaching();
        let holders: Vec<usize> =
            reaching.iter().copied().filter(|at| self.fleet.holds(*at)).collect();
        let among = if holders.is_empty() || self.below(4) == 0 { reaching } else { holders };
        among[self.below(among.len())]
    }

    async fn trouble(&mut self, at: usize) {
        let Some(wires) = self.fleet.post(at).link.as_ref().map(|link| link.wires()) else {
            return match self.below(5) {
                0 => self.freeze().await,
                1 | 2 => self.kill(at).await,
                _ => self.stop(at).await,
            };
        };
        match self.below(12) {
            0 => self.freeze().await,
            1..=3 => self.kill(at).await,
            4..=6 => self.stop(at).await,
            7 => {
                self.faults.cuts += 1;
                self.fleet.tell(Some(at), "cuts off");
                let link = self.fleet.post(at).link.as_ref().expect("a network");
                for wire in 0..wires {
                    link.cut(wire);
                }
            }
            _ => self.weather(at, wires),
        }
    }

    async fn kill(&mut self, at: usize) {
        self.faults.kills += 1;
        self.fleet.kill(at).await;
    }

    async fn stop(&mut self, at: usize) {
        self.faults.stops += 1;
        self.fleet.stop(at);
        if self.embedded {
            let store = self.bench.handle();
            let probe = key("probe");
            let open = tokio::time::timeout(self.fleet.ttl() / 2, store.inspect(&probe)).await;
            if !matches!(open, Ok(Ok(_))) {
                self.fleet.heal(at);
            }
        }
    }

    fn weather(&mut self, at: usize, wires: usize) {
        self.faults.weathers += 1;
        let weather = match self.below(6) {
            0 | 1 => Weather::Held,
            2 => Weather::Swallowed,
            3 => Weather::Mute,
            _ => Weather::Slow(self.some(self.fleet.ttl() / 3)),
        };
        let mut struck: Vec<usize> = (0..wires).filter(|_| self.below(2) == 0).collect();
        if struck.is_empty() {
            struck = (0..wires).collect();
        }
        self.fleet.set(at, &struck, weather);
        if weather == Weather::Held && self.below(3) == 0 {
            // What is on its way is lost, and the new connection meets silence.
            let link = self.fleet.post(at).link.as_ref().expect("a network");
            for wire in struck {
                link.cut(wire);
            }
        }
        self.fleet.post(at).silent = matches!(weather, Weather::Held | Weather::Swallowed);
    }

    /// The whole service stands still for a while.
    async fn freeze(&mut self) {
        let Some(server) = self.bench.server() else { return };
        self.faults.freezes += 1;
        self.fleet.tell(None, "freezes");
        server.freeze().await;
        let pause = self.some(self.fleet.ttl() * 5 / 4);
        // sleep: the subject.
        tokio::time::sleep(pause).await;
        server.thaw().await;
        self.fleet.tell(None, "thaws");
    }

    /// Lets those who are left go on, until all of them get on: who was killed, stopped or cut off
    /// while it held is waited for no longer than its TTL. Half the times the others stay in trouble
    /// for longer than that.
    pub(super) async fn calm(&mut self) {
        let from = clock::now();
        self.fleet.until_holds(from, self.patience + Duration::from_millis(500)).await;
        if self.below(2) == 0 {
            let lapse = self.bench.handle().guarantees().lapse_delay;
            let past: Moment = from + self.fleet.ttl() + lapse;
            sleep_until(past).await;
            for at in self.fleet.troubled() {
                let stopped = self.fleet.post(at).stopped;
                let count = if stopped {
                    &mut self.faults.stops_past_the_ttl
                } else {
                    &mut self.faults.weathers_past_the_ttl
                };
                *count += 1;
            }
        }
        self.fleet.was_calm(Span { from, to: clock::now() });
    }

    pub(super) fn end(self) -> (Faults, Fleet<'a>) {
        (self.faults, self.fleet)
    }
}
