//! A fleet of processes that take permits in batches from one store, in virtual time: demand comes
//! in bursts, processes are paused, answers are late or lost, clocks disagree. In no time does the
//! fleet spend more than its rate, its burst and the stated overshoot allow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use leasehold_core::backoff::Random;
use leasehold_core::rate::{Batch, Meter, Now, Parts};
use leasehold_core::{Moment, Quota};

const PROCESSES: usize = 8;
const HOUR: u64 = 3_600 * SECOND;
const SECOND: u64 = 1_000 * MILLI;
const MILLI: u64 = 1_000_000;

/// How the world treats the fleet.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// The longest time that one way to or from the store takes; an exchange has four.
    way: u64,
    /// An answer that took longer than this is not waited for.
    patience: u64,
    /// One in so many replies to a write is lost; 0 for none.
    lost: u64,
    /// One in so many calls is followed by a pause of the process, of up to ten seconds; 0 for none.
    paused: u64,
    /// The clocks of the processes differ by up to this, and the store has none; 0: it has one.
    apart: u64,
    /// All processes call at the same times, in short and in long rushes, and not in between: what
    /// one has taken ahead when a rush ends, it would like to spend in the next.
    tides: bool,
}

const CALM: Weather =
    Weather { way: MILLI, patience: SECOND, lost: 0, paused: 0, apart: 0, tides: false };

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    Read,
    Write,
    Answer { lost: bool },
}

/// One process. Its clocks: a moment counts from when it booted, the time since 1970 is its own.
struct Process {
    batch: Batch,
    booted: u64,
    clock: u64,
    paused_until: u64,
    /// Until when it calls as often as it can.
    rush_until: u64,
    exchange: Option<Exchange>,
}

struct Exchange {
    permits: u32,
    began: Moment,
    version: u64,
    meter: Meter,
    taken: u32,
}

struct World {
    quota: Quota,
    weather: Weather,
    random: Random,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize, Event)>>,
    count: u64,
    processes: Vec<Process>,
    /// The record, its version and when it is forgotten.
    record: Option<(Parts, u64)>,
    version: u64,
    spent: u64,
    writes: u64,
    /// Leaky bucket over all spending: the most that was spent in any time beyond the rate.
    level: u128,
    leaked: u64,
    most: u128,
}

impl World {
    fn new(quota: Quota, weather: Weather, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let processes = (0..PROCESSES)
            .map(|_| Process {
                batch: Batch::new(quota),
                booted: random.bits() % HOUR,
                clock: 10 * HOUR + random.bits() % (weather.apart + 1),
                paused_until: 0,
                rush_until: 0,
                exchange: None,
            })
            .collect();
        let mut world = Self {
            quota,
            weather,
            random,
            now: 0,
            events: BinaryHeap::new(),
            count: 0,
            processes,
            record: None,
            version: 0,
            spent: 0,
            writes: 0,
            level: 0,
            leaked: 0,
            most: 0,
        };
        for process in 0..PROCESSES {
            world.later(0, process, Event::Call);
        }
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.bits() % bound.max(1)
    }

    fn one_in(&mut self, many: u64) -> bool {
        many > 0 && self.below(many) == 0
    }

    fn later(&mut self, after: u64, process: usize, event: Event) {
        self.count += 1;
        self.events.push(Reverse((self.now + after, self.count, process, event)));
    }

    fn moment(&self, process: usize) -> Moment {
        Moment::from_nanos(self.now + self.processes[process].booted)
    }

    fn run(&mut self, until: u64) {
        while let Some(Reverse((at, _, process, event))) = self.events.pop() {
            if at > until {
                return;
            }
            self.now = at;
            // A paused process does nothing; the store goes on.
            let resumes = self.processes[process].paused_until;
            if matches!(event, Event::Call | Event::Answer { .. }) && resumes > at {
                self.later(resumes - at, process, event);
                continue;
            }
            match event {
                Event::Call => self.call(process),
                Event::Read => self.read(process),
                Event::Write => self.write(process),
                Event::Answer { lost } => self.answer(process, lost),
            }
        }
    }

