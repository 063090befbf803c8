//! Many keys at once: all or nothing, without a deadlock.

use futures::future::join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::lock::Lock;

/// Locks all of `locks`; the guards come in the order in which the locks were named.
///
/// All are tried at once first, which takes the time of one round trip. If one is not free the others
/// are given back, and all are locked one by one in the order of their keys: whoever locks several
/// keys goes through them in that order, so nobody waits in a circle.
pub(crate) async fn lock_all(locks: Vec<Lock>) -> Result<Vec<Guard>> {
    let order = in_order(&locks)?;
    if let Some(guards) = try_lock_all(&locks).await? {
        return Ok(guards);
    }
    let mut held = Vec::with_capacity(locks.len());
    for at in order {
        held.push((at, locks[at].lock().await?));
    }
    // Those that were locked first have waited for the others.
    for (_, guard) in &held {
        guard.check()?;
    }
    held.sort_unstable_by_key(|(at, _)| *at);
    Ok(held.into_iter().map(|(_, guard)| guard).collect())
}

/// Locks all of `locks` if all are free; `None`, and nothing is held, if one is not.
pub(crate) async fn try_lock_all(locks: &[Lock]) -> Result<Option<Vec<Guard>>> {
    in_order(locks)?;
    let (mut guards, mut failed) = (Vec::with_capacity(locks.len()), None);
    for attempt in join_all(locks.iter().map(Lock::try_lock)).await {
        match attempt {
            Ok(guard) => guards.extend(guard),
            Err(error) => failed = Some(error),
        }
    }
    if guards.len() == locks.len() {
        // Those that were granted first have waited for the answers about the others.
        for guard in &guards {
            guard.check()?;
        }
        return Ok(Some(guards));
    }
    // Before anything is waited for: what is given back later would keep others from what is free.
    // What cannot be released now is released in the background.
    join_all(guards.into_iter().map(Guard::release)).await;
    failed.map_or(Ok(None), Err)
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
