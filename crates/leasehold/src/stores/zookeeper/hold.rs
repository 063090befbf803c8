//! What can be done with a hold besides ending it: changing it in place, and proving it.

use leasehold_core::Claim;

use super::label;
use super::ledger::Seat;
use super::names::Contender;
use super::session::{LOOKS, Outcome, Session, line_path, name_of, read_fresh};
use super::wire::{Code, Failure, Request};
use crate::error::ErrorKind;

impl Session {
    /// See [`Store::amend`](crate::Store::amend).
    ///
    /// A name cannot change, so what is fewer than it says stands in the node's data, where those
    /// who wait for it look. Whoever does not, waits for longer than he has to, and never less.
    pub(super) async fn amend(&self, claim: &Claim) -> Outcome<bool> {
        let Some(path) = self.hold(claim).await? else { return Ok(false) };
        let named = Contender::parse(name_of(&path)).map_or(1, |named| named.share.units);
        for _ in 0..LOOKS {
            let Some((data, stat)) = read_fresh(&self.link, &path).await? else {
                return Ok(false);
            };
            let amended = label::amended(&data, &claim.note, named, claim.units());
            if amended == data {
                return Ok(true);
            }
            let version = stat.version;
            let set = Request::Set { path: path.clone(), data: amended, version };
            match self.link.ask(set).await {
                Ok(_) => return Ok(true),
                Err(failure) if failure.is(Code::NO_NODE) => return Ok(false),
                Err(failure) if failure.is(Code::BAD_VERSION) => {}
                Err(failure) => return Err(failure),
            }
        }
        let detail = "others change the hold faster than it can be amended; try again".to_owned();
        Err(Failure::Unsent { kind: ErrorKind::Unavailable, detail, source: None })
    }

    /// The node of a claim that holds, which it does until that is gone; `None` if it does not.
    pub(super) async fn hold(&self, claim: &Claim) -> Outcome<Option<String>> {
        let parent = format!("{}/", line_path(&self.config, claim));
        if let Some(Seat::Known { node, holds: true }) = self.ledger.seat(claim.id)
            && node.path.strip_prefix(&parent).is_some_and(|name| !name.contains('/'))
        {
            return Ok(Some(node.path));
        }
        // Its turn may have come without anybody having asked.
        let Some((node, standing)) = self.find(claim).await? else { return Ok(None) };
        let held = self.stands(claim, &node, standing).await?;
        if held {
            self.ledger.holds(claim.id);
        }
        Ok(held.then_some(node.path))
    }
}
