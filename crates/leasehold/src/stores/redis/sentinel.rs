//! Which server is the primary, in the sentinels' eyes.
//!
//! All sentinels are asked at once. Each says since which of its *configuration epochs* it thinks so; a
//! failover takes the votes of a majority of sentinels and the next epoch, so the answer of the
//! highest epoch is the newest, and a sentinel that was away is not believed.
//! <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#configuration-epochs>

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use leasehold_core::backoff::Backoff;
use leasehold_core::quorum::majority;
use tokio::sync::Notify;

use super::config::{Address, Config, Sentinels};
use super::failure::Failure;
use super::wire::{Partner, Wire};
use crate::error::ErrorKind;
use crate::random;

/// The channel on which a sentinel tells that another server became the primary.
const SWITCHED: &str = "+switch-master";

/// How often the sentinels are asked even if none of them tells anything.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The waits between attempts to find a sentinel that answers.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Where a sentinel thinks the primary is, and since which epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) epoch: u64,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Finds the primary. A sentinel that does not answer costs nothing if a majority does, and `patience`
/// otherwise.
pub(super) async fn primary(sentinels: &Sentinels, patience: Duration) -> Result<Address, Failure> {
    let asked = sentinels.each.iter().map(async |sentinel| {
        let answer = tokio::time::timeout(patience, ask(sentinel, &sentinels.group)).await;
        answer.unwrap_or_else(|_| {
            let detail = format!("no answer within {patience:?}");
            Err(Failure::new(ErrorKind::Unavailable, detail))
        })
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let (mut newest, mut answers, mut failure) = (None::<Named>, 0, None);
    while answers < majority(sentinels.each.len())
        && let Some(answer) = asked.next().await
    {
        match answer {
            Ok(named) => {
                answers += 1;
                if newest.as_ref().is_none_or(|newest| named.epoch > newest.epoch) {
                    newest = Some(named);
                }
            }
            Err(why) => failure = Some(why),
        }
    }
    match (newest, failure) {
        (Some(Named { host, port, .. }), _) => {
            Ok(Address::Tcp { host, port, tls: sentinels.tls.clone() })
        }
        (None, Some(failure)) => Err(failure.of("no sentinel could name the primary")),
        (None, None) => Err(Failure::new(ErrorKind::Invalid, "the URL names no sentinel")),
    }
}

async fn ask(sentinel: &Config, group: &str) -> Result<Named, Failure> {
    Wire::connect(sentinel, Partner::Sentinel, &[], |_| {}, || {}).await?.named(group).await
}

/// Resolves when another server than `primary` is the primary.
pub(super) async fn moved(sentinels: &Sentinels, primary: &Address, patience: Duration) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1, random::seed().unwrap_or_default());
    // Each hears another one first, so that no sentinel has all the listeners.
    for turn in (random::seed().unwrap_or_default() % 64)..u64::MAX {
        let count = u64::try_from(sentinels.each.len()).unwrap_or(1).max(1);
        let index = usize::try_from(turn % count).unwrap_or_default();
        let Some(sentinel) = sentinels.each.get(index) else { return };
        let told = Arc::new(Notify::new());
        let (heard, ended) = (Arc::clone(&told), Arc::clone(&told));
        let channels = [SWITCHED.to_owned()];
        let listening = Wire::connect(
            sentinel,
            Partner::Sentinel,
            &channels,
            move |_| heard.notify_one(),
            move || ended.notify_one(),
        );
        let listening = tokio::time::timeout(patience, listening).await;
        // Whatever was told before, or while nobody listened.
        if self::primary(sentinels, patience).await.is_ok_and(|now| now != *primary) {
            return;
        }
        if let Ok(Ok(_listening)) = listening {
            backoff.reset();
            let _ = tokio::time::timeout(LOOK_AGAIN, told.notified()).await;
        } else {
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }
}
