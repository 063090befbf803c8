//! Many keys at once: all or nothing, without a deadlock.

use futures::future::join_all;
use leasehold_core::Enter;

use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::lock::{Lock, Together};

/// Locks all of `locks`; the guards come in the order in which the locks were named.
///
/// In one step if they are free. Else one by one in the order of their keys: whoever waits for several
/// keys goes through them in that order, so nobody waits in a circle.
pub(crate) async fn lock_all(locks: &[Lock]) -> Result<Vec<Guard>> {
    let order = in_order(locks)?;
    match Lock::attempt_together(locks).await {
        Ok(Together::Held(guards)) => return Ok(guards),
        // A wait outlasts that, and tells of it.
        Err(error) if !error.is_transient() => return Err(error),
        Ok(Together::Refused | Together::Apart) | Err(_) => {}
    }
    let all = one_by_one(locks, order, Enter::Wait).await?;
    all.ok_or_else(|| Error::new(ErrorKind::Unsupported, "lock all", "a wait ended in a refusal"))
}

/// Locks all of `locks` if all are free; `None`, and nothing is held, if one is not.
///
/// Where it takes several steps these go in the order of the keys, too: of those who try the same free
/// keys at once, whoever gets the first of them gets all.
pub(crate) async fn try_lock_all(locks: &[Lock]) -> Result<Option<Vec<Guard>>> {
    let order = in_order(locks)?;
    match Lock::attempt_together(locks).await? {
        Together::Held(guards) => Ok(Some(guards)),
        Together::Refused => Ok(None),
        Together::Apart => one_by_one(locks, order, Enter::Try).await,
    }
}

/// Locks one after the other. `None`, and nothing is held, once one is not to be had.
async fn one_by_one(locks: &[Lock], order: Vec<usize>, enter: Enter) -> Result<Option<Vec<Guard>>> {
    let mut held = Vec::with_capacity(locks.len());
    for at in order {
        let taken = match enter {
            Enter::Wait => locks[at].lock().await.map(Some),
            Enter::Try => locks[at].try_lock().await,
        };
        match taken {
            Ok(Some(guard)) => held.push((at, guard)),
            given_up => {
                // Before the caller goes on: what is given back later is in the way of others. What
                // cannot be released now is released in the background.
                join_all(held.into_iter().map(|(_, guard)| guard.release())).await;
                return given_up.map(|_| None);
            }
        }
    }
    // Those that were locked first have waited for the others.
    for (_, guard) in &held {
        guard.check()?;
    }
    held.sort_unstable_by_key(|(at, _)| *at);
    Ok(Some(held.into_iter().map(|(_, guard)| guard).collect()))
}

/// The places of the locks in the order of their keys: that of their bytes, the same everywhere.
fn in_order(locks: &[Lock]) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..locks.len()).collect();
    order.sort_by(|a, b| locks[*a].key().cmp(locks[*b].key()));
    match order.windows(2).find(|pair| locks[pair[0]].key() == locks[pair[1]].key()) {
        None => Ok(order),
        Some(pair) => {
            let detail = "it is named twice, and the second would wait for the first";
            Err(Error::new(ErrorKind::Invalid, "lock all", detail).about(locks[pair[0]].key()))
        }
    }
}
