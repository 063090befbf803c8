//! From a grant to the next: a hold that goes on.

use super::{Attempt, Beat, majority};
use crate::Fence;

/// The renewals of one hold, round after round. Knows no time and sends nothing: it is told what
/// each server answered and says what that proves.
///
/// A server counts only if our tenure there was not interrupted since the hold was last proven.
/// Every tenure begins with a raised counter, so the counter is the tenure's name: a server counts
/// if it extended the token *and* its counter is the one it was last known by. That holds also
/// when a top-up's answer was lost and asking again says "extended", or when a request of the
/// grant arrives late and begins a tenure of its own. What a server says counts later if it was
/// said before a round was kept without it: a top-up counts from the next round on.
///
/// ```
/// use leasehold_core::quorum::{Attempt, Beat, Renewal, Step, Verdict, Vote};
/// let mut attempt = Attempt::new(3);
/// attempt.answered(0, Vote::Granted(7));
/// attempt.answered(1, Vote::Granted(7));
/// let Step::Granted(fence) = attempt.step() else { panic!("a majority stands at 7") };
///
/// let mut renewal = Renewal::new(&attempt, fence);
/// renewal.again(); // then send to *all* servers
/// renewal.told(0, Beat::Extended(7));
/// renewal.told(2, Beat::ToppedUp(7));
/// assert_eq!(renewal.step(), Verdict::Wait);
/// renewal.told(1, Beat::Extended(7));
/// assert_eq!(renewal.step(), Verdict::Kept);
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
    known: Option<u64>,
    /// What was known when the hold was last proven: our tenure since then, if the counter still
    /// stands there.
    proven: Option<u64>,
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
    /// everywhere: this round may have put the token back.
    Lost,
    /// Too few answers to tell. The deadline stays where it was; ask again before it.
    Unknown,
}

impl Renewal {
    /// The renewals of the hold that `attempt` was granted with `fence`.
    #[must_use]
    pub fn new(attempt: &Attempt, fence: Fence) -> Self {
        let tenures = attempt.standing();
        let tenures =
            tenures.map(|known| Tenure { known, proven: known, answer: Answer::None }).collect();
        Self { fence, tenures }
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
        if let Beat::Extended(counter) | Beat::ToppedUp(counter) = beat {
            self.tenures[server].known = Some(counter);
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

    /// What the answers prove so far. A slow server is not waited for once a majority is certain,
    /// either way; its answer should still be told if it comes, so that it counts later.
    #[must_use]
    pub fn step(&self) -> Verdict {
        let (mut kept, mut gone, mut awaited) = (0, 0, 0);
        for Tenure { proven, answer, .. } in &self.tenures {
            match *answer {
                Answer::Awaited => awaited += 1,
                Answer::Beat(Beat::Extended(counter)) if *proven == Some(counter) => kept += 1,
                Answer::Beat(Beat::ToppedUp(_) | Beat::Denied) => gone += 1,
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
    use crate::quorum::{Step, Vote};

    /// A hold with fence 7 whose first two servers stand at it.
    fn hold() -> Renewal {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(7));
        attempt.answered(1, Vote::Granted(7));
        let Step::Granted(fence) = attempt.step() else { panic!("not granted") };
        Renewal::new(&attempt, fence)
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
    const NEW: Option<Beat> = Some(Beat::ToppedUp(9));
    const SINCE_NEW: Option<Beat> = Some(Beat::Extended(9));
    const ANOTHERS: Option<Beat> = Some(Beat::Denied);

    #[test]
    fn a_majority_that_was_never_interrupted_keeps_the_hold() {
        assert_eq!(round(&mut hold(), [SAME, SAME, None]), Verdict::Kept);
        assert_eq!(round(&mut hold(), [SAME, SAME, ANOTHERS]), Verdict::Kept);
    }

    #[test]
    fn a_server_that_was_topped_up_counts_from_the_next_round_on() {
        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [SAME, None, NEW]), Verdict::Unknown);
        assert_eq!(round(&mut renewal, [SAME, None, SINCE_NEW]), Verdict::Unknown, "never proven");
        assert_eq!(round(&mut renewal, [SAME, SAME, None]), Verdict::Kept, "what was said, counts");
        assert_eq!(round(&mut renewal, [SAME, None, SINCE_NEW]), Verdict::Kept);
    }

    #[test]
    fn what_is_told_after_the_proof_counts_after_the_next() {
        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [SAME, SAME, NEW]), Verdict::Kept);
        assert_eq!(round(&mut renewal, [SAME, None, SINCE_NEW]), Verdict::Unknown);
        assert_eq!(round(&mut renewal, [SAME, SAME, None]), Verdict::Kept);
        assert_eq!(round(&mut renewal, [SAME, None, SINCE_NEW]), Verdict::Kept);
    }

    #[test]
    fn a_top_up_whose_answer_was_lost_does_not_count_as_extended() {
        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [SAME, None, None]), Verdict::Unknown);
        assert_eq!(round(&mut renewal, [SAME, SINCE_NEW, None]), Verdict::Unknown);
    }

    #[test]
    fn a_round_without_any_answer_leaves_the_hold_as_it_was() {
        let mut renewal = hold();
        assert_eq!(round(&mut renewal, [None, None, None]), Verdict::Unknown);
        assert_eq!(round(&mut renewal, [SAME, SAME, None]), Verdict::Kept);
    }

    #[test]
    fn a_hold_is_lost_only_when_no_majority_can_have_it() {
        assert_eq!(round(&mut hold(), [ANOTHERS, None, None]), Verdict::Unknown);
        assert_eq!(round(&mut hold(), [NEW, None, SAME]), Verdict::Unknown);
        for gone in [NEW, ANOTHERS] {
            assert_eq!(round(&mut hold(), [gone, None, ANOTHERS]), Verdict::Lost);
            assert_eq!(round(&mut hold(), [SAME, gone, NEW]), Verdict::Lost);
        }
    }

    #[test]
    fn only_the_first_answer_of_a_round_is_heard() {
        let mut renewal = hold();
        renewal.again();
        renewal.told(0, Beat::Denied);
        renewal.told(0, Beat::Extended(7));
        renewal.gave_up(1);
        renewal.told(1, Beat::Extended(7));
        renewal.told(2, Beat::Denied);
        assert_eq!(renewal.step(), Verdict::Lost);
    }
}
