//! The names of nodes: where a key's line is, and who a node in it stands for.

use std::fmt::Write as _;

use leasehold_core::line::Share;
use leasehold_core::{Claim, ClaimId, Key};
use percent_encoding::percent_decode_str;

/// Whose recipe a leasehold claim looks like.
///
/// Curator and kazoo ignore each other's nodes, so no name is respected by both; leasehold
/// respects both whatever it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Curator,
    Kazoo,
}

/// What stands before the sequence number in a contender's name: that of Curator's mutex (and of
/// the recipe in ZooKeeper's own documentation), its read/write lock and leader latch; of kazoo's
/// locks.
const MARKS: [&str; 6] = ["lock-", "__READ__", "__WRIT__", "latch-", "__lock__", "__rlock__"];

/// What a contender's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) name: String,
    /// The server's counter when the node was created. It wraps, and starts over with a new
    /// parent: it orders nodes that exist at the same time, and nothing else.
    pub(super) sequence: i32,
    /// The claim, if the name is one that leasehold may have written.
    pub(super) claim: Option<ClaimId>,
    /// What it takes: all of it, unless its name says otherwise.
    pub(super) share: Share,
    /// What it is, if it is not of leasehold and more than an exclusive lock.
    pub(super) recipe: Option<Recipe>,
}

/// What others do that a mutex does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipe {
    /// Curator's or kazoo's reader: it stands beside readers, and beside nobody else.
    Reader,
    /// Curator's writer. While it writes it may begin to read as well, from its own place in line
    /// (CURATOR-621), and stop writing then: its end does not mean that there is nobody any more.
    Writer,
}

impl Dialect {
    /// The name of a claim's node, without the sequence number that the server appends.
    ///
    /// A claim that is no mutex says so in the name: then a list of names is enough to tell who
    /// holds. Readers and writers bear the marks of others' readers and writers, who look at no
    /// more than the mark and the number after it.
    pub(super) fn prefix(self, claim: &Claim) -> String {
        let share = if claim.limit() == 1 {
            String::new()
        } else {
            format!("{}of{}", claim.units(), claim.limit())
        };
        let hex = claim.id.to_hex();
        let mark = match (self, Share::from(claim)) {
            (Self::Curator, Share::READER) => "__READ__",
            (Self::Curator, Share { limit: u32::MAX, .. }) => "__WRIT__",
            (Self::Curator, _) => "lock-",
            (Self::Kazoo, Share::READER) => "__rlock__",
            (Self::Kazoo, _) => "__lock__",
        };
        match self {
            Self::Curator => {
                let (first, second, third) = (&hex[..8], &hex[8..12], &hex[12..16]);
                let uuid = format!("{first}-{second}-{third}-{}-{}", &hex[16..20], &hex[20..]);
                let dash = if share.is_empty() { "" } else { "-" };
                format!("_c_{uuid}-{share}{dash}{mark}")
            }
            Self::Kazoo => {
                let dash = if share.is_empty() { "" } else { "-" };
                format!("{hex}{dash}{share}{mark}")
            }
        }
    }
}

impl Contender {
    /// Whether it may claim fewer units than its name says: those are in its data.
    pub(super) const fn may_be_amended(&self) -> bool {
        self.claim.is_some() && self.share.units > 1
    }

    /// What a child of a key's node stands for; `None` if it has nothing to do with locks.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (front, sequence) = split_sequence(name)?;
        let marked = MARKS.iter().find_map(|mark| front.strip_suffix(mark).map(|who| (who, *mark)));
        let Some((who, mark)) = marked else {
            // The Java recipe: `x-<session>-`.
            let session = front.strip_prefix("x-")?.strip_suffix('-')?;
            let decimal = session.strip_prefix('-').unwrap_or(session);
            let numbered =
                !decimal.is_empty() && decimal.bytes().all(|digit| digit.is_ascii_digit());
            return numbered.then(|| Self::foreign(name, sequence, None));
        };
        let contender = match (mark, who_of(who)) {
            ("latch-", _) | (_, None) => Self::foreign(name, sequence, None),
            ("lock-" | "__lock__", Some(Who { claim, share: None, .. })) => {
                // Curator's, kazoo's or leasehold's: its data tell.
                Self { claim: Some(claim), ..Self::foreign(name, sequence, None) }
            }
            (_, Some(Who { claim, share: Some(share), .. })) => {
                Self { claim: Some(claim), share, ..Self::foreign(name, sequence, None) }
            }
            ("__READ__", Some(Who { dialect: Dialect::Curator, .. }))
            | ("__rlock__", Some(Who { dialect: Dialect::Kazoo, .. })) => {
                Self::foreign(name, sequence, Some(Recipe::Reader))
            }
            ("__WRIT__", _) => Self::foreign(name, sequence, Some(Recipe::Writer)),
            // Nobody's known name.
            _ => Self::foreign(name, sequence, None),
        };
        Some(contender)
    }

    /// One that is not of leasehold as far as its name says: it takes everything, unless it is
    /// certainly a reader.
    fn foreign(name: &str, sequence: i32, recipe: Option<Recipe>) -> Self {
        let share = if recipe == Some(Recipe::Reader) { Share::READER } else { Share::MUTEX };
        Self { name: name.to_owned(), sequence, claim: None, share, recipe }
    }
}

