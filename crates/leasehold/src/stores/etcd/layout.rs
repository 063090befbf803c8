//! What is written where on the server.
//!
//! | key | value | meaning |
//! |---|---|---|
//! | `K/<lease>-<claim>` | JSON | a claim of ours on key `K` |
//! | `K/<anything without a slash>` | any | a contender by the ecosystem's own recipes |
//! | `leasehold:session:<lease>` | JSON | a session of ours; contains no slash, so no contender |
//! | `leasehold:record:<K>` | the record's bytes | the record of `K`, whose slashes are `%2F` and percent signs `%25`: no contender either |
//!
//! A contender's key is the lock's key, a slash, and a segment without a slash: whatever precedes
//! the last slash is the lock's key, so no two of our locks share a contender. The recipes look
//! at *everything* below `K/`, also at `K/b/<lease>`, a contender of `K/b`: they wait for more
//! than they have to. We do not, and exclusion holds all the same, because a contender of `K`
//! itself is seen by both.

use leasehold_core::line::Share;
use leasehold_core::{Claim, ClaimId, Fence, Key, Note, Party, SessionId};
use serde::{Deserialize, Serialize};

use super::proto::KeyValue;

/// The layout that this version writes. One that is newer is respected, not understood.
const VERSION: u32 = 1;

/// A lease's id: the name of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LeaseId(pub(super) i64);

impl LeaseId {
    /// Reads what [`LeaseId::session`] wrote.
    pub(super) fn of(session: &SessionId) -> Option<Self> {
        let id = i64::from_str_radix(session.as_str(), 16).ok()?;
        (id > 0).then_some(Self(id))
    }

    pub(super) fn session(self) -> SessionId {
        SessionId::new(&format!("{:x}", self.0))
    }

    /// The key that lives as long as the session does.
    pub(super) fn session_key(self) -> Vec<u8> {
        format!("leasehold:session:{:x}", self.0).into_bytes()
    }

    /// A key beside those of the session's claims on `key`, which is never written.
    pub(super) fn unused_key(self, key: &Key) -> Vec<u8> {
        format!("{key}/{:x}-", self.0).into_bytes()
    }

    /// The key of a claim.
    pub(super) fn claim_key(self, key: &Key, claim: &ClaimId) -> Vec<u8> {
        format!("{key}/{:x}-{}", self.0, claim.to_hex()).into_bytes()
    }
}

/// The key of a key's record. It contains no slash, so it is a contender of no lock, whatever the
/// lock's name is; and no two keys share one.
pub(super) fn record_key(key: &Key) -> Vec<u8> {
    let name = key.as_str().replace('%', "%25").replace('/', "%2F");
    format!("leasehold:record:{name}").into_bytes()
}

/// All keys below `K/`: from the first to the one after the last.
pub(super) fn below(key: &Key) -> (Vec<u8>, Vec<u8>) {
    (format!("{key}/").into_bytes(), format!("{key}0").into_bytes())
}

/// The keys that begin with `prefix`: from the first to the one after the last.
pub(super) fn beginning_with(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    if prefix.is_empty() {
        // Two zero bytes mean "all" to etcd.
        return (vec![0], vec![0]);
    }
    let first = prefix.as_bytes().to_vec();
    let mut end = first.clone();
    // UTF-8 has no byte 0xff, so the last one can always be counted up.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (first, end)
}

/// The lock's key and the claim's id, of a key that only leasehold writes.
pub(super) fn read_claim_key(key: &[u8]) -> Option<(Key, ClaimId)> {
    let text = std::str::from_utf8(key).ok()?;
    let (key, segment) = text.rsplit_once('/')?;
    let (lease, claim) = segment.split_once('-')?;
    let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    if lease.is_empty() || lease.len() > 16 || !lease.bytes().all(hex) {
        return None;
    }
    Some((Key::new(key).ok()?, ClaimId::from_hex(claim)?))
}

/// What the key of a claim holds, for others to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    leasehold: u32,
    owner: String,
    note: String,
    units: u32,
    limit: u32,
    /// Absent while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    granted: Option<Granted>,
}

/// Under which fence a claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Granted {
    /// The revision that wrote this value.
    Here,
    /// This revision.
    At(u64),
}

