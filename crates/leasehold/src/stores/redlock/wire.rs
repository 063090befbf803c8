//! One of the servers: what it is asked, and what its answers mean.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use leasehold_core::quorum::Beat;
use leasehold_core::{Claim, ClaimId, Fence, Key, Party};

use super::config;
use super::inbox::Ear;
use super::view::Sighting;
use crate::stores::redis::answers::{Fields, stranger};
use crate::stores::redis::config::Config;
use crate::stores::redis::connection::{Connection, Live};
use crate::stores::redis::failure::Failure;
use crate::stores::redis::keys;
use crate::stores::redis::scripts::Script;
use crate::stores::redis::session::Session;
use crate::stores::redis::wire::decode;

macro_rules! script {
    ($name:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                include_str!("scripts/common.lua"),
                "\n",
                include_str!(concat!("scripts/", $name, ".lua"))
            ))
        })
    };
}

static ACQUIRE: LazyLock<Script> = script!("acquire");
static RAISE: LazyLock<Script> = script!("raise");
static EXTEND: LazyLock<Script> = script!("extend");
static RELEASE: LazyLock<Script> = script!("release");
static INSPECT: LazyLock<Script> = script!("inspect");

/// What the counter is kept as, beside the key.
const KIND: &str = "vote";

/// The number of the attempt stands before what the Redis store keeps, too.
const ATTEMPT: usize = 17;

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    connection: Arc<Connection>,
}

/// What a tenure begins with.
#[derive(Debug)]
pub(super) struct Tenure {
    names: [String; 2],
    claim: String,
    ttl: String,
    /// Which try this is: what it gives back ends no later one's tenure.
    attempt: String,
    proposal: String,
    tail: String,
}

impl Tenure {
    pub(super) fn new(session: &Session, claim: &Claim, attempt: u64, proposal: u64) -> Self {
        Self {
            names: names(&claim.key),
            claim: claim.id.to_hex(),
            ttl: session.ttl(),
            attempt: number(attempt),
            proposal: proposal.to_string(),
            tail: keys::tail(session.channel(), session.owner(), &claim.note),
        }
    }
}

/// What a server says to a claim that wants to hold.
#[derive(Debug)]
pub(super) enum Vote {
    Granted(u64),
    Denied(Sighting),
}

/// Why a claim ends at a server.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The attempt of this number, or an earlier one, got no majority.
    GiveBack(u64),
    Leave,
    /// By an operator: its owner is told.
    Revoke,
}

impl Server {
    pub(super) fn new(config: &Config, ear: Ear) -> Self {
        let name = config::name_of(config);
        Self { name, connection: Connection::new(config.clone(), Arc::new(ear)) }
    }

    pub(super) async fn acquire(&self, tenure: &Tenure) -> Result<Vote, Failure> {
        let Tenure { names, claim, ttl, attempt, proposal, tail } = tenure;
        let mut fields =
            Fields::of(self.run(&ACQUIRE, names, &[claim, ttl, attempt, proposal, tail]).await?)?;
        match fields.bytes()?.as_slice() {
            b"granted" => Ok(Vote::Granted(fields.number()?)),
            b"denied" => {
                let (left, now) = (fields.lapse()?, fields.number()?);
                Ok(Vote::Denied(sighting(&fields.bytes()?, now, left)))
            }
            _ => Err(Failure::strange_answer()),
        }
    }

    /// The counter, if the claim is there.
    pub(super) async fn raise(
        &self,
        key: &Key,
        claim: ClaimId,
        fence: u64,
    ) -> Result<Option<u64>, Failure> {
        let arguments = [claim.to_hex(), fence.to_string()];
        let answer = self.run(&RAISE, &names(key), &arguments.each_ref().map(String::as_str)).await;
        counter(&decode::<Vec<u8>>(answer?)?)
    }

