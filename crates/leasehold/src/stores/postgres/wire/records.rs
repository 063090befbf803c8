//! The statements over records.

use leasehold_core::{Claim, Key, Provided, Reading, Record, Version, Written};
use tokio_postgres::types::Type;

use super::lane::Param;
use super::{Answer, Failure, Id, Wire, get, micros, uuid};

impl Wire {
    pub(in super::super) async fn read(&self, key: &Key) -> Answer<Reading> {
        let link = self.dialer.link().await?;
        let params: [Param<'_>; 1] = [(&key.as_str(), Type::TEXT)];
        let row = self.one(&link.claims, &self.sql.read, &params).await?;
        let (value, version) = (get::<Option<&[u8]>>(&row, 1)?, get::<Option<i64>>(&row, 2)?);
        let written = match (value, version) {
            (Some(value), Some(version)) => {
                let version = u64::try_from(version).map_err(|_| Failure::nonsense())?;
                Some(Written { value: value.into(), version: Version::new(version) })
            }
            _ => None,
        };
        Ok(Reading { written, at: Some(micros(get(&row, 0)?)) })
    }

    pub(in super::super) async fn write(
        &self,
        key: &Key,
        provided: Provided<'_>,
        record: &Record,
    ) -> Answer<bool> {
        let (expected, session, claim) = match provided {
            // No number that the sequence does not reach is a version.
            Provided::Unchanged(version) => {
                let number = version.map(|it| i64::try_from(it.get()).unwrap_or(i64::MAX));
                (number, None, None)
            }
            Provided::Held(session, Claim { id, .. }) => match uuid(session) {
                Some(session) => (None, Some(Id(session)), Some(Id(*id))),
                // It was not opened here, so it holds nothing.
                None => return Ok(false),
            },
        };
        let keep = i64::try_from(record.keep().as_micros()).unwrap_or(i64::MAX);
        let params: [Param<'_>; 6] = [
            (&key.as_str(), Type::TEXT),
            (&record.value(), Type::BYTEA),
            (&keep, Type::INT8),
            (&expected, Type::INT8),
            (&session, Type::UUID),
            (&claim, Type::UUID),
        ];
        let link = self.dialer.link().await?;
        get(&self.one(&link.claims, &self.sql.write, &params).await?, 0)
    }
}