impl Label {
    pub(super) fn new(owner: &str, claim: &Claim, granted: Option<Granted>) -> Self {
        Self {
            leasehold: VERSION,
            owner: owner.to_owned(),
            note: claim.note.as_str().to_owned(),
            units: claim.units(),
            limit: claim.limit(),
            granted,
        }
    }

    /// The label of the same hold with the note of `claim`, and its units where they are fewer.
    pub(super) fn amended(&self, claim: &Claim, granted: Granted) -> Self {
        Self {
            note: claim.note.as_str().to_owned(),
            units: self.units.min(claim.units()),
            granted: Some(granted),
            ..self.clone()
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers cannot fail to be written as JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn from_bytes(value: &[u8]) -> Option<Self> {
        let label: Self = serde_json::from_slice(value).ok()?;
        let sound = label.leasehold == VERSION && (1..=label.limit).contains(&label.units);
        sound.then_some(label)
    }
}

/// Somebody who holds `K` or stands in line for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) key: Vec<u8>,
    pub(super) created: i64,
    pub(super) changed: i64,
    pub(super) lease: LeaseId,
    /// The claim, if it is one of leasehold.
    pub(super) claim: Option<ClaimId>,
    /// `None` where it cannot be read: a foreign contender, or one of a newer leasehold.
    pub(super) label: Option<Label>,
    /// What a foreign contender says of itself: the proposal of an election's candidate.
    proposal: Note,
}

impl Contender {
    /// Reads a contender for `key`; `None` for what lies deeper.
    pub(super) fn read(key: &Key, kv: KeyValue) -> Option<Self> {
        let segment = kv.key.strip_prefix(key.as_str().as_bytes())?.strip_prefix(b"/")?;
        if segment.contains(&b'/') {
            return None;
        }
        let claim = read_claim_key(&kv.key).map(|(_, claim)| claim);
        let text = std::str::from_utf8(&kv.value).ok().filter(|_| claim.is_none());
        Some(Self {
            proposal: text.and_then(|text| Note::new(text).ok()).unwrap_or_default(),
            created: kv.create_revision,
            changed: kv.mod_revision,
            lease: LeaseId(kv.lease),
            label: claim.and_then(|_| Label::from_bytes(&kv.value)),
            claim,
            key: kv.key,
        })
    }

    /// One that cannot be read is taken for the owner of everything.
    pub(super) fn share(&self) -> Share {
        self.label.as_ref().map_or(Share { units: 1, limit: 1 }, |label| Share {
            units: label.units,
            limit: label.limit,
        })
    }

    /// The fence under which it holds, if it was written down.
    pub(super) fn fence(&self) -> Option<Fence> {
        let fence = match self.label.as_ref()?.granted? {
            Granted::Here => fence_at(self.changed),
            Granted::At(revision) => Fence::new(revision),
        };
        Some(fence)
    }

    /// Whether it certainly was alone at the head of the line.
    pub(super) fn held_alone(&self) -> bool {
        let Share { units, limit } = self.share();
        units == limit && self.fence().is_some()
    }