    /// Renews the claims that are there: of each what became of it, in their order.
    pub(super) async fn extend(
        &self,
        session: &Session,
        roll: &[(Claim, Fence)],
    ) -> Result<Vec<Beat>, Failure> {
        let keys: Vec<String> = roll.iter().flat_map(|(claim, _)| names(&claim.key)).collect();
        let mut arguments = vec![session.ttl()];
        for (claim, fence) in roll {
            arguments.extend([claim.id.to_hex(), fence.get().to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let counters: Vec<Vec<u8>> = decode(self.run(&EXTEND, &keys, &arguments).await?)?;
        if counters.len() != roll.len() {
            return Err(Failure::strange_answer());
        }
        let beat = |text: &Vec<u8>| Ok(counter(text)?.map_or(Beat::Gone, Beat::Extended));
        counters.iter().map(beat).collect()
    }

    /// Ends the claim here, and says whether it was here.
    pub(super) async fn release(
        &self,
        key: &Key,
        claim: ClaimId,
        end: End,
    ) -> Result<bool, Failure> {
        let (how, attempt) = match end {
            End::GiveBack(attempt) => ("give back", number(attempt)),
            End::Leave => ("leave", String::new()),
            End::Revoke => ("revoke", String::new()),
        };
        let arguments = [&claim.to_hex(), how, &attempt, &super::inbox::channel_of(key)];
        decode(self.run(&RELEASE, &names(key), &arguments).await?)
    }

    /// Who holds each of the keys here.
    pub(super) async fn inspect(&self, each: &[Key]) -> Result<Vec<Sighting>, Failure> {
        let keys: Vec<String> = each.iter().flat_map(names).collect();
        let mut fields = Fields::of(self.run(&INSPECT, &keys, &[]).await?)?;
        let now = fields.number()?;
        let mut seen = Vec::with_capacity(each.len());
        for _ in each {
            let there = fields.number()? == 1;
            let (left, record) = (fields.lapse()?, fields.bytes()?);
            seen.push(if there { sighting(&record, now, left) } else { Sighting::Free });
        }
        Ok(seen)
    }

    /// One step of looking for keys: where the next begins, and the keys.
    pub(super) async fn scan(&self, from: u64, prefix: &str) -> Result<(u64, Vec<Key>), Failure> {
        let pattern = keys::pattern(KIND, prefix);
        let step = self.connection.request(async |live| live.wire.scan(from, &pattern).await);
        let (next, names) = step.await?;
        let keys = names.iter().filter_map(|name| keys::beside_as(KIND, name));
        Ok((next, keys.filter(|key| key.as_str().starts_with(prefix)).collect()))
    }

    pub(super) async fn subscribe(&self, channel: String) -> Result<(), Failure> {
        self.connection.request(async |live| live.subscribe(&channel).await.map(drop)).await
    }

    pub(super) async fn unsubscribe(&self, channel: &str) -> Result<(), Failure> {
        self.connection.request(async |live| live.unsubscribe(channel).await).await
    }

    pub(super) async fn live(&self) -> Result<Arc<Live>, Failure> {
        self.connection.request(async |live| Ok(live)).await
    }

    pub(super) fn patience(&self) -> Duration {
        self.connection.config().timeout
    }

    async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[&str],
    ) -> Result<::redis::Value, Failure> {
        self.connection.request(async |live| live.wire.run(script, keys, arguments).await).await
    }
}

fn names(key: &Key) -> [String; 2] {
    [key.as_str().to_owned(), keys::name_beside(key, KIND)]
}

/// Sixteen digits, so that the scripts can compare them as text.
fn number(attempt: u64) -> String {
    format!("{attempt:016}")
}

fn counter(text: &[u8]) -> Result<Option<u64>, Failure> {
    match text {
        b"" => Ok(None),
        text => keys::number(text).map(Some).ok_or_else(Failure::strange_answer),
    }
}

fn sighting(record: &[u8], now: u64, left: Option<Duration>) -> Sighting {
    let holder = record.get(ATTEMPT..).and_then(|rest| keys::holder(rest, now, left));
    Sighting::Held(Box::new(holder.unwrap_or_else(|| -> Party { stranger(left) })))
}
