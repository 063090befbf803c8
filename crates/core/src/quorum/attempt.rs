//! From nothing to a grant by a majority.

use super::{Vote, majority};
use crate::Fence;

/// One claim's way to a grant by a majority. Knows no time and sends nothing: it is told what each
/// server answered and says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    servers: Vec<State>,
}

/// How one server stands in an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// The first request is under way.
    Asked,
    /// It has our token, and its counter stood here.
    Stands(u64),
    /// It has our token, stood at the first number, and was asked to raise to the second.
    Raising(u64, u64),
    /// It denied, failed, or lost our token.
    Out,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for more answers.
    Wait,
    /// Ask these servers to raise their counters to the fence, then wait.
    Raise {
        /// Servers by their index.
        servers: Vec<usize>,
        /// Where to.
        fence: u64,
    },
    /// A majority stands at this fence exactly: granted, if the deadline allows.
    Granted(Fence),
    /// No majority can be had any more: release everywhere, also where no answer came from.
    Failed,
}

impl Attempt {
    /// An attempt whose first request was sent to all of `servers` servers.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self { servers: vec![State::Asked; servers] }
    }

    /// Takes a server's answer to the first request. A duplicate, or one that comes after the
    /// server was raised or given up, changes nothing.
    pub fn answered(&mut self, server: usize, vote: Vote) {
        if self.servers[server] == State::Asked {
            self.servers[server] = match vote {
                Vote::Granted(counter) => State::Stands(counter),
                Vote::Denied => State::Out,
            };
        }
    }

    /// Takes a server's answer to the request to raise to `fence`. One that was not asked for, or
    /// was answered before, changes nothing.
    pub fn raised(&mut self, server: usize, fence: u64, vote: Vote) {
        if matches!(self.servers[server], State::Raising(_, to) if to == fence) {
            self.servers[server] = match vote {
                Vote::Granted(counter) => State::Stands(counter),
                Vote::Denied => State::Out,
            };
        }
    }

    /// Gives a server up: it failed, or did not answer in time.
    pub fn gave_up(&mut self, server: usize) {
        self.servers[server] = State::Out;
    }

    /// What to do next. A slow server is not waited for once a majority has our token.
    pub fn step(&mut self) -> Step {
        let majority = majority(self.servers.len());
        let count = |wanted: &dyn Fn(&State) -> bool| {
            self.servers.iter().filter(|state| wanted(state)).count()
        };
        if count(&|state| *state != State::Out) < majority {
            return Step::Failed;
        }
        let told = self.servers.iter().filter_map(|state| match state {
            State::Stands(counter) | State::Raising(counter, _) => Some(*counter),
            State::Asked | State::Out => None,
        });
        let Some(fence) = told.max() else {
            return Step::Wait;
        };
        // Exactly: a counter that went past the fence says nothing about who stood at it.
        if count(&|state| *state == State::Stands(fence)) >= majority {
            return Step::Granted(Fence::new(fence));
        }
        if count(&|state| matches!(state, State::Stands(_) | State::Raising(..))) < majority {
            return Step::Wait;
        }
        let mut servers = Vec::new();
        for (index, state) in self.servers.iter_mut().enumerate() {
            match *state {
                State::Stands(counter) if counter < fence => {
                    *state = State::Raising(counter, fence);
                    servers.push(index);
                }
                _ => {}
            }
        }
        if servers.is_empty() { Step::Wait } else { Step::Raise { servers, fence } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreeing_servers_grant_in_one_round_without_the_slow_one() {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(7));
        assert_eq!(attempt.step(), Step::Wait);
        attempt.answered(2, Vote::Granted(7));
        assert_eq!(attempt.step(), Step::Granted(Fence::new(7)));
    }

    #[test]
    fn servers_that_fell_short_are_raised() {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(7));
        attempt.answered(1, Vote::Granted(9));
        assert_eq!(attempt.step(), Step::Raise { servers: vec![0], fence: 9 });
        assert_eq!(attempt.step(), Step::Wait);
        attempt.raised(0, 9, Vote::Granted(9));
        assert_eq!(attempt.step(), Step::Granted(Fence::new(9)));
    }

    #[test]
    fn a_split_vote_fails_as_soon_as_it_is_certain() {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(1));
        attempt.answered(1, Vote::Denied);
        assert_eq!(attempt.step(), Step::Wait);
        attempt.gave_up(2);
        assert_eq!(attempt.step(), Step::Failed);
    }

    #[test]
    fn a_counter_past_the_fence_is_no_acknowledgement() {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(5));
        attempt.answered(1, Vote::Granted(3));
        assert_eq!(attempt.step(), Step::Raise { servers: vec![1], fence: 5 });
        attempt.raised(1, 5, Vote::Granted(8));
        assert_eq!(attempt.step(), Step::Raise { servers: vec![0], fence: 8 });
        attempt.raised(0, 8, Vote::Denied);
        assert_eq!(attempt.step(), Step::Wait, "the third server has not answered");
    }
}
