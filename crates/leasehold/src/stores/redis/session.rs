//! A session's name carries its terms: nothing is kept on the server for it, so that any process
//! that knows the name can go on with it.

use std::time::Duration;

use leasehold_core::{Note, SessionId, Terms};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The terms of a session, and the channel that its messages come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stores) struct Session {
    channel: String,
    ttl: Duration,
    owner: Note,
}

impl Session {
    /// A new one. `channel` is 32 random hexadecimal digits.
    pub(in crate::stores) fn new(channel: String, terms: &Terms) -> Self {
        // Upwards, to the server's whole milliseconds: never shorter than its holder thinks.
        let millis = terms.ttl.as_nanos().div_ceil(1_000_000);
        let ttl = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        Self { channel, ttl, owner: terms.owner.clone() }
    }

    /// Its name.
    pub(in crate::stores) fn id(&self) -> SessionId {
        let owner = utf8_percent_encode(self.owner.as_str(), NON_ALPHANUMERIC);
        SessionId::new(&format!("{}.{}.{owner}", self.channel, self.ttl.as_millis()))
    }

    /// Reads a name; `None` if it is not one of this store's.
    pub(in crate::stores) fn of(id: &SessionId) -> Option<Self> {
        let (channel, rest) = id.as_str().split_once('.')?;
        let (ttl, owner) = rest.split_once('.')?;
        let random = channel.len() == 32 && channel.bytes().all(|byte| byte.is_ascii_hexdigit());
        let ttl = Duration::from_millis(ttl.parse().ok()?);
        let bounded = (super::MIN_TTL..=leasehold_core::Timing::MAX_TTL).contains(&ttl);
        let owner = Note::new(&percent_decode_str(owner).decode_utf8().ok()?).ok()?;
        (random && bounded).then(|| Self { channel: channel.to_owned(), ttl, owner })
    }

    pub(in crate::stores) fn channel(&self) -> &str {
        &self.channel
    }

    /// The TTL in milliseconds, as the scripts take it.
    pub(in crate::stores) fn ttl(&self) -> String {
        self.ttl.as_millis().to_string()
    }

    /// The TTL.
    #[cfg(feature = "redlock")]
    pub(in crate::stores) fn lasts(&self) -> Duration {
        self.ttl
    }

    pub(in crate::stores) fn owner(&self) -> &str {
        self.owner.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_carries_the_terms_and_strange_names_carry_none() {
        let terms = Terms {
            ttl: Duration::from_secs(3),
            owner: Note::new("höst:1 .\n").unwrap(),
            detached: true,
        };
        let session = Session::new("0123456789abcdef0123456789abcdef".into(), &terms);
        assert!(session.id().as_str().is_ascii());
        assert_eq!(Session::of(&session.id()), Some(session));
        let odd = Terms { ttl: Duration::from_micros(100_001), ..terms };
        assert_eq!(Session::new(String::new(), &odd).ttl(), "101");
        for strange in [
            "",
            ".",
            "..",
            "x.3000.",
            "0123456789abcdef0123456789abcdef.0.",
            "0123456789abcdef0123456789abcdef.3000",
            "0123456789abcdef0123456789abcdef.-1.x",
            "0123456789abcdef0123456789abcdef.99999999999.x",
            "0123456789abcdef0123456789abcde*.3000.x",
        ] {
            assert_eq!(Session::of(&SessionId::new(strange)), None, "{strange}");
        }
    }
}
