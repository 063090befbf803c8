//! What the scripts answer, as the contract says it.

use std::collections::VecDeque;
use std::time::Duration;

use ::redis::Value;
use leasehold_core::{Ahead, Fence, Left, Line, Party, Place};

use super::failure::Failure;
use super::keys;
use super::wire::decode;

/// What `enter` found.
#[derive(Debug)]
pub(super) enum Entered {
    /// It holds.
    Held(Fence),
    /// It stands in line, or was refused.
    Behind(Behind),
    /// So many of those ahead are dead that the rest must be passed over by another call.
    Again,
}

/// What stands between a claim and its grant, and when that hold ends if it is not renewed.
#[derive(Debug)]
pub(super) struct Behind {
    refused: bool,
    pub(super) rank: u32,
    pub(super) foreign: bool,
    /// How long until the key lapses; `None` if it has no TTL.
    pub(super) lapse: Option<Duration>,
    holder: Party,
}

impl Behind {
    pub(super) fn place(self) -> Place {
        let ahead =
            Ahead { rank: Some(self.rank), holder: Some(self.holder), foreign: self.foreign };
        if self.refused { Place::Refused(ahead) } else { Place::Waiting(ahead) }
    }
}

pub(super) fn entered(value: Value) -> Result<Entered, Failure> {
    let mut fields = Fields::of(value)?;
    let refused = match fields.bytes()?.as_slice() {
        b"held" => return Ok(Entered::Held(Fence::new(fields.number()?))),
        b"again" => return Ok(Entered::Again),
        b"waiting" => false,
        b"refused" => true,
        _ => return Err(Failure::strange_answer()),
    };
    let rank = u32::try_from(fields.number()?).unwrap_or(u32::MAX);
    let lapse = fields.lapse()?;
    let now = fields.number()?;
    let memory = fields.bytes()?;
    let holder = keys::holder(&memory, now, lapse);
    let foreign = holder.is_none();
    let holder = holder.unwrap_or_else(|| stranger(lapse));
    Ok(Entered::Behind(Behind { refused, rank, foreign, lapse, holder }))
}

/// What `leave` found, and whether dead claims are left to pass over.
pub(super) fn left(value: Value) -> Result<(Left, bool), Failure> {
    let mut fields = Fields::of(value)?;
    let left = match fields.bytes()?.as_slice() {
        b"released" => Left::Released,
        b"withdrawn" => Left::Withdrawn,
        b"gone" => Left::Gone,
        _ => return Err(Failure::strange_answer()),
    };
    Ok((left, fields.bytes()? == b"again"))
}

/// Which claims of a renewal go on, in their order.
pub(super) fn beaten(value: Value, claims: usize) -> Result<Vec<bool>, Failure> {
    let outcome: Vec<u8> = decode(value)?;
    if outcome.len() != claims {
        return Err(Failure::strange_answer());
    }
    Ok(outcome.into_iter().map(|outcome| outcome == 1).collect())
}

pub(super) fn revoked(value: Value) -> Result<bool, Failure> {
    decode(value)
}

pub(super) fn inspected(value: Value) -> Result<Line, Failure> {
    let mut fields = Fields::of(value)?;
    let now = fields.number()?;
    let held = fields.number()? == 1;
    let lapse = fields.lapse()?;
    let memory = fields.bytes()?;
    let mut line = Line::default();
    if held {
        line.holders.push(keys::holder(&memory, now, lapse).unwrap_or_else(|| stranger(lapse)));
    }
    while !fields.is_empty() {
        let (claim, ticket, entry) = (fields.bytes()?, fields.number()?, fields.bytes()?);
        let waiter = keys::waiter(&claim, ticket, &entry, now);
        line.waiters.push(waiter.ok_or_else(Failure::strange_answer)?);
    }
    Ok(line)
}

/// A holder that is not of leasehold.
pub(in crate::stores) fn stranger(left: Option<Duration>) -> Party {
    Party { left, units: 1, limit: 1, ..Party::default() }
}

/// The fields of an answer, one after the other.
pub(in crate::stores) struct Fields(VecDeque<Value>);

impl Fields {
    pub(in crate::stores) fn of(value: Value) -> Result<Self, Failure> {
        match value {
            Value::Array(fields) => Ok(Self(fields.into())),
            _ => Err(Failure::strange_answer()),
        }
    }

    pub(in crate::stores) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::stores) fn bytes(&mut self) -> Result<Vec<u8>, Failure> {
        match self.0.pop_front() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(Failure::strange_answer()),
        }
    }

    pub(in crate::stores) fn number(&mut self) -> Result<u64, Failure> {
        match self.0.pop_front() {
            Some(Value::Int(number)) => u64::try_from(number).ok(),
            Some(Value::BulkString(text)) => keys::number(&text),
            _ => None,
        }
        .ok_or_else(Failure::strange_answer)
    }

    /// A PTTL: negative without a TTL.
    pub(in crate::stores) fn lapse(&mut self) -> Result<Option<Duration>, Failure> {
        match self.0.pop_front() {
            Some(Value::Int(millis)) => Ok(u64::try_from(millis).ok().map(Duration::from_millis)),
            _ => Err(Failure::strange_answer()),
        }
    }
}
