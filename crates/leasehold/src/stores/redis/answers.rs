//! What the scripts answer, as the contract says it.

use std::collections::VecDeque;
use std::time::Duration;

use ::redis::Value;
use leasehold_core::{Ahead, ClaimId, Fence, Left, Line, Party, Place, Reading, Version, Written};

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
    /// Others see this limit.
    Disagrees(u32),
}

/// What several claims found that were asked for in one step.
#[derive(Debug)]
pub(super) enum EnteredAll {
    /// They hold, each under its fence.
    Held(Vec<Fence>),
    /// One was refused, and none was granted: which one, counted from 0.
    Behind(usize, Behind),
    Again,
    /// Others of the key of this one see this limit.
    Disagrees(usize, u32),
}

/// What stands between a claim and its grant, and when a lapse may let it in.
#[derive(Debug)]
pub(super) struct Behind {
    refused: bool,
    pub(super) rank: u32,
    pub(super) foreign: bool,
    /// How long until as much lapses as may let it in, if nobody renews; `None` for a stranger's
    /// hold without a TTL.
    pub(super) lapse: Option<Duration>,
    holder: Party,
}

impl Behind {
    pub(super) fn place(self) -> Place {
        if self.refused { Place::Refused(self.ahead()) } else { Place::Waiting(self.ahead()) }
    }

    pub(super) fn ahead(self) -> Ahead {
        Ahead { rank: Some(self.rank), holder: Some(self.holder), foreign: self.foreign }
    }
}

pub(super) fn entered(value: Value) -> Result<Entered, Failure> {
    let mut fields = Fields::of(value)?;
    let refused = match fields.bytes()?.as_slice() {
        b"held" => return Ok(Entered::Held(Fence::new(fields.number()?))),
        b"again" => return Ok(Entered::Again),
        b"disagrees" => {
            let limit = u32::try_from(fields.number()?).map_err(|_| Failure::strange_answer())?;
            return Ok(Entered::Disagrees(limit));
        }
        b"waiting" => false,
        b"refused" => true,
        _ => return Err(Failure::strange_answer()),
    };
    let rank = u32::try_from(fields.number()?).unwrap_or(u32::MAX);
    let lapse = fields.lapse()?;
    let now = fields.number()?;
    let memory = fields.bytes()?;
    let (first, entry) = (fields.bytes()?, fields.bytes()?);
    let holder =
        keys::holder(&memory, now, lapse).or_else(|| keys::in_line(&first, None, &entry, now));
    let foreign = holder.is_none();
    let holder = holder.unwrap_or_else(|| stranger(lapse));
    Ok(Entered::Behind(Behind { refused, rank, foreign, lapse, holder }))
}

pub(super) fn entered_all(value: Value, claims: usize) -> Result<EnteredAll, Failure> {
    let (which, answer): (usize, Value) = decode(value)?;
    let Some(at) = which.checked_sub(1) else {
        let mut fields = Fields::of(answer)?;
        let fences = (0..claims).map(|_| fields.number().map(Fence::new));
        return Ok(EnteredAll::Held(fences.collect::<Result<_, _>>()?));
    };
    match entered(answer)? {
        Entered::Again => Ok(EnteredAll::Again),
        Entered::Behind(behind) if at < claims => Ok(EnteredAll::Behind(at, behind)),
        Entered::Disagrees(limit) if at < claims => Ok(EnteredAll::Disagrees(at, limit)),
        _ => Err(Failure::strange_answer()),
    }
}

/// What `leave` found, and whether there is more to pass over or to grant.
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

/// What `amend` and `revoke` found, and whether there is more to pass over or to grant.
pub(super) fn found(value: Value) -> Result<(bool, bool), Failure> {
    let mut fields = Fields::of(value)?;
    Ok((fields.number()? == 1, fields.bytes()? == b"again"))
}

/// Whether a record was written.
pub(super) fn written(value: Value) -> Result<bool, Failure> {
    decode(value)
}

/// A record: sixteen digits of its version, then its bytes.
pub(super) fn read(value: Value) -> Result<Reading, Failure> {
    const DIGITS: usize = 16;
    let (seconds, micros, record): (u64, u64, Option<Vec<u8>>) = decode(value)?;
    let at = Duration::from_secs(seconds) + Duration::from_micros(micros);
    let written = record.map(|record| {
        let (version, value) = record.split_at_checked(DIGITS)?;
        let version = Version::new(keys::number(version)?);
        Some(Written { value: value.into(), version })
    });
    match written {
        Some(None) => Err(Failure::strange_record()),
        written => Ok(Reading { written: written.flatten(), at: Some(at) }),
    }
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
        let party = keys::in_line(&claim, Some(ticket), &entry, now);
        let party = party.ok_or_else(Failure::strange_answer)?;
        if party.fence.is_some() { &mut line.holders } else { &mut line.waiters }.push(party);
    }
    Ok(line)
}

/// What the owner of a claim is told by in a cluster, as the line says.
pub(super) fn told_by(inspected: Value, claim: ClaimId) -> Option<String> {
    let mut fields = Fields::of(inspected).ok()?;
    let (_now, _held, _left) = (fields.number().ok()?, fields.number().ok()?, fields.lapse().ok()?);
    let memory = fields.bytes().ok()?;
    if keys::holder(&memory, 0, None).is_some_and(|holder| holder.claim == Some(claim)) {
        return keys::told_by(&memory).map(str::to_owned);
    }
    while !fields.is_empty() {
        let (waiter, _ticket) = (fields.bytes().ok()?, fields.number().ok()?);
        let entry = fields.bytes().ok()?;
        if keys::claim(&waiter) == Some(claim) {
            return keys::told_by(&entry).map(str::to_owned);
        }
    }
    None
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