    fn call(&mut self, process: usize) {
        let now = self.moment(process);
        let permits =
            if self.one_in(20) { 1 + u32::try_from(self.below(5)).expect("small") } else { 1 };
        let busy = self.processes[process].exchange.is_some();
        let batch = &mut self.processes[process].batch;
        batch.hear(now, permits);
        if batch.spend(now, permits).is_some() {
            self.spend(permits);
        } else if !busy && batch.refuse(now, permits, 0).is_none() {
            self.begin(process, permits);
        }
        if self.one_in(self.weather.paused) {
            self.processes[process].paused_until = self.now + self.below(10 * SECOND);
        }
        let pause = if self.weather.tides { self.until_the_tide() } else { self.pause(process) };
        let pause = pause + 1;
        self.later(pause, process, Event::Call);
    }

    /// A rush of 50 ms, after which permits are left over; 600 ms, in which the burst comes back; a
    /// rush of two seconds, in which all that can be spent is.
    fn until_the_tide(&mut self) -> u64 {
        let within = self.now % (4 * SECOND);
        let silence = match within / MILLI {
            0..50 | 650..2_650 => 0,
            50..650 => 650 * MILLI - within,
            _ => 4 * SECOND - within,
        };
        silence + self.below(2 * MILLI)
    }

    fn pause(&mut self, process: usize) -> u64 {
        let rushing = self.processes[process].rush_until > self.now;
        if !rushing && self.one_in(30) {
            self.processes[process].rush_until = self.now + self.below(4 * SECOND);
        }
        self.below(if rushing { 2 * MILLI } else { 400 * MILLI })
    }

    fn begin(&mut self, process: usize, permits: u32) {
        let (began, meter) = (self.moment(process), Meter::new(self.quota, 0));
        let exchange = Exchange { permits, began, version: 0, meter, taken: 0 };
        self.processes[process].exchange = Some(exchange);
        let way = self.below(self.weather.way);
        self.later(way, process, Event::Read);
    }

    fn read(&mut self, process: usize) {
        let forgotten = self.record.as_ref().is_some_and(|(_, until)| *until <= self.now);
        if forgotten {
            self.record = None;
            self.version += 1;
        }
        let written = self.record.and_then(|(parts, _)| Meter::from_parts(parts));
        // By the time that the process gets to see it.
        let arrives = self.now + self.below(self.weather.way);
        let seen = Moment::from_nanos(arrives + self.processes[process].booted);
        let now = if self.weather.apart == 0 {
            Now::Store(Duration::from_nanos(9 * HOUR + self.now))
        } else {
            Now::Own(Duration::from_nanos(self.processes[process].clock + arrives))
        };
        let (mut meter, _) = Meter::opened(self.quota, written, now);
        let version = self.version;
        let Process { batch, exchange, .. } = &mut self.processes[process];
        let Some(exchange) = exchange else { return };
        let stock = batch.stock(seen);
        let available = meter.available();
        let needed = exchange.permits.saturating_sub(stock);
        exchange.taken =
            if needed > available { 0 } else { needed + batch.ahead(seen, available - needed) };
        meter.take(exchange.taken);
        (exchange.version, exchange.meter) = (version, meter);
        let way = arrives - self.now + self.below(self.weather.way);
        self.later(way, process, Event::Write);
    }

    fn write(&mut self, process: usize) {
        let way = self.below(self.weather.way);
        let Some(exchange) = &self.processes[process].exchange else { return };
        if exchange.taken == 0 {
            return self.later(way, process, Event::Answer { lost: false });
        }
        if exchange.version != self.version {
            let permits = exchange.permits;
            return self.begin(process, permits);
        }
        let keep = u64::try_from(exchange.meter.keep().as_nanos()).expect("fits");
        self.record = Some((exchange.meter.parts(), self.now + keep));
        self.version += 1;
        self.writes += 1;
        let lost = self.one_in(self.weather.lost);
        self.later(way, process, Event::Answer { lost });
    }

