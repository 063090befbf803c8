//! Holds that outlive the process that took them: for scripts.

use std::num::NonZeroU32;
use std::time::Duration;

use leasehold_core::line::Share;
use leasehold_core::{Claim, ClaimId, Fence, Key, Left, Note, Renewed, SessionId};

use crate::client::Client;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Released;
use crate::session::Entry;

/// A hold without a guard: nobody renews it, it lives to its TTL, and whoever has its token can
/// renew, check and release it from any process.
#[derive(Debug, Clone)]
pub struct Grant {
    key: Key,
    fence: Option<Fence>,
    session: SessionId,
    claim: ClaimId,
    share: Share,
}

impl Grant {
    pub(crate) fn new(entry: &Entry, fence: Fence) -> Self {
        Self {
            key: entry.claim.key.clone(),
            fence: Some(fence),
            session: entry.session.clone(),
            claim: entry.claim.id,
            share: Share::from(&entry.claim),
        }
    }

    /// Reads a token that [`Grant::token`] made. The fence is not in it: see [`Client::check`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when it is not such a token.
    pub fn from_token(key: Key, token: &str) -> Result<Self> {
        let Some((session, claim, share)) = read(token) else {
            let detail = "it is not a token of a grant; pass the `token` of the grant as it is";
            return Err(Error::new(ErrorKind::Invalid, "read the token for", detail).about(&key));
        };
        Ok(Self { key, fence: None, session, claim, share })
    }

    /// What is held.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The fencing token, where the grant was just made.
    #[must_use]
    pub const fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// The text that gives power over the hold. Secret, like a password that lives as long as it.
    #[must_use]
    pub fn token(&self) -> String {
        let Share { units, limit } = self.share;
        let share = if limit > 1 { format!("-{units}of{limit}") } else { String::new() };
        format!("{}.{}{share}", self.session.as_str(), self.claim.to_hex())
    }

    fn claim(&self) -> Claim {
        let (key, note) = (self.key.clone(), Note::default());
        let [units, limit] = [self.share.units, self.share.limit]
            .map(|number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
        Claim::counting(self.claim, key.clone(), note.clone(), units, limit)
            .unwrap_or_else(|_| Claim::exclusive(self.claim, key, note))
    }
}

/// What [`Grant::token`] wrote.
fn read(token: &str) -> Option<(SessionId, ClaimId, Share)> {
    let (session, claim) = token.rsplit_once('.')?;
    // Of a mutex there is nothing to say.
    let (claim, share) = claim.split_once('-').unwrap_or((claim, "1of1"));
    let (units, limit) = share.split_once("of")?;
    let share = Share { units: units.parse().ok()?, limit: limit.parse().ok()? };
    let sound = !session.is_empty() && (1..=share.limit).contains(&share.units);
    sound.then_some((SessionId::new(session), ClaimId::from_hex(claim)?, share))
}

/// What is left of a detached hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its fencing token, where the store keeps it.
    pub fence: Option<Fence>,
    /// For how long the holder may still act: by the store's clock, less the drift margin and
    /// the time that the answer took.
    pub left: Duration,
}

/// Work on detached holds.
impl Client {
    /// Renews a detached hold for its TTL; whether it was still ours.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open whether the hold was renewed.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached, refuses, or does not answer within the client's TTL.
    pub async fn renew(&self, grant: &Grant) -> Result<bool> {
        let claim = grant.claim();
        let renewing = self.store().renew(&grant.session, std::slice::from_ref(&claim));
        let renewed = self.handle().answered("renew", renewing).await;
        Ok(match renewed.map_err(|error| error.about(&grant.key))? {
            Renewed::Extended { lost } => lost.is_empty(),
            Renewed::Ended => false,
        })
    }

    /// What is left of a detached hold; `None` if it is not ours any more.
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached, refuses, or does not answer within the client's TTL.
    pub async fn check(&self, grant: &Grant) -> Result<Option<Standing>> {
        let sent = clock::now();
        let inspecting = self.store().inspect(&grant.key);
        let line = self.handle().answered("check", inspecting).await;
        let line = line.map_err(|error| error.about(&grant.key))?;
        let ours = line.holders.into_iter().find(|holder| holder.claim == Some(grant.claim));
        let slack = clock::now().since(sent) + self.timing().drift();
        Ok(ours.map(|holder| Standing {
            fence: holder.fence,
            left: holder.left.unwrap_or_default().saturating_sub(slack),
        }))
    }

    /// Releases a detached hold, and says whether it was still ours.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open whether the hold was released; release it again.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached, refuses, or does not answer within the client's TTL.
    pub async fn release(&self, grant: &Grant) -> Result<Released> {
        let claim = grant.claim();
        let leaving = self.store().leave(&grant.session, &claim);
        let left = self.handle().answered("release", leaving).await;
        Ok(match left.map_err(|error| error.about(&grant.key))? {
            Left::Released => Released::Held,
            Left::Withdrawn | Left::Gone => Released::Lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_is_held_and_nothing_else_is_one() {
        let key = Key::new("k").unwrap();
        let hex = "000102030405060708090a7f80abfeff";
        for token in
            [&format!("s.1.{hex}"), &format!("s.{hex}-2of3"), &format!("s.{hex}-1of4294967295")]
        {
            let grant = Grant::from_token(key.clone(), token).unwrap();
            assert_eq!(grant.token(), *token);
        }
        for strange in [
            "",
            ".",
            hex,
            "s.",
            &format!(".{hex}"),
            &format!("s.{hex}-"),
            &format!("s.{hex}-4of3"),
            &format!("s.{hex}-0of3"),
            &format!("s.{hex}-1of"),
            &format!("s.{hex}-1of2-"),
            &format!("s.{hex}-1of99999999999"),
        ] {
            assert!(Grant::from_token(key.clone(), strange).is_err(), "{strange}");
        }
    }
}
