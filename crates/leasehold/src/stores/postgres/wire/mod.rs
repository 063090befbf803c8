//! The SQL, and the only user of the driver: one statement for each method of the contract.

mod facts;
mod lane;
mod link;
mod records;
mod refusal;
mod setup;
mod tls;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::{
    Ahead, Claim, ClaimId, Enter, Fence, Key, Left, Note, Party, Renewed, SessionId, Terms,
    Together,
};
use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

use super::config::Config;
use crate::stores::mailbox::Mailbox;
pub(super) use facts::{Facts, Standby};
use lane::{Inbox, Lane, Param};
use link::{Dialer, Link};
pub(super) use refusal::Failure;

/// How often a waiter asks again where nobody can wake it.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// Where a row of `enter` has the limit.
const LIMIT: usize = 11;

/// What `enter` answered.
#[derive(Debug)]
pub(super) enum Entered {
    Held(Fence),
    /// In line, and how long until the first hold lapses unless it is renewed.
    Waiting(Ahead, Duration),
    Refused(Ahead),
    No(Refusal),
}

/// Why a claim may not enter.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is no such session (any more).
    Ended,
    /// Somebody in line sees this limit.
    Disagrees(u32),
}

/// The statements of a store handle, and its connections.
pub(super) struct Wire {
    dialer: Dialer,
    sql: Sql,
}

/// The statements, with the schema's name in them.
struct Sql {
    open: String,
    renew: String,
    close: String,
    clear: String,
    enter: String,
    enter_all: String,
    leave: String,
    amend: String,
    read: String,
    write: String,
    revoke: String,
    inspect: String,
    keys: String,
}

impl Sql {
    fn new(schema: &str) -> Self {
        let party = "owner, note, fence, age, remaining, units, key_limit";
        Self {
            open: format!("SELECT {schema}.open($1, $2, $3, $4)::text"),
            renew: format!("SELECT alive, lost, pg_backend_pid() FROM {schema}.renew($1, $2)"),
            close: format!("SELECT {schema}.close($1)"),
            clear: format!("SELECT {schema}.clear($1)"),
            enter: format!(
                "SELECT outcome, held, rank, lapses, holder AS id, {party} \
                 FROM {schema}.enter($1, $2, $3, $4, $5, $6, $7)"
            ),
            enter_all: format!(
                "SELECT outcome, held, rank, which, holder AS id, {party} \
                 FROM {schema}.enter_all($1, $2, $3, $4, $5, $6)"
            ),
            leave: format!("SELECT {schema}.leave($1, $2, $3)"),
            amend: format!("SELECT {schema}.amend($1, $2, $3, $4, $5)"),
            read: format!("SELECT at, value, version FROM {schema}.read($1)"),
            write: format!("SELECT {schema}.write($1, $2, $3, $4, $5, $6)"),
            revoke: format!("SELECT {schema}.revoke($1, $2)"),
            inspect: format!("SELECT id, {party} FROM {schema}.inspect($1)"),
            // Bytewise order; the lower bound is what the index can use.
            keys: format!(
                "SELECT DISTINCT c.key FROM {schema}.claims c \
                 JOIN {schema}.sessions s ON s.id = c.session \
                 WHERE c.key >= $1 COLLATE \"C\" AND starts_with(c.key, $1) \
                 AND NOT s.dead AND s.expires > clock_timestamp() ORDER BY c.key"
            ),
        }
    }
}

type Answer<T> = Result<T, Failure>;

impl Wire {
    pub(super) fn new(config: Config, mailbox: Arc<Mailbox>, secret: &str) -> Self {
        let channel = format!("{}_{secret}", config.schema);
        let inbox = Inbox { mailbox, channel, probed: tokio::sync::Notify::new() };
        Self { sql: Sql::new(&config.schema), dialer: Dialer::new(config, inbox) }
    }

    pub(super) fn config(&self) -> &Config {
        &self.dialer.config
    }

    /// Whether waiters have to ask again and again, because nobody can wake them.
    pub(super) fn polls(&self) -> bool {
        self.dialer.is_pooled()
    }

    pub(super) async fn open(&self, session: ClaimId, terms: &Terms) -> Answer<()> {
        let link = self.dialer.link().await?;
        let ttl = i64::try_from(terms.ttl.as_micros()).unwrap_or(i64::MAX);
        let owner = terms.owner.as_str();
        let channel = if link.is_pooled() { "" } else { self.dialer.inbox.channel.as_str() };
        let params = [
            (&Id(session) as &(dyn ToSql + Sync), Type::UUID),
            (&ttl, Type::INT8),
            (&owner, Type::TEXT),
            (&channel, Type::TEXT),
        ];
        self.ask(&link.control, &self.sql.open, &params).await?;
        Ok(())
    }