    fn answer(&mut self, process: usize, lost: bool) {
        let now = self.moment(process);
        let Some(exchange) = self.processes[process].exchange.take() else { return };
        let late = now.since(exchange.began) > Duration::from_nanos(self.weather.patience);
        if lost || late {
            return;
        }
        let batch = &mut self.processes[process].batch;
        let pool = batch.arrive(now, exchange.began, exchange.meter, exchange.taken);
        let left = pool.checked_sub(exchange.permits);
        batch.keep(exchange.began, left.unwrap_or(pool), exchange.taken);
        if left.is_some() {
            self.spend(exchange.permits);
        }
    }

    fn spend(&mut self, permits: u32) {
        let rate = self.quota.rate();
        let given = u128::from(self.now - self.leaked) * u128::from(rate.permits());
        self.leaked = self.now;
        self.level =
            self.level.saturating_sub(given) + u128::from(permits) * rate.period().as_nanos();
        self.most = self.most.max(self.level);
        self.spent += u64::from(permits);
    }
}

fn quota(rate: &str, burst: u32) -> Quota {
    Quota::new(rate.parse().expect("a rate"), burst).expect("a quota")
}

/// Runs an hour; how many permits were spent.
fn an_hour(quota: Quota, weather: Weather, seed: u64) -> u64 {
    let mut world = World::new(quota, weather, seed);
    world.run(HOUR);
    let slowest = Duration::from_nanos((4 * weather.way).min(weather.patience));
    // A pause between the answer and the look at the clock counts as a slow answer.
    let slowest = if weather.paused > 0 { Duration::from_nanos(weather.patience) } else { slowest };
    let overshoot = quota.overshoot(slowest, Duration::from_nanos(weather.apart));
    let most = u64::try_from(world.most.div_ceil(quota.rate().period().as_nanos())).expect("fits");
    let bound = u64::from(quota.burst()) + overshoot;
    assert!(
        most <= bound,
        "{quota:?}, {weather:?}, seed {seed}: {most} above the rate, not {bound}"
    );
    assert!(world.writes > 100, "the fleet is alive: {}", world.writes);
    world.spent
}

#[test]
fn eight_processes_for_an_hour_in_all_weathers() {
    let weathers = [
        CALM,
        Weather { paused: 200, ..CALM },
        Weather { way: 25 * MILLI, ..CALM },
        Weather { way: 25 * MILLI, lost: 10, ..CALM },
        Weather { way: 400 * MILLI, lost: 20, paused: 500, ..CALM },
        Weather { way: 5 * MILLI, apart: 300 * MILLI, ..CALM },
        Weather { way: 5 * MILLI, apart: 3 * SECOND, lost: 50, paused: 500, ..CALM },
    ];
    let quotas = [("300/s", 50), ("1000/s", 1_000), ("40/s", 400), ("5/s", 2), ("2000/min", 90)];
    for (number, weather) in weathers.into_iter().enumerate() {
        let (rate, burst) = quotas[number % quotas.len()];
        an_hour(quota(rate, burst), weather, 1 + number as u64);
    }
}

#[test]
fn what_was_taken_ahead_is_not_hoarded_for_the_next_rush() {
    for (rate, burst) in [("1000/s", 500), ("300/s", 180)] {
        an_hour(quota(rate, burst), Weather { tides: true, ..CALM }, 11);
    }
}

#[test]
fn a_fleet_that_wants_more_than_its_rate_gets_nearly_all_of_it() {
    for (rate, burst, permits) in [("100/s", 100, 100), ("20/s", 20, 20), ("600/min", 10, 10)] {
        let spent = an_hour(quota(rate, burst), CALM, 7);
        let given = 3_600 * permits;
        assert!(spent * 10 >= given * 7, "{rate}: {spent} of {given}");
    }
}

#[test]
fn the_overshoot_is_no_more_than_it_must_be() {
    // Permits are spent late, so that more than the burst comes together: a bound without the
    // overshoot would be a lie.
    let quota = quota("1000/s", 100);
    let mut world = World::new(quota, Weather { way: 10 * MILLI, ..CALM }, 3);
    world.run(HOUR / 4);
    let most = world.most.div_ceil(quota.rate().period().as_nanos());
    assert!(most > 101, "{most}");
}