    pub(super) fn party(&self) -> Party {
        let Share { units, limit } = self.share();
        let text = |text: &str| Note::new(text).unwrap_or_default();
        let label = self.label.as_ref();
        Party {
            claim: self.claim,
            owner: label.map(|label| text(&label.owner)).unwrap_or_default(),
            note: label.map_or_else(|| self.proposal.clone(), |label| text(&label.note)),
            fence: self.fence(),
            // etcd has no clock that it shows.
            age: None,
            left: None,
            units,
            limit,
        }
    }
}

/// Revisions are positive.
pub(super) fn fence_at(revision: i64) -> Fence {
    Fence::new(u64::try_from(revision).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn contender(of: &str, at: &str, value: &[u8]) -> Option<Contender> {
        let kv =
            KeyValue { key: at.as_bytes().to_vec(), value: value.to_vec(), ..KeyValue::default() };
        Contender::read(&key(of), kv)
    }

    #[test]
    fn a_claims_key_is_read_back() {
        let claim = ClaimId::from_random([7; 16]);
        for text in ["a", "a/b", "a/", "/", "//", "a-b/c-d", "鍵"] {
            let written = LeaseId(0x694d).claim_key(&key(text), &claim);
            assert_eq!(read_claim_key(&written), Some((key(text), claim)), "{text}");
            assert!(contender(text, std::str::from_utf8(&written).unwrap(), b"").is_some());
        }
    }

    #[test]
    fn nested_names_share_no_contender() {
        let names = ["a", "a/", "a//", "a/b", "a/b/", "/", "a/b/c"];
        let claim = ClaimId::from_random([7; 16]);
        for written in names {
            let at = LeaseId(1).claim_key(&key(written), &claim);
            let at = std::str::from_utf8(&at).unwrap();
            for read in names {
                assert_eq!(contender(read, at, b"").is_some(), read == written, "{read} {written}");
            }
        }
    }

    #[test]
    fn application_data_is_no_claim() {
        for other in ["a/b", "a/1-2", "a/694d", "a", "a/x-07070707070707070707070707070707"] {
            assert_eq!(read_claim_key(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_records_key_is_below_no_locks_name() {
        let names = [
            "a",
            "a/b",
            "a%2Fb",
            "a%252Fb",
            "a%",
            "/",
            "//",
            "%",
            "leasehold:record:a",
            "leasehold:record:a/b",
            "leasehold:session:1",
            "\u{e9}/\u{9375}",
        ];
        let written = names.map(|name| record_key(&key(name)));
        for (n, record) in written.iter().enumerate() {
            assert!(!written[..n].contains(record), "{:?}", names[n]);
            assert_eq!(read_claim_key(record), None);
            for name in names {
                let (first, end) = below(&key(name));
                assert!(*record < first || *record >= end, "{record:?} is below {name:?}");
            }
        }
    }

    #[test]
    fn a_foreign_proposal_is_a_note_where_it_is_text() {
        let note = |value: &[u8]| contender("k", "k/694d", value).unwrap().party().note;
        assert_eq!(note(b"10.0.0.7:8080").as_str(), "10.0.0.7:8080");
        for none in [&b""[..], b"\xff", b"a\0b", &[b'x'; 1025]] {
            assert_eq!(note(none), Note::default());
        }
        // What is named as ours and cannot be read is no proposal.
        let newer = contender("k", "k/1-07070707070707070707070707070707", b"newer").unwrap();
        assert_eq!(newer.party().note, Note::default());
    }

    #[test]
    fn what_cannot_be_read_counts_as_the_whole_limit() {
        let at = "k/1-07070707070707070707070707070707";
        let newer = br#"{"leasehold":2,"owner":"","note":"","units":1,"limit":9}"#;
        let absurd = br#"{"leasehold":1,"owner":"","note":"","units":9,"limit":1}"#;
        for value in [&b""[..], b"not JSON", newer, absurd] {
            let read = contender("k", at, value).unwrap();
            assert_eq!(read.share(), Share { units: 1, limit: 1 });
            assert!(!read.held_alone());
        }
        let foreign = br#"{"leasehold":1,"owner":"","note":"","units":1,"limit":9}"#;
        let foreign = contender("k", "k/694d", foreign).unwrap();
        assert_eq!(foreign.share(), Share { units: 1, limit: 1 });
    }

    #[test]
    fn a_prefix_has_an_end() {
        assert_eq!(beginning_with(""), (vec![0], vec![0]));
        assert_eq!(beginning_with("a/"), (b"a/".to_vec(), b"a0".to_vec()));
        let (first, end) = beginning_with("鍵");
        assert!(first < end && end.as_slice() > "鍵\u{10ffff}".as_bytes());
    }

    #[test]
    fn a_session_is_its_lease() {
        let lease = LeaseId(0x2040_a205_f8f2_7105);
        assert_eq!(lease.session().as_str(), "2040a205f8f27105");
        assert_eq!(LeaseId::of(&lease.session()), Some(lease));
        for bad in ["", "0", "-1", "zz", "ffffffffffffffffff"] {
            assert_eq!(LeaseId::of(&SessionId::new(bad)), None, "{bad}");
        }
    }
}
