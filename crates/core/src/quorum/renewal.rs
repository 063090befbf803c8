//! From a grant to the next: a hold that goes on.

use super::{Beat, majority};
use crate::Fence;

/// The renewals of one hold, round after round. Knows no time and sends nothing: it is told what
/// each server answered and says what that proves.
///
/// A server counts only if our tenure there was not interrupted since the hold was last proven.
/// Every tenure begins with a raised counter, so the counter is the tenure's name: a server counts
/// if it extended the token *and* its counter is the one it was last proven by.
///
/// At first that is the fence, on every server, also on one that was not heard when the claim was
/// granted: an attempt that began after the grant shares a server with the grant's majority, where
/// it began above the fence, so its own fence is greater; and it shares one with the majority that
/// stands at our fence now, which would have to have come back to it from above. So whoever knows
/// the fence can go on with a hold, in another process too.
///
/// A server that lost the token is given it anew once the round is kept ([`Renewal::without`],
/// [`Renewal::given`]): by then nobody else holds. It counts once a later round was kept without it.
///
/// ```
/// use leasehold_core::Fence;
/// use leasehold_core::quorum::{Beat, Renewal, Verdict};
/// let mut renewal = Renewal::new(3, Fence::new(7));
/// renewal.again(); // then send to *all* servers
/// renewal.told(0, Beat::Extended(7));
/// renewal.told(2, Beat::Gone);
/// assert_eq!(renewal.step(), Verdict::Wait);
/// renewal.told(1, Beat::Extended(7));
/// assert_eq!(renewal.step(), Verdict::Kept);
/// assert_eq!(renewal.without().collect::<Vec<_>>(), [2]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Renewal {
    fence: Fence,
    tenures: Vec<Tenure>,
}

/// One server, as the hold knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Tenure {
    /// The counter at which our tenure stood, as last told.
    known: u64,
    /// What was known when the hold was last proven: our tenure since then, if the counter still
    /// stands there.
    proven: u64,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Awaited,
    None,
    Beat(Beat),
}

/// What a round of renewals proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet: wait for more answers.
    Wait,
    /// A majority was never interrupted: the lease counts from before this round was sent. If the
    /// deadline before it has passed by now, the hold is lost all the same.
    Kept,
    /// So many servers were without our token that no majority can have kept it. Release
    /// everywhere: a minority may still have it.
    Lost,
    /// Too few answers to tell. The deadline stays where it was; ask again before it.
    Unknown,
}

impl Renewal {
    /// The renewals of the hold that was granted with `fence` by a majority of `servers` servers.
    #[must_use]
    pub fn new(servers: usize, fence: Fence) -> Self {
        let at = fence.get();
        Self {
            fence,
            tenures: vec![Tenure { known: at, proven: at, answer: Answer::None }; servers],
        }
    }

    /// The fence to send along.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// Begins a round: the requests are sent to all servers. An answer to an earlier round must
    /// not be told any more.
    pub fn again(&mut self) {
        for tenure in &mut self.tenures {
            tenure.answer = Answer::Awaited;
        }
    }

    /// Takes a server's answer. A second one in the same round, and one after the server was given
    /// up, change nothing.
    pub fn told(&mut self, server: usize, beat: Beat) {
        if self.tenures[server].answer != Answer::Awaited {
            return;
        }
        let was_kept = self.step() == Verdict::Kept;
        self.tenures[server].answer = Answer::Beat(beat);
        if let Beat::Extended(counter) = beat {
            self.tenures[server].known = counter;
        }
        // Not what is told later: between this proof and that answer another may come and go.
        if !was_kept && self.step() == Verdict::Kept {
            for tenure in &mut self.tenures {
                tenure.proven = tenure.known;
            }
        }
    }

    /// Gives a server up in this round: it failed, or did not answer in time. Whether the request
    /// had an effect is unknown.
    pub fn gave_up(&mut self, server: usize) {
        if self.tenures[server].answer == Answer::Awaited {
            self.tenures[server].answer = Answer::None;
        }
    }

    /// Takes the counter of a server that was given the token anew.
    pub fn given(&mut self, server: usize, counter: u64) {
        self.tenures[server].known = counter;
    }

