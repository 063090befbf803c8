//! Where things are: the names of the keys beside a locked key, and what the scripts keep in them.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use leasehold_core::{ClaimId, Fence, Key, Note, Party};

/// The beginning of every name that is the store's own.
const OWN: &str = "leasehold:{";

const SLOTS: usize = 16384;

/// For each slot of a cluster the smallest number in base 36 that hashes to it.
///
/// The key itself inside braces would not do: `a}b`, `{}x` and `{u}:1` end up in another slot than
/// the key does. This table is part of the layout: it must never change.
static TAGS: LazyLock<Vec<[u8; 4]>> = LazyLock::new(|| {
    let mut tags = vec![[0; 4]; SLOTS];
    let mut missing = SLOTS;
    for number in 0_u32.. {
        let tag = base36(number);
        let place = &mut tags[usize::from(crc16(trimmed(&tag)) % 16384)];
        if *place == [0; 4] {
            *place = tag;
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    tags
});

/// The names that belong to one locked key: the key itself, its memory, its line, what is known of
/// those in line, and which of them hold.
pub(super) fn names(key: &Key) -> [String; 5] {
    [
        key.as_str().to_owned(),
        name_beside(key, "meta"),
        name_beside(key, "line"),
        name_beside(key, "wait"),
        name_beside(key, "hold"),
    ]
}

/// The names that belong to the record of one key: the record, and the memory of its version.
pub(super) fn names_of_record(key: &Key) -> [String; 2] {
    [name_beside(key, "record"), name_beside(key, "version")]
}

/// The name of what is kept beside a locked key, in its slot. What counts as a claim is of four letters.
pub(in crate::stores) fn name_beside(key: &Key, kind: &str) -> String {
    format!("{OWN}{}}}:{kind}:{key}", tag(key.as_str()))
}

/// Whether a key would meet the store's own names.
pub(in crate::stores) fn is_own(key: &Key) -> bool {
    key.as_str().starts_with(OWN)
}

/// The pattern for `SCAN` that finds what stands beside the keys that begin with `prefix`: of one
/// kind, or of `????`.
pub(in crate::stores) fn pattern(kind: &str, prefix: &str) -> String {
    let mut pattern = format!("leasehold:{{*}}:{kind}:");
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

/// The locked key that a name stands beside, if it is a memory or a line.
pub(super) fn beside(name: &[u8]) -> Option<Key> {
    beside_as("meta", name).or_else(|| beside_as("line", name))
}

/// The locked key that a name of this kind stands beside.
pub(in crate::stores) fn beside_as(kind: &str, name: &[u8]) -> Option<Key> {
    let rest = std::str::from_utf8(name).ok()?.strip_prefix(OWN)?;
    let (found, rest) = rest.split_once("}:")?;
    let key = rest.strip_prefix(kind)?.strip_prefix(':')?;
    (found == tag(key)).then(|| Key::new(key).ok())?
}

/// A name that is in the slot of a key and says whose it is.
pub(super) fn in_slot_of(key: &Key, what: &str) -> String {
    format!("{{{}}}:{what}", tag(key.as_str()))
}

fn tag(key: &str) -> &'static str {
    let tag = trimmed(&TAGS[usize::from(slot(key))]);
    // Digits and lower-case letters only.
    std::str::from_utf8(tag).unwrap_or_default()
}

/// The slot of a key in a cluster.
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>
pub(super) fn slot(key: &str) -> u16 {
    let hashed = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    crc16(hashed.as_bytes()) % 16384
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// At most four digits, right-aligned, zero bytes before.
fn base36(mut number: u32) -> [u8; 4] {
    let mut digits = [0; 4];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits
}

fn trimmed(tag: &[u8; 4]) -> &[u8] {
    &tag[tag.iter().take_while(|byte| **byte == 0).count()..]
}

/// What a claim leaves in the store for others to read: the `tail` of the scripts.
pub(in crate::stores) fn tail(channel: &str, owner: &str, note: &Note) -> String {
    format!("{channel} {} {owner}{}", owner.len(), note.as_str())
}

/// The holder that the memory of a key tells of, with `left` of its TTL.
pub(in crate::stores) fn holder(memory: &[u8], now: u64, left: Option<Duration>) -> Option<Party> {
    let mut fields = memory.splitn(6, |byte| *byte == b' ');
    if fields.next()? != b"1" {
        return None;
    }
    let fence = number(fields.next()?)?;
    let since = number(fields.next()?)?;
    let _ttl = fields.next()?;
    let claim = claim(fields.next()?)?;
    let (owner, note) = owner_and_note(fields.next()?)?;
    Some(Party {
        claim: Some(claim),
        owner,
        note,
        fence: Some(Fence::new(fence)),
        age: Some(Duration::from_micros(now.saturating_sub(since))),
        left,
        units: 1,
        limit: 1,
    })
}

/// What the owner of a claim is told by in a cluster, as the memory of a key or an entry in its line
/// says: the one field before the owner that begins with a brace.
pub(super) fn told_by(text: &[u8]) -> Option<&str> {
    let channel = text.split(|byte| *byte == b' ').find(|field| field.first() == Some(&b'{'));
    std::str::from_utf8(channel?).ok()
}

/// One that stands in line, be it that it waits or that it holds beside others: from its ticket and
/// what is kept of it.
pub(in crate::stores) fn in_line(
    claim_id: &[u8],
    ticket: Option<u64>,
    entry: &[u8],
    now: u64,
) -> Option<Party> {
    let mut fields = entry.splitn(7, |byte| *byte == b' ');
    let expiry = number(fields.next()?)?;
    let _ttl = fields.next()?;
    let units = u32::try_from(number(fields.next()?)?).ok()?;
    let limit = u32::try_from(number(fields.next()?)?).ok()?;
    let fence = Some(number(fields.next()?)?).filter(|fence| *fence > 0).map(Fence::new);
    let granted = number(fields.next()?)?;
    let since = if fence.is_some() { Some(granted) } else { ticket };
    let (owner, note) = owner_and_note(fields.next()?)?;
    Some(Party {
        claim: Some(claim(claim_id)?),
        owner,
        note,
        fence,
        age: since.map(|since| Duration::from_micros(now.saturating_sub(since))),
        left: Some(Duration::from_millis(expiry.saturating_sub(now / 1000))),
        units,
        limit,
    })
}

fn owner_and_note(tail: &[u8]) -> Option<(Note, Note)> {
    let mut fields = tail.splitn(3, |byte| *byte == b' ');
    let _channel = fields.next()?;
    let owner_length = usize::try_from(number(fields.next()?)?).ok()?;
    let (owner, note) = fields.next()?.split_at_checked(owner_length)?;
    let note_of = |text| Note::new(&into_text(text)).ok();
    Some((note_of(owner)?, note_of(note)?))
}

fn into_text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A number that a script wrote.
pub(in crate::stores) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A claim id that a script wrote.
pub(in crate::stores) fn claim(text: &[u8]) -> Option<ClaimId> {
    ClaimId::from_hex(std::str::from_utf8(text).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_are_part_of_the_layout() {
        // The check value of CRC-16/XMODEM, and two slots from the cluster specification.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot("foo{}{bar}"), crc16(b"foo{}{bar}") % 16384);
        assert_eq!(slot("foo{{bar}}zap"), crc16(b"{bar") % 16384);
        for (slot_number, tag) in TAGS.iter().enumerate() {
            assert_eq!(usize::from(crc16(trimmed(tag))) % SLOTS, slot_number);
        }
        let all: Vec<u8> = TAGS.iter().flat_map(|tag| [trimmed(tag), b","].concat()).collect();
        assert_eq!(
            (all.len(), crc16(&all)),
            (64_495, 30_509),
            "a changed table would split the line of a key in two"
        );
    }

    #[test]
    fn a_name_leads_back_to_its_key_and_to_no_other() {
        for text in ["k", "a}b", "{}x", "{u}:1", "a b", "a\nb", "*?[x]\\", "}:meta:x", "ключ"] {
            let key = Key::new(text).unwrap();
            let [_, meta, line, wait, hold] = names(&key);
            for beside in [&meta, &line, &wait, &hold, &in_slot_of(&key, "x")] {
                assert_eq!(slot(beside), slot(text), "{text:?} and {beside:?}");
            }
            assert_eq!(beside(meta.as_bytes()), Some(key.clone()), "{text:?}");
            assert_eq!(beside(line.as_bytes()), Some(key.clone()), "{text:?}");
            let [record, version] = names_of_record(&key);
            for other in [wait, hold, record, version] {
                assert_eq!(beside(other.as_bytes()), None, "{other:?}");
            }
        }
        assert_eq!(beside(b"leasehold:{zzzz}:meta:k"), None, "a tag of another slot");
    }

    #[test]
    fn an_entry_that_is_not_ours_is_nobody() {
        let id = b"000102030405060708090a0b0c0d0e0f";
        let party = in_line(id, Some(4), b"30 20 2 3 17 5 ab 2 menote", 10_000).unwrap();
        assert_eq!((party.owner.as_str(), party.note.as_str()), ("me", "note"));
        assert_eq!((party.units, party.limit, party.fence), (2, 3, Some(Fence::new(17))));
        assert_eq!(party.age, Some(Duration::from_micros(9_995)));
        assert_eq!(party.left, Some(Duration::from_millis(20)));
        let waits = in_line(id, Some(4), b"30 20 2 3 0 0 ab 2 menote", 10_000).unwrap();
        assert_eq!((waits.fence, waits.age), (None, Some(Duration::from_micros(9_996))));
        for strange in ["", "30 20 ab 2 me", "30 20 2 3 17 ab 2 me", "30 20 2 4294967296 0 0 ab 0 "]
        {
            assert_eq!(in_line(id, Some(4), strange.as_bytes(), 10_000), None, "{strange:?}");
        }
        assert_eq!(in_line(b"leasehold", Some(4), b"30 20 2 3 17 5 ab 2 me", 10_000), None);
    }

    #[test]
    fn memory_that_is_not_ours_is_no_holder() {
        let good = b"1 17 5 1000 000102030405060708090a0b0c0d0e0f ab 2 menote with spaces";
        let party = holder(good, 10, None).unwrap();
        assert_eq!((party.owner.as_str(), party.note.as_str()), ("me", "note with spaces"));
        assert_eq!(
            (party.fence, party.age),
            (Some(Fence::new(17)), Some(Duration::from_micros(5)))
        );
        for end in 0..good.len() - "note with spaces".len() - 2 {
            assert_eq!(holder(&good[..end], 10, None), None, "{end}");
        }
        assert_eq!(
            holder(b"1 17 5 1000 000102030405060708090a0b0c0d0e0f ab 99 me", 10, None),
            None
        );
        assert_eq!(holder(b"2 17 5 1000 000102030405060708090a0b0c0d0e0f ab 2 me", 10, None), None);
    }
}
