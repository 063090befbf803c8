//! ZooKeeper's protocol, as far as locks need it. The only files that know it are in this folder.
//!
//! It is spoken here by hand rather than through a driver, because two things that safety rests
//! on cannot be had from the drivers there are: a session that is taken up again by another
//! process (a detached grant), for which its password has to be written down; and silence.
//! A driver pings by itself, so a session that nobody renews any more would live as long as its
//! process does, and the member of the ensemble that answers a ping may be cut off from the rest.

mod dial;
mod failure;
mod jute;
mod link;
mod message;

pub(super) use dial::say;
pub(super) use failure::Failure;
pub(super) use link::{Event, Link, Opened, Pace, open};
pub(super) use message::{ANY, Access, Answer, Code, Credentials, Request, Stat};
