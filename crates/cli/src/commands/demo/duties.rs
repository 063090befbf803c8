//! The scenes of what is more than a lock: an office and a job.

use std::io;
use std::time::Duration;

use super::timeline::{Actor, Tone};
use super::worker::{Order, Report};
use super::{Stage, WORK, actor, millis, unexpected};

/// Where the nodes could be reached.
const ADDRESSES: [&str; 2] = ["10.0.0.1:8080", "10.0.0.2:8080"];
/// Where the first leader is to be reached after it moved.
const MOVED: &str = "10.0.0.1:9090";

impl Stage<'_> {
    /// One leads and the others know where; when it dies another is elected, in a later term.
    pub(super) fn election(&mut self) -> io::Result<()> {
        self.timeline.scene("An election: one leads, the others know its address")?;
        let term = self.campaign_alone(0)?;
        self.granted(0, term, "elected")?;
        self.asks_who_leads(1, ADDRESSES[0])?;
        let order = Order::Proclaim(MOVED.to_owned());
        self.request(0, &order, format!("proclaim {MOVED}"))?;
        self.asks_who_leads(1, MOVED)?;
        self.nodes[1].tell(&Order::Campaign(ADDRESSES[1].to_owned()))?;
        self.timeline.arrow(
            actor(1),
            Actor::Service,
            Tone::Refused,
            "campaign, behind the leader",
        )?;
        let killed = self.kill(0, "killed (SIGKILL) in office")?;
        let term = self.awaited(1)?;
        self.granted(1, term, &format!("elected after {:.0} ms", millis(killed)))?;
        self.restart(0)?;
        self.asks_who_leads(0, ADDRESSES[1])
    }

    /// Both are to do a job; the one that begins dies, the other does it, and nobody does it again.
    pub(super) fn job(&mut self) -> io::Result<()> {
        self.timeline
            .scene("A job is done once, though everybody starts it and one dies over it")?;
        let turn = self.turn(0, &Order::Begin)?;
        self.granted(0, turn, "its turn")?;
        self.begin_arrow(1)?;
        match self.nodes[1].ask(&Order::Begin)? {
            Report::Refused { holder, .. } => {
                let text = format!("{holder} does it");
                self.timeline.arrow(Actor::Service, actor(1), Tone::Refused, text)?;
            }
            other => return Err(unexpected(&other)),
        }
        self.nodes[1].tell(&Order::BeginOrWait)?;
        self.timeline.arrow(actor(1), Actor::Service, Tone::Refused, "wait until it is done")?;
        let killed = self.kill(0, "killed (SIGKILL) before it was done")?;
        let turn = self.awaited(1)?;
        self.granted(1, turn, &format!("its turn after {:.0} ms", millis(killed)))?;
        std::thread::sleep(WORK);
        self.request(1, &Order::Succeed, "done: write it down, under its fence".to_owned())?;
        self.restart(0)?;
        self.begin_arrow(0)?;
        match self.nodes[0].ask(&Order::Begin)? {
            Report::Ran { owner, took } => {
                let text = format!("{owner} did it, in {} ms", rounded(took));
                self.timeline.arrow(Actor::Service, actor(0), Tone::Good, text)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Leaves nothing of these scenes in the store.
    pub(super) fn clean_up(&mut self) -> io::Result<()> {
        match self.nodes[1].ask(&Order::CleanUp)? {
            Report::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn campaign_alone(&mut self, node: usize) -> io::Result<u64> {
        let text = format!("campaign, to lead at {}", ADDRESSES[node]);
        self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, text)?;
        self.turn(node, &Order::Campaign(ADDRESSES[node].to_owned()))
    }

    fn begin_arrow(&mut self, node: usize) -> io::Result<()> {
        let text = "begin the migration to v42";
        self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, text)
    }

    fn turn(&mut self, node: usize, order: &Order) -> io::Result<u64> {
        if *order == Order::Begin {
            self.begin_arrow(node)?;
        }
        self.nodes[node].tell(order)?;
        self.awaited(node)
    }

    fn request(&mut self, node: usize, order: &Order, text: String) -> io::Result<()> {
        match self.nodes[node].ask(order)? {
            Report::Done => self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, text),
            other => Err(unexpected(&other)),
        }
    }

    fn asks_who_leads(&mut self, node: usize, expected: &str) -> io::Result<()> {
        self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, "who leads?")?;
        match self.nodes[node].ask(&Order::WhoLeads)? {
            Report::Leads { address: Some(address) } if address == expected => {
                let text = format!("the leader is at {address}");
                self.timeline.arrow(Actor::Service, actor(node), Tone::Good, text)
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn rounded(span: Duration) -> u128 {
    span.as_millis()
}