    /// The servers that said in this round that the token is not there.
    pub fn without(&self) -> impl Iterator<Item = usize> + '_ {
        let gone = |tenure: &Tenure| tenure.answer == Answer::Beat(Beat::Gone);
        self.tenures.iter().enumerate().filter(move |(_, it)| gone(it)).map(|(server, _)| server)
    }

    /// What the answers prove so far. A slow server is not waited for once a majority is certain,
    /// either way; its answer should still be told if it comes, so that it counts later.
    #[must_use]
    pub fn step(&self) -> Verdict {
        let (mut kept, mut gone, mut awaited) = (0, 0, 0);
        for Tenure { proven, answer, .. } in &self.tenures {
            match *answer {
                Answer::Awaited => awaited += 1,
                Answer::Beat(Beat::Extended(counter)) if *proven == counter => kept += 1,
                Answer::Beat(Beat::Gone) => gone += 1,
                // Our token is there, but since when is not known.
                Answer::Beat(Beat::Extended(_)) | Answer::None => {}
            }
        }
        let majority = majority(self.tenures.len());
        if kept >= majority {
            Verdict::Kept
        } else if self.tenures.len() - gone < majority {
            Verdict::Lost
        } else if awaited > 0 {
            Verdict::Wait
        } else {
            Verdict::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hold with fence 7.
    fn hold() -> Renewal {
        Renewal::new(3, Fence::new(7))
    }

    fn round(renewal: &mut Renewal, beats: [Option<Beat>; 3]) -> Verdict {
        renewal.again();
        for (server, beat) in beats.into_iter().enumerate() {
            assert_ne!(renewal.step(), Verdict::Unknown, "answers are still awaited");
            match beat {
                Some(beat) => renewal.told(server, beat),
                None => renewal.gave_up(server),
            }
        }
        renewal.step()
    }

    const SAME: Option<Beat> = Some(Beat::Extended(7));
    const NEW: Option<Beat> = Some(Beat::Extended(9));
    const GONE: Option<Beat> = Some(Beat::Gone);

    #[test]
    fn a_majority_that_was_never_interrupted_keeps_the_hold() {
        assert_eq!(round(&mut hold(), [SAME, SAME, None]), Verdict::Kept);
        assert_eq!(round(&mut hold(), [SAME, SAME, GONE]), Verdict::Kept);
        assert_eq!(round(&mut hold(), [SAME, None, SAME]), Verdict::Kept, "heard of now only");
    }

    #[test]
    fn a_server_that_was_topped_up_counts_once_the_hold_was_proven_without_it() {
        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [SAME, SAME, GONE]), Verdict::Kept);
        assert_eq!(round(&mut renewal, [SAME, None, NEW]), Verdict::Unknown, "never proven");
        assert_eq!(round(&mut renewal, [SAME, SAME, None]), Verdict::Kept, "what was said, counts");
        assert_eq!(round(&mut renewal, [SAME, None, NEW]), Verdict::Kept);

        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [SAME, SAME, GONE]), Verdict::Kept);
        renewal.given(2, 9);
        assert_eq!(round(&mut renewal, [SAME, None, NEW]), Verdict::Unknown, "not proven since");
        assert_eq!(round(&mut renewal, [SAME, SAME, None]), Verdict::Kept);
        assert_eq!(round(&mut renewal, [None, SAME, NEW]), Verdict::Kept);
    }

    #[test]
    fn what_is_told_after_the_proof_counts_after_the_next() {
        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [SAME, SAME, NEW]), Verdict::Kept);
        assert_eq!(round(&mut renewal, [SAME, None, NEW]), Verdict::Unknown);
        assert_eq!(round(&mut renewal, [SAME, SAME, None]), Verdict::Kept);
        assert_eq!(round(&mut renewal, [SAME, None, NEW]), Verdict::Kept);
    }

    #[test]
    fn a_tenure_that_began_anew_does_not_count_as_extended() {
        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [SAME, None, None]), Verdict::Unknown);
        assert_eq!(round(&mut renewal, [SAME, NEW, None]), Verdict::Unknown);
        assert_eq!(round(&mut renewal, [SAME, NEW, NEW]), Verdict::Unknown);
    }

    #[test]
    fn a_round_without_any_answer_leaves_the_hold_as_it_was() {
        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [None, None, None]), Verdict::Unknown);
        assert_eq!(round(&mut renewal, [SAME, SAME, None]), Verdict::Kept);
    }

    #[test]
    fn a_hold_is_lost_only_when_no_majority_can_have_it() {
        assert_eq!(round(&mut hold(), [GONE, None, None]), Verdict::Unknown);
        assert_eq!(round(&mut hold(), [NEW, None, SAME]), Verdict::Unknown);
        assert_eq!(round(&mut hold(), [GONE, None, GONE]), Verdict::Lost);
        assert_eq!(round(&mut hold(), [SAME, GONE, GONE]), Verdict::Lost);
    }

    #[test]
    fn only_the_first_answer_of_a_round_is_heard() {
        let mut renewal = hold();
        renewal.again();
        renewal.told(0, Beat::Gone);
        renewal.told(0, Beat::Extended(7));
        renewal.gave_up(1);
        renewal.told(1, Beat::Extended(7));
        renewal.told(2, Beat::Gone);
        assert_eq!(renewal.step(), Verdict::Lost);
    }
}
