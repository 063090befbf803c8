//! Whether a claim holds, and whether it may stand in line at all: what names say, and where that
//! is not enough, data.

use std::collections::HashSet;

use futures::future::{FutureExt as _, join_all};
use leasehold_core::line;
use leasehold_core::{Claim, ClaimId, Enter};

use super::label;
use super::ledger::{Node, Seat};
use super::line::Standing;
use super::session::{Outcome, Session, line_path, name_of, read_node};
use super::wire::{Answer, Code, Failure, Request};

impl Session {
    /// Whether the claim with this node holds, in a line that was just read.
    pub(super) async fn stands(
        &self,
        claim: &Claim,
        node: &Node,
        mut standing: Standing,
    ) -> Outcome<bool> {
        match standing.position(name_of(&node.path)) {
            Some(position) => self.judge(claim, &mut standing, position, Enter::Try).await,
            None => Ok(false),
        }
    }

    /// Whether the claim at `position` holds. Names tell that, unless they tell of units that their
    /// claims no longer have: those in the way are asked, and who waits watches them at once.
    ///
    /// What is read is of different moments, and never too little: nobody comes ahead of a claim,
    /// and nobody's units become more.
    pub(super) async fn judge(
        &self,
        claim: &Claim,
        standing: &mut Standing,
        position: usize,
        enter: Enter,
    ) -> Outcome<bool> {
        let parent = line_path(&self.config, claim);
        let mut asked = HashSet::new();
        // However few units the others have, nobody is beside an exclusive claim.
        while !standing.holds(position) && !claim.is_exclusive() {
            let obstacles = standing.obstacles_at(position);
            let unknown: Vec<usize> = obstacles
                .filter(|at| standing.contenders[*at].may_be_amended() && asked.insert(*at))
                .collect();
            if unknown.is_empty() {
                break;
            }
            let asking = unknown.iter().map(|at| {
                let path = format!("{parent}/{}", standing.contenders[*at].name);
                self.units(claim.id, path, enter)
            });
            let mut units = Vec::new();
            for (at, answer) in unknown.iter().zip(join_all(asking).await) {
                units.push((*at, answer?));
            }
            standing.amend(units);
        }
        Ok(standing.holds(position))
    }

    /// How many units a node claims at most; none if it is gone. Who waits watches it.
    fn units(
        &self,
        claim: ClaimId,
        path: String,
        enter: Enter,
    ) -> impl Future<Output = Outcome<u32>> + use<> {
        let known = self.ledger.units(&path, claim);
        let asked = known.is_none().then(|| {
            let watched = enter == Enter::Wait && self.ledger.watch(&path, claim);
            if watched {
                self.watch(claim, path).left_future()
            } else {
                let asked = self.link.ask(Request::Data { path, watch: false });
                async move { units_in(asked.await) }.right_future()
            }
        });
        async move {
            match asked {
                Some(asked) => Ok(asked.await?.unwrap_or_default()),
                None => Ok(known.unwrap_or(u32::MAX)),
            }
        }
    }

    /// The limit of the line, where a claim that would be new at `position` does not share it: that
    /// of the first claim of leasehold. Whoever disagrees with that one is on its way out again
    /// itself, and the nodes of others have no limit to disagree with.
    pub(super) async fn disagreement(
        &self,
        claim: &Claim,
        standing: &Standing,
        position: usize,
    ) -> Outcome<Option<u32>> {
        let ahead = &standing.contenders[..position];
        let holds = matches!(self.ledger.seat(claim.id), Some(Seat::Known { holds: true, .. }));
        let named = line::disagreement(ahead.iter().map(|one| one.share), claim.limit());
        if holds || named.is_none() {
            return Ok(None);
        }
        for one in ahead.iter().filter(|one| one.claim.is_some()) {
            // A mutex has the name of Curator's or kazoo's; its data tell them apart.
            let ours = one.share.limit > 1 || {
                let path = format!("{}/{}", line_path(&self.config, claim), one.name);
                match read_node(&self.link, path).await {
                    Ok(node) => node.is_some_and(|(data, _)| label::is_ours(&data)),
                    Err(failure) if failure.is(Code::NO_AUTH) => false,
                    Err(failure) => return Err(failure),
                }
            };
            if ours {
                return Ok(line::disagreement([one.share], claim.limit()));
            }
        }
        Ok(None)
    }
}

/// How many units the node claims at most whose data were asked for; `None` if there is none.
pub(super) fn units_in(answer: Outcome<Answer>) -> Outcome<Option<u32>> {
    match answer {
        Ok(Answer::Data { data, .. }) => Ok(Some(label::units(&data))),
        Ok(_) => Err(Failure::Cut),
        Err(failure) if failure.is(Code::NO_NODE) => Ok(None),
        Err(failure) => Err(failure),
    }
}