/// Takes the server's ten-character counter off the end. Java writes a negative one as `%010d`
/// does: a sign and nine digits, or ten for the most negative ones.
fn split_sequence(name: &str) -> Option<(&str, i32)> {
    let bytes = name.as_bytes();
    let begin = bytes.len().checked_sub(10)?;
    let (front, tail) = (name.get(..begin)?, name.get(begin..)?);
    let digits = tail.strip_prefix('-').unwrap_or(tail);
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    if let Ok(sequence) = tail.parse() {
        // `lock--2147483648`: the sign is the second of two dashes, or follows an underscore.
        let longer = tail.starts_with(|digit: char| digit.is_ascii_digit() && digit != '0')
            && (front.ends_with("--") || front.ends_with("__-"));
        if !longer {
            return Some((front, sequence));
        }
    }
    let front = front.strip_suffix('-')?;
    Some((front, format!("-{tail}").parse().ok()?))
}

/// Who a name says it is.
struct Who {
    claim: ClaimId,
    /// Leasehold's names say what the claim takes, but for those of mutexes.
    share: Option<Share>,
    dialect: Dialect,
}

/// Reads `_c_<uuid>-`, `_c_<uuid>-<units>of<limit>-`, `<hex>` and `<hex>-<units>of<limit>`.
fn who_of(who: &str) -> Option<Who> {
    let (dialect, id, rest) = if let Some(curator) = who.strip_prefix("_c_") {
        let (uuid, rest) = curator.split_at_checked(36)?;
        let rest = rest.strip_prefix('-')?;
        (Dialect::Curator, uuid.replace('-', ""), rest.strip_suffix('-').unwrap_or(rest))
    } else {
        let (hex, rest) = who.split_at_checked(32)?;
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix('-')? };
        (Dialect::Kazoo, hex.to_owned(), rest)
    };
    let claim = ClaimId::from_hex(&id)?;
    if rest.is_empty() {
        return Some(Who { claim, share: None, dialect });
    }
    let (units, limit) = rest.split_once("of")?;
    let share = Share { units: units.parse().ok()?, limit: limit.parse().ok()? };
    (1..=share.limit).contains(&share.units).then_some(Who { claim, share: Some(share), dialect })
}

/// The path, below the chroot, of the node whose children are the line of `key`.
///
/// A key is a path without the leading slash: `jobs/42` is `/jobs/42`. What ZooKeeper does not
/// allow in a path, and what would be mistaken for something else, is percent-encoded; so is `%`.
/// Different keys have different paths.
pub(super) fn path_of(key: &Key) -> String {
    path_to(key.as_str())
}

fn path_to(text: &str) -> String {
    let mut path = String::with_capacity(text.len() + 1);
    for (at, segment) in text.split('/').enumerate() {
        path.push('/');
        encode(segment, at == 0, &mut path);
    }
    path
}

/// Below the chroot, what leasehold keeps besides lines. No key leads there: in a key's path, two
/// hexadecimal digits follow each `%`.
pub(super) const KEPT: &str = "/%leasehold";

/// The path, below the chroot, of the node whose children hold the record of `key`, and that
/// child's name: the whole key as one part of a path.
pub(super) fn record_of(key: &Key) -> (String, String) {
    let mut name = String::new();
    encode(key.as_str(), false, &mut name);
    // So many that none of them has too many children to list, and few enough to stay.
    let hash = key
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (format!("{KEPT}/records/{:02x}", (hash ^ hash >> 16) & 0xff), name)
}

