//! The scenes of the lock.

use std::io::{self, Error};
use std::time::Instant;

use leasehold::Fence;
use rustix::process::Signal;

use super::timeline::{Actor, Tone};
use super::worker::{Order, Report};
use super::{Stage, TTL, WORK, actor, millis, unexpected};

impl Stage<'_> {
    /// The lock in four scenes.
    pub(super) fn lock_scenes(&mut self) -> io::Result<()> {
        let (winner, fence) = self.contention()?;
        self.hand_over(winner, fence)?;
        let (survivor, fence) = self.crash(1 - winner)?;
        self.pause(survivor, fence)
    }

    /// Both ask at the same moment: one is granted, the other refused. Returns the winner.
    fn contention(&mut self) -> io::Result<(usize, u64)> {
        self.timeline.scene("Two nodes ask for the same key at the same moment: one is granted")?;
        for node in 0..2 {
            self.nodes[node].tell(&Order::Try)?;
            let text = format!("lock {:?} for {TTL:?}", self.keys.lock);
            self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, text)?;
        }
        let mut won = None;
        let mut refused = None;
        for node in 0..2 {
            match self.nodes[node].report()? {
                Report::Granted { fence } => won = Some((node, fence)),
                Report::Refused { holder, left } => refused = Some((node, holder, left)),
                other => return Err(unexpected(&other)),
            }
        }
        let (Some((winner, fence)), Some((loser, holder, left))) = (won, refused) else {
            return Err(Error::other("of two nodes one should be granted a free lock"));
        };
        self.granted(winner, fence, "granted")?;
        let left = left.map_or(String::new(), |left| format!(", {} ms left", left.as_millis()));
        let text = format!("denied: held by {holder}{left}");
        self.timeline.arrow(Actor::Service, actor(loser), Tone::Refused, text)?;
        Ok((winner, fence))
    }

    /// The loser waits; the winner works and releases; the loser is woken. Leaves the lock free.
    fn hand_over(&mut self, winner: usize, fence: u64) -> io::Result<()> {
        let waiter = 1 - winner;
        self.timeline.scene("The other waits its turn and is woken by the release")?;
        self.wait(waiter)?;
        self.write(winner, fence)?;
        self.release(winner)?;
        let released = Instant::now();
        let fence = self.awaited(waiter)?;
        let text = format!("woken and granted after {:.1} ms", millis(released));
        self.granted(waiter, fence, &text)?;
        self.write(waiter, fence)?;
        self.release(waiter)
    }

    /// The holder is killed; the lock frees itself. Returns the next holder.
    fn crash(&mut self, victim: usize) -> io::Result<(usize, u64)> {
        let waiter = 1 - victim;
        self.timeline.scene("A holder crashes: its lock frees itself")?;
        let fence = self.lock(victim)?;
        self.granted(victim, fence, "granted")?;
        self.wait(waiter)?;
        let killed = self.kill(victim, "killed (SIGKILL) in its critical section")?;
        let fence = self.awaited(waiter)?;
        let text = format!("freed and granted after {:.0} ms", millis(killed));
        self.granted(waiter, fence, &text)?;
        self.write(waiter, fence)?;
        self.restart(victim)?;
        Ok((waiter, fence))
    }

    /// The holder is paused past its lease and writes late: the resource refuses its old fence.
    fn pause(&mut self, sleeper: usize, old: u64) -> io::Result<()> {
        let waiter = 1 - sleeper;
        self.timeline
            .scene("A holder is paused past its lease: the fence protects the resource")?;
        self.wait(waiter)?;
        self.signal(sleeper, Signal::STOP)?;
        let stopped = Instant::now();
        self.timeline.remark(actor(sleeper), Tone::Bad, "paused (SIGSTOP), renews no more")?;
        let fence = self.awaited(waiter)?;
        let text = format!("lapsed and granted after {:.1} s", stopped.elapsed().as_secs_f64());
        self.granted(waiter, fence, &text)?;
        self.write(waiter, fence)?;
        self.signal(sleeper, Signal::CONT)?;
        self.timeline.remark(actor(sleeper), Tone::Plain, "wakes and knows nothing of it")?;
        // A node that asked its guard first would stop here; this one writes all the same.
        let good = self.nodes[sleeper].ask(&Order::Check)? == (Report::Checked { good: true });
        self.write(sleeper, old)?;
        let text = if good { "check(): still held" } else { "check(): lost, as its guard says" };
        self.timeline.remark(actor(sleeper), Tone::Plain, text)?;
        self.release(waiter)
    }

    fn lock(&mut self, node: usize) -> io::Result<u64> {
        self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, "lock")?;
        match self.nodes[node].ask(&Order::Lock)? {
            Report::Granted { fence } => Ok(fence),
            other => Err(unexpected(&other)),
        }
    }

    /// Refused first, so that everyone sees who holds; then in line.
    fn wait(&mut self, node: usize) -> io::Result<()> {
        let Report::Refused { holder, .. } = self.nodes[node].ask(&Order::Try)? else {
            return Err(Error::other("a held lock was granted again"));
        };
        self.nodes[node].tell(&Order::Lock)?;
        let text = format!("wait in line behind {holder}");
        self.timeline.arrow(actor(node), Actor::Service, Tone::Refused, text)
    }

    fn write(&mut self, node: usize, fence: u64) -> io::Result<()> {
        std::thread::sleep(WORK);
        let text = format!("write under fence {fence}");
        self.timeline.arrow(actor(node), Actor::Resource, Tone::Plain, text)?;
        let Err(stale) = self.resource.write(Fence::new(fence)) else {
            return self.timeline.arrow(Actor::Resource, actor(node), Tone::Good, "accepted");
        };
        let text = format!("refused: stale, has seen fence {}", stale.greatest);
        self.timeline.arrow(Actor::Resource, actor(node), Tone::Bad, text)
    }

    fn release(&mut self, node: usize) -> io::Result<()> {
        self.timeline.arrow(
            actor(node),
            Actor::Service,
            Tone::Plain,
            "release, if it is still mine",
        )?;
        match self.nodes[node].ask(&Order::Release)? {
            Report::Released { ours: true } => Ok(()),
            Report::Released { ours: false } => {
                self.timeline.arrow(Actor::Service, actor(node), Tone::Refused, "it was not yours")
            }
            other => Err(unexpected(&other)),
        }
    }
}
