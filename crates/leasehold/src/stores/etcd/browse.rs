//! Who holds and who waits, for others to see.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use leasehold_core::line::holders;
use leasehold_core::{Key, Line, Party};

use super::layout::{self, Contender, LeaseId};
use super::procedure::{RANGE, TIME_TO_LIVE};
use super::proto::{By, LeaseRequest, RangeRequest};
use super::shared::Shared;
use super::txn;
use crate::error::{ErrorKind, Result};

/// How many keys one page of a listing has.
const KEYS: i64 = 1000;
/// How many leases are asked for at once.
const AT_ONCE: usize = 8;

const INSPECT: &str = "inspect";

impl Shared {
    /// The whole line of `key`, the oldest first.
    pub(super) async fn line(&self, attempt: &'static str, key: &Key) -> Result<Vec<Contender>> {
        let below = layout::below(key);
        let (mut line, mut after) = (Vec::new(), 0);
        loop {
            let page = self.wire.call(attempt, &RANGE, txn::page(&below, after, 0)).await;
            let page = page.map_err(|error| error.about(key))?.body;
            after = page.kvs.last().map_or(after, |kv| kv.create_revision);
            let more = page.more && !page.kvs.is_empty();
            line.extend(page.kvs.into_iter().filter_map(|kv| Contender::read(key, kv)));
            if !more {
                return Ok(line);
            }
        }
    }

    pub(super) async fn inspect(&self, key: &Key) -> Result<Line> {
        let line = self.line(INSPECT, key).await?;
        let left = self.times_left(&line).await.map_err(|error| error.about(key))?;
        let holding = holders(line.iter().map(Contender::share));
        let party = |contender: &Contender| Party {
            left: left.get(&contender.lease).copied().flatten(),
            ..contender.party()
        };
        let (held, waiting) = line.split_at(holding);
        Ok(Line {
            holders: held.iter().map(party).collect(),
            waiters: waiting.iter().map(party).collect(),
        })
    }

    /// What is left of the leases of a line; `None` for one that is gone.
    async fn times_left(&self, line: &[Contender]) -> Result<HashMap<LeaseId, Option<Duration>>> {
        let leases: BTreeSet<i64> = line.iter().map(|contender| contender.lease.0).collect();
        let asked = leases
            .into_iter()
            .map(|id| async move { Ok((LeaseId(id), self.time_left(LeaseId(id)).await?)) });
        stream::iter(asked).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// What is left of a lease, in whole seconds; `None` for one that is gone, and for none.
    pub(super) async fn time_left(&self, lease: LeaseId) -> Result<Option<Duration>> {
        if lease.0 == 0 {
            return Ok(None);
        }
        match self.wire.call(INSPECT, &TIME_TO_LIVE, LeaseRequest { id: lease.0 }).await {
            Ok(reply) => Ok(u64::try_from(reply.body.ttl).ok().map(Duration::from_secs)),
            Err(error) if error.kind() == ErrorKind::SessionEnded => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The keys that begin with `prefix` and have a claim of ours. Other data below the same names
    /// is passed over, but the server has to list it.
    pub(super) async fn keys(&self, prefix: &str) -> Result<Vec<Key>> {
        let (mut first, end) = layout::beginning_with(prefix);
        let mut keys = BTreeSet::new();
        loop {
            let request = RangeRequest {
                key: first.clone(),
                range_end: end.clone(),
                limit: KEYS,
                by: By::Key.into(),
                keys_only: true,
                ..RangeRequest::default()
            };
            let page = self.wire.call("list the keys", &RANGE, request).await?.body;
            let named = page.kvs.iter().filter_map(|kv| layout::read_claim_key(&kv.key));
            keys.extend(named.map(|(key, _)| key).filter(|key| key.as_str().starts_with(prefix)));
            match page.kvs.into_iter().last() {
                Some(last) if page.more => {
                    first = last.key;
                    first.push(0);
                }
                _ => return Ok(keys.into_iter().collect()),
            }
        }
    }
}