fn encode(segment: &str, first: bool, path: &mut String) {
    if segment.is_empty() {
        // No key contains NUL, so this is free to stand for nothing.
        path.push_str("%00");
        return;
    }
    // The server's own, relative segments, and what looks like a contender of the key above.
    let mistaken = matches!(segment, "." | "..")
        || (first && segment == "zookeeper")
        || Contender::parse(segment).is_some();
    for (at, character) in segment.char_indices() {
        if matches!(character, '%' | '/') || is_refused(character) || (mistaken && at == 0) {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                // Writing to a `String` cannot fail.
                let _ = write!(path, "%{byte:02X}");
            }
        } else {
            path.push(character);
        }
    }
}

/// What `PathUtils.validatePath` of ZooKeeper refuses: it looks at UTF-16 units, so surrogates
/// (every character past U+FFFF) are among it.
const fn is_refused(character: char) -> bool {
    matches!(character, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

/// Whether ZooKeeper takes this as a part of a path.
pub(super) fn is_plain_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && !segment.contains(is_refused)
}

/// The text whose path, below the chroot, this is: a key, or what the path of a key goes through.
pub(super) fn text_of(path: &str) -> Option<String> {
    let text = percent_decode_str(path.strip_prefix('/')?).decode_utf8().ok()?.replace('\0', "");
    // Somebody else's node may have a name that no key leads to.
    (path_to(&text) == path).then_some(text)
}

/// The key whose path, below the chroot, this is.
pub(super) fn key_of(path: &str) -> Option<Key> {
    Key::new(&text_of(path)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    use leasehold_core::Note;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn ordinary_keys_are_paths() {
        for text in ["jobs/42", "k", "locks/my-lock", "a b", "é", "{u}:1", "鍵"] {
            assert_eq!(path_of(&key(text)), format!("/{text}"));
        }
    }

    #[test]
    fn what_would_be_mistaken_is_encoded() {
        for (text, path) in [
            ("/", "/%00/%00"),
            ("a//b", "/a/%00/b"),
            ("/a", "/%00/a"),
            ("a/", "/a/%00"),
            (".", "/%2E"),
            ("../x", "/%2E./x"),
            ("...", "/..."),
            ("zookeeper/quota", "/%7Aookeeper/quota"),
            ("a/zookeeper", "/a/zookeeper"),
            ("100%", "/100%25"),
            ("a\nb", "/a%0Ab"),
            ("👩", "/%F0%9F%91%A9"),
            ("\u{fffd}", "/%EF%BF%BD"),
            ("k/lock-0000000001", "/k/%6Cock-0000000001"),
            ("k/x-12-0000000001", "/k/%78-12-0000000001"),
        ] {
            assert_eq!(path_of(&key(text)), path, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_mapping_is_injective_and_can_be_undone(text in "[a%/.\u{1}\u{fffd}👩x0-9-]{1,40}") {
            let key = key(&text);
            let path = path_of(&key);
            prop_assert_eq!(key_of(&path), Some(key));
            prop_assert!(!path.contains("//") && !path.ends_with('/'));
            for segment in path.split('/').skip(1) {
                prop_assert!(!matches!(segment, "" | "." | ".."));
                prop_assert_eq!(Contender::parse(segment), None);
            }
        }
    }

    proptest! {
        #[test]
        fn records_have_nodes_of_their_own(
            texts in proptest::collection::vec("[a%/.\u{1}\u{fffd}👩x0-9-]{1,9}", 2),
        ) {
            let [one, other] = [&texts[0], &texts[1]].map(|text| record_of(&key(text)));
            prop_assert_eq!(one == other, texts[0] == texts[1]);
            prop_assert!(is_plain_segment(&one.1), "{}", one.1);
            prop_assert!(!one.1.contains('/'));
        }
    }

    #[test]
    fn no_key_leads_to_what_is_kept_besides_lines() {
        assert_eq!(key_of(KEPT), None);
        let (below, name) = record_of(&key("jobs/42"));
        assert_eq!(name, "jobs%2F42");
        assert_eq!(key_of(&format!("{below}/{name}")), None);
        assert_eq!(path_of(&key(&KEPT[1..])), "/%25leasehold");
    }

    #[test]
    fn paths_that_no_key_has_are_nobodys() {
        for path in ["/", "/a%0a", "/%61", "/a%2Fb", "/%", "/%FF", "x", "/a%00"] {
            assert_eq!(key_of(path), None, "{path}");
        }
    }

    const HEX: &str = "0123456789abcdef0123456789abcdef";

    fn share(units: u32, limit: u32) -> Claim {
        let id = ClaimId::from_hex(HEX).unwrap();
        let [units, limit] = [units, limit].map(|n| NonZeroU32::new(n).unwrap());
        Claim::counting(id, key("k"), Note::default(), units, limit).unwrap()
    }

    #[test]
    fn our_names_are_read_back() {
        for dialect in [Dialect::Curator, Dialect::Kazoo] {
            for (units, limit) in
                [(1, 1), (1, 5), (1, u32::MAX), (2, u32::MAX), (u32::MAX, u32::MAX)]
            {
                let claim = share(units, limit);
                let name = format!("{}0000000042", dialect.prefix(&claim));
                let read = Contender::parse(&name).unwrap();
                assert_eq!(read.claim, Some(claim.id), "{name}");
                assert_eq!(read.share, Share::from(&claim), "{name}");
                assert_eq!((read.sequence, read.recipe), (42, None));
            }
        }
        let mutex = share(1, 1);
        assert_eq!(
            Dialect::Curator.prefix(&mutex),
            "_c_01234567-89ab-cdef-0123-456789abcdef-lock-"
        );
        assert_eq!(Dialect::Kazoo.prefix(&mutex), format!("{HEX}__lock__"));
        assert_eq!(Dialect::Kazoo.prefix(&share(7, 7)), format!("{HEX}-7of7__lock__"));
        let [reader, writer] = [share(1, u32::MAX), share(u32::MAX, u32::MAX)];
        for (claim, mark, other) in
            [(&reader, "-__READ__", "__rlock__"), (&writer, "-__WRIT__", "__lock__")]
        {
            let name = Dialect::Curator.prefix(claim);
            assert!(name.starts_with("_c_01234567-") && name.ends_with(mark), "{name}");
            let name = Dialect::Kazoo.prefix(claim);
            assert!(name.starts_with(HEX) && name.ends_with(other), "{name}");
        }
    }

    #[test]
    fn names_of_every_recipe_are_respected() {
        for front in [
            "lock-",
            "_c_01234567-89ab-cdef-0123-456789abcdef-lock-",
            "_c_01234567-89ab-cdef-0123-456789abcdef-__WRIT__",
            // No recipe's reader has such a name.
            "__READ__",
            "_c_0123-__READ__",
            "_c_01234567-89ab-cdef-0123-456789abcdef-9of5-__READ__",
            "_c_01234567-89ab-cdef-0123-456789abcdef-__rlock__",
            "0123456789abcdef0123456789abcdef__READ__",
            "0123456789abcdef0123456789abcdef-0of5__rlock__",
            "_c_01234567-89ab-cdef-0123-456789abcdef-latch-",
            "0123456789abcdef0123456789abcdef__lock__",
            "x-72057594037927936-",
            "x--72057594037927936-",
            "_c_0123-lock-",
            "_c_01234567-89ab-cdef-0123-456789abcdef-9of5-lock-",
        ] {
            for (tail, sequence) in [
                ("0000000007", 7),
                ("2147483647", i32::MAX),
                ("-2147483648", i32::MIN),
                ("-000000007", -7),
            ] {
                let name = format!("{front}{tail}");
                let read = Contender::parse(&name).unwrap_or_else(|| panic!("{name}"));
                assert_eq!(read.sequence, sequence, "{name}");
                assert_eq!(read.share, Share { units: 1, limit: 1 }, "{name}");
            }
        }
    }

    #[test]
    fn readers_of_others_are_readers_and_nobodys_claims() {
        for front in [
            "_c_01234567-89ab-cdef-0123-456789abcdef-__READ__",
            "0123456789abcdef0123456789abcdef__rlock__",
        ] {
            let read = Contender::parse(&format!("{front}0000000007")).unwrap();
            let expected = (None, Share::READER, Some(Recipe::Reader));
            assert_eq!((read.claim, read.share, read.recipe), expected, "{front}");
        }
        let writer = "_c_01234567-89ab-cdef-0123-456789abcdef-__WRIT__0000000007";
        let read = Contender::parse(writer).unwrap();
        let expected = (None, Share::MUTEX, Some(Recipe::Writer));
        assert_eq!((read.claim, read.share, read.recipe), expected);
    }

    #[test]
    fn other_children_are_no_contenders() {
        for name in [
            "42",
            "lock-",
            "lock-1",
            "0000000001",
            "x-0000000001",
            "leases",
            "鍵鍵鍵鍵",
            "x-a-0000000001",
        ] {
            assert_eq!(Contender::parse(name), None, "{name}");
        }
    }
}
