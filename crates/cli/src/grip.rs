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
