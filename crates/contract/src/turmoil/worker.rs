//! A worker of the fleet: it locks for as long as it is let, and writes down what it sees.

use std::io::BufRead;
use std::time::Duration;

use leasehold::{Client, Error, ErrorKind, Guard, Lock, Property, Result, clock};
use leasehold_core::backoff::Random;
use leasehold_core::line::Share;
use tokio_util::sync::CancellationToken;

use super::log::{Step, What};
use crate::worker::say;

/// How many locks one process asks for at a time.
const LANES: u8 = 2;
/// How many keys there are.
pub(super) const KEYS: usize = 3;
/// How often a holder looks.
const LOOK: Duration = Duration::from_millis(3);

/// The default, which the workers have.
pub(super) fn grace(ttl: Duration) -> Duration {
    ttl / 20
}

/// Locks until the standard input ends.
pub(crate) async fn toil(client: Client, seed: u64) -> Result<()> {
    let end = CancellationToken::new();
    let ended = end.clone();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {}
        ended.cancel();
    });
    let lanes = (0..LANES).map(|lane| {
        let mut random = Random::new(seed ^ (u64::from(lane) << 32));
        let (client, end) = (client.clone(), end.clone());
        async move {
            for turn in (u64::from(lane)..).step_by(LANES.into()) {
                if end.is_cancelled() {
                    break;
                }
                Turn { client: &client, number: turn, random: &mut random }.take().await?;
            }
            Ok::<(), Error>(())
        }
    });
    futures::future::try_join_all(lanes).await?;
    client.close().await
}

/// One turn.
struct Turn<'a> {
    client: &'a Client,
    number: u64,
    random: &'a mut Random,
}

impl Turn<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.bits() % bound
    }

    fn some(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.random.fraction())
    }

    /// Reads the clock first.
    fn note(&self, what: What) {
        self.note_at(clock::now(), what);
    }

    fn note_at(&self, at: leasehold::Moment, what: What) {
        say(&Step { turn: self.number, at, what }.to_string());
    }

    /// A lock of one of the three keys, and what it asks for.
    fn lock(&mut self) -> Result<(Lock, &'static str, Share)> {
        let counts = self.client.store().guarantees().has(Property::Counting);
        Ok(match self.below(3) {
            1 if counts => {
                let units = 1 + u32::try_from(self.below(2)).expect("small");
                let lock = self.client.semaphore("pool", 3)?.units(units)?;
                (lock, "pool", Share { units, limit: 3 })
            }
            2 if counts && self.below(3) > 0 => {
                (self.client.rwlock("book")?.reader().clone(), "book", Share::READER)
            }
            2 if counts => (self.client.rwlock("book")?.writer().clone(), "book", Share::WRITER),
            1 => (self.client.mutex("pool")?, "pool", Share::MUTEX),
            2 => (self.client.mutex("book")?, "book", Share::MUTEX),
            _ => (self.client.mutex("only")?, "only", Share::MUTEX),
        })
    }

    async fn take(mut self) -> Result<()> {
        let (lock, key, share) = self.lock()?;
        self.note(What::Want { share, key: key.to_owned() });
        let ttl = self.client.timing().ttl();
        let granted = match self.below(6) {
            0 => lock.try_lock().await,
            1 => match lock.lock_within(self.some(ttl / 2)).await {
                Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
                granted => granted.map(Some),
            },
            _ => match lock.lock().await {
                Ok(guard) => Ok(Some(guard)),
                Err(error) => {
                    self.note(What::Failed { why: format!("{error:?}") });
                    return Ok(());
                }
            },
        };
        match granted {
            Ok(Some(guard)) => self.hold(guard).await,
            Ok(None) => self.note(What::GaveUp),
            Err(error) if error.is_transient() => self.note(What::GaveUp),
            Err(error) => self.note(What::Failed { why: format!("{error:?}") }),
        }
        Ok(())
    }

    async fn hold(&mut self, guard: Guard) {
        let (at, deadline, fence) = (clock::now(), guard.deadline(), guard.fence());
        if guard.check().is_err() {
            self.note_at(at, What::Late { fence });
            return;
        }
        self.note_at(at, What::Held { fence, deadline });
        let ttl = self.client.timing().ttl();
        let end = at
            + match self.below(80) {
                0 => ttl + self.some(ttl / 2),
                1..=5 => self.some(ttl / 4),
                _ => self.some(LOOK * 3),
            };
        while clock::now() < end {
            // sleep: a hold takes time; that is the subject.
            tokio::time::sleep(LOOK).await;
            let (at, deadline) = (clock::now(), guard.deadline());
            if guard.check().is_err() {
                self.note_at(at, What::Lost);
                return;
            }
            self.note_at(at, What::Good { deadline });
        }
        self.note(What::Leaving);
        if self.below(4) == 0 {
            drop(guard);
            return;
        }
        let found = guard.release().await.ok();
        self.note(What::Left { found });
    }
}
