//! What a command runs under: one hold, or several of which none may be lost.

use futures::future::{self, FutureExt as _};
use leasehold::core::Moment;
use leasehold::{Guard, Key};

/// One hold at least.
#[derive(Debug)]
pub(crate) struct Grip<'a> {
    first: &'a Guard,
    others: &'a [Guard],
}

impl<'a> Grip<'a> {
    pub(crate) const fn new(first: &'a Guard, others: &'a [Guard]) -> Self {
        Self { first, others }
    }

    pub(crate) const fn first(&self) -> &'a Guard {
        self.first
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &'a Guard> + use<'a> {
        std::iter::once(self.first).chain(self.others)
    }

    /// Whether all are still ours.
    pub(crate) fn is_good(&self) -> bool {
        self.all().all(|guard| guard.check().is_ok())
    }

    /// Until when the command may act.
    pub(crate) fn deadline(&self) -> Moment {
        self.others.iter().map(Guard::deadline).fold(self.first.deadline(), Moment::min)
    }

    /// Until one is lost.
    pub(crate) async fn lost(&self) {
        future::select_all(self.all().map(|guard| guard.lost().boxed())).await;
    }

    /// The key of the one that is lost; of the first while none is.
    pub(crate) fn lost_key(&self) -> &'a Key {
        self.all().find(|guard| guard.check().is_err()).unwrap_or(self.first).key()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use leasehold::Client;

    use super::*;

    #[tokio::test]
    async fn a_grip_is_as_good_as_the_worst_of_its_holds() {
        let client =
            |ttl| Client::builder().url("memory:").ttl(Duration::from_secs(ttl)).build().unwrap();
        let (long, short) = (client(60), client(5));
        let first = long.mutex("a").unwrap().lock().await.unwrap();
        let others = [short.mutex("b").unwrap().lock().await.unwrap()];
        let grip = Grip::new(&first, &others);
        assert!(grip.is_good() && grip.deadline() < first.deadline());
        short.close().await.unwrap();
        grip.lost().await;
        assert!(!grip.is_good());
        assert_eq!(grip.lost_key(), others[0].key());
    }
}