    pub(super) async fn renew(&self, session: ClaimId, roll: &[Claim]) -> Answer<Renewed> {
        let link = self.dialer.link().await?;
        let roll: Vec<Id> = roll.iter().map(|claim| Id(claim.id)).collect();
        let params: [Param<'_>; 2] = [(&Id(session), Type::UUID), (&roll, Type::UUID_ARRAY)];
        let row = self.one(&link.control, &self.sql.renew, &params).await?;
        self.check_backend(&link, get(&row, 2)?);
        if !get::<bool>(&row, 0)? {
            return Ok(Renewed::Ended);
        }
        let lost: Vec<Id> = get(&row, 1)?;
        Ok(Renewed::Extended { lost: lost.into_iter().map(|Id(id)| id).collect() })
    }

    /// A connection that changes its backend has a pooler before it, however well it hides.
    fn check_backend(&self, link: &Link, backend: i32) {
        if backend != link.backend && !link.is_pooled() {
            link.found_pooler(self.config(), "a connection changed its backend");
            self.dialer.inbox.mailbox.tell_all();
        }
    }

    pub(super) async fn close(&self, session: ClaimId) -> Answer<()> {
        let link = self.dialer.link().await?;
        let params: [Param<'_>; 1] = [(&Id(session), Type::UUID)];
        let mut more: bool = get(&self.one(&link.control, &self.sql.close, &params).await?, 0)?;
        while more {
            more = get(&self.one(&link.control, &self.sql.clear, &params).await?, 0)?;
        }
        Ok(())
    }

    pub(super) async fn enter(
        &self,
        session: ClaimId,
        claim: &Claim,
        enter: Enter,
    ) -> Answer<Entered> {
        let link = self.dialer.link().await?;
        let (units, limit) = (i64::from(claim.units()), i64::from(claim.limit()));
        let (key, note, stay) = (claim.key.as_str(), claim.note.as_str(), enter == Enter::Wait);
        let params: [Param<'_>; 7] = [
            (&Id(session), Type::UUID),
            (&Id(claim.id), Type::UUID),
            (&key, Type::TEXT),
            (&units, Type::INT8),
            (&limit, Type::INT8),
            (&note, Type::TEXT),
            (&stay, Type::BOOL),
        ];
        let row = self.one(&link.claims, &self.sql.enter, &params).await?;
        match get::<&str>(&row, 0)? {
            "held" => Ok(Entered::Held(fence(get(&row, 1)?)?)),
            "waiting" => Ok(Entered::Waiting(ahead(&row)?, micros(get(&row, 3)?))),
            "refused" => Ok(Entered::Refused(ahead(&row)?)),
            outcome => Ok(Entered::No(refusal(outcome, &row)?)),
        }
    }

    /// All or nothing; else with which of the claims may not enter.
    pub(super) async fn enter_all(
        &self,
        session: ClaimId,
        claims: &[Claim],
    ) -> Answer<Result<Together, (usize, Refusal)>> {
        let link = self.dialer.link().await?;
        let each = claims.iter();
        let ids: Vec<_> = each.clone().map(|claim| Id(claim.id)).collect();
        let keys: Vec<_> = each.clone().map(|claim| claim.key.as_str()).collect();
        let units: Vec<_> = each.clone().map(|claim| i64::from(claim.units())).collect();
        let limits: Vec<_> = each.clone().map(|claim| i64::from(claim.limit())).collect();
        let notes: Vec<_> = each.map(|claim| claim.note.as_str()).collect();
        let params: [Param<'_>; 6] = [
            (&Id(session), Type::UUID),
            (&ids, Type::UUID_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&units, Type::INT8_ARRAY),
            (&limits, Type::INT8_ARRAY),
            (&notes, Type::TEXT_ARRAY),
        ];
        let row = self.one(&link.claims, &self.sql.enter_all, &params).await?;
        let outcome = get::<&str>(&row, 0)?;
        if outcome == "held" {
            let fences: Vec<i64> = get(&row, 1)?;
            let fences = fences.into_iter().map(fence).collect::<Answer<_>>()?;
            return Ok(Ok(Together::Held(fences)));
        }
        let which = usize::try_from(get::<i64>(&row, 3)?).ok();
        let at = which.and_then(|which| which.checked_sub(1)).filter(|at| *at < claims.len());
        let at = at.ok_or_else(Failure::nonsense)?;
        Ok(match outcome {
            "refused" => Ok(Together::Refused { at, ahead: ahead(&row)? }),
            outcome => Err((at, refusal(outcome, &row)?)),
        })
    }

    pub(super) async fn leave(&self, session: ClaimId, claim: &Claim) -> Answer<Left> {
        let link = self.dialer.link().await?;
        let key = claim.key.as_str();
        let params: [Param<'_>; 3] =
            [(&Id(session), Type::UUID), (&Id(claim.id), Type::UUID), (&key, Type::TEXT)];
        let row = self.one(&link.claims, &self.sql.leave, &params).await?;
        match get::<&str>(&row, 0)? {
            "released" => Ok(Left::Released),
            "withdrawn" => Ok(Left::Withdrawn),
            "gone" => Ok(Left::Gone),
            _ => Err(Failure::nonsense()),
        }
    }

    pub(super) async fn amend(&self, session: ClaimId, claim: &Claim) -> Answer<bool> {
        let link = self.dialer.link().await?;
        let (key, note, units) =
            (claim.key.as_str(), claim.note.as_str(), i64::from(claim.units()));
        let params: [Param<'_>; 5] = [
            (&Id(session), Type::UUID),
            (&Id(claim.id), Type::UUID),
            (&key, Type::TEXT),
            (&units, Type::INT8),
            (&note, Type::TEXT),
        ];
        get(&self.one(&link.claims, &self.sql.amend, &params).await?, 0)
    }

    pub(super) async fn revoke(&self, key: &Key, claim: ClaimId) -> Answer<bool> {
        let link = self.dialer.link().await?;
        let params: [Param<'_>; 2] = [(&key.as_str(), Type::TEXT), (&Id(claim), Type::UUID)];
        get(&self.one(&link.control, &self.sql.revoke, &params).await?, 0)
    }

    /// The live claims of a key in order.
    pub(super) async fn inspect(&self, key: &Key) -> Answer<Vec<Party>> {
        let link = self.dialer.link().await?;
        let params: [Param<'_>; 1] = [(&key.as_str(), Type::TEXT)];
        let rows = self.ask(&link.control, &self.sql.inspect, &params).await?;
        rows.iter().map(|row| party(row, 0)).collect()
    }

    pub(super) async fn keys(&self, prefix: &str) -> Answer<Vec<Key>> {
        let link = self.dialer.link().await?;
        let params: [Param<'_>; 1] = [(&prefix, Type::TEXT)];
        let rows = self.ask(&link.control, &self.sql.keys, &params).await?;
        rows.iter().map(|row| Key::new(get(row, 0)?).map_err(|_| Failure::nonsense())).collect()
    }

    async fn ask(&self, lane: &Lane, sql: &str, params: &[Param<'_>]) -> Answer<Vec<Row>> {
        lane.ask(&self.config().schema, sql, params).await
    }

    async fn one(&self, lane: &Lane, sql: &str, params: &[Param<'_>]) -> Answer<Row> {
        self.ask(lane, sql, params).await?.into_iter().next().ok_or_else(Failure::nonsense)
    }
}

fn refusal(outcome: &str, row: &Row) -> Answer<Refusal> {
    match outcome {
        "ended" => Ok(Refusal::Ended),
        "disagrees" => Ok(Refusal::Disagrees(count(row, LIMIT)?)),
        _ => Err(Failure::nonsense()),
    }
}

/// Who and how many are ahead, from a row of `enter`.
fn ahead(row: &Row) -> Answer<Ahead> {
    let rank: i64 = get(row, 2)?;
    let holder = match get::<Option<Id>>(row, 4)? {
        Some(_) => Some(party(row, 4)?),
        None => None,
    };
    Ok(Ahead { rank: Some(u32::try_from(rank).unwrap_or(u32::MAX)), holder, foreign: false })
}

/// A holder or a waiter, from the eight columns that begin at `at`.
fn party(row: &Row, at: usize) -> Answer<Party> {
    let Id(claim) = get(row, at)?;
    let note = |at| Note::new(get(row, at)?).map_err(|_| Failure::nonsense());
    Ok(Party {
        claim: Some(claim),
        owner: note(at + 1)?,
        note: note(at + 2)?,
        fence: get::<Option<i64>>(row, at + 3)?.map(fence).transpose()?,
        age: Some(micros(get(row, at + 4)?)),
        left: Some(micros(get(row, at + 5)?)),
        units: count(row, at + 6)?,
        limit: count(row, at + 7)?,
    })
}

fn count(row: &Row, at: usize) -> Answer<u32> {
    Ok(u32::try_from(get::<i64>(row, at)?).unwrap_or(u32::MAX))
}

fn fence(number: i64) -> Answer<Fence> {
    u64::try_from(number).map(Fence::new).map_err(|_| Failure::nonsense())
}

fn micros(number: Option<i64>) -> Duration {
    Duration::from_micros(number.and_then(|number| number.try_into().ok()).unwrap_or_default())
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Answer<T> {
    row.try_get(at).map_err(|_| Failure::nonsense())
}

/// The name of a session in the database; `None` for one that was never opened here.
pub(super) fn uuid(session: &SessionId) -> Option<ClaimId> {
    ClaimId::from_hex(session.as_str())
}

/// An id as PostgreSQL's `uuid`: 16 bytes. Its `Debug` shows nothing.
#[derive(Debug, Clone, Copy)]
struct Id(ClaimId);

impl ToSql for Id {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    tokio_postgres::types::to_sql_checked!();
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(ClaimId::from_random(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}
