//! What a node says about its claim, for people and for `inspect`: a line that `zkCli get` can
//! show, such as `leasehold=1&owner=host%3A42&note=nightly&ttl=30000`.

use std::time::Duration;

use leasehold_core::{Note, Party};
use url::form_urlencoded;

use super::names::Contender;
use super::wire::Stat;
use crate::clock;

/// The data of a claim's node.
pub(super) fn write(owner: &Note, note: &Note, ttl: Duration) -> Vec<u8> {
    let mut label = form_urlencoded::Serializer::new(String::new());
    label.append_pair("leasehold", "1");
    for (name, text) in [("owner", owner), ("note", note)] {
        if !text.as_str().is_empty() {
            label.append_pair(name, text.as_str());
        }
    }
    label.append_pair("ttl", &ttl.as_millis().to_string());
    label.finish().into_bytes()
}

/// The data of a claim's node after an amendment. `named` is how many units its name says: the
/// name stays, and what is fewer stands here.
pub(super) fn amended(data: &[u8], note: &Note, named: u32, wanted: u32) -> Vec<u8> {
    let units = units(data).min(wanted);
    let mut label = form_urlencoded::Serializer::new(String::new());
    for (name, text) in form_urlencoded::parse(data) {
        if !matches!(&*name, "note" | "units") {
            label.append_pair(&name, &text);
        }
    }
    if !note.as_str().is_empty() {
        label.append_pair("note", note.as_str());
    }
    if units < named {
        label.append_pair("units", &units.to_string());
    }
    label.finish().into_bytes()
}

/// No more units than this, and no more than the node's name says, are claimed.
pub(super) fn units(data: &[u8]) -> u32 {
    let mut said = form_urlencoded::parse(data).filter(|(name, _)| name == "units");
    let units = said.next().filter(|_| is_ours(data)).and_then(|(_, units)| units.parse().ok());
    units.filter(|units| *units > 0).unwrap_or(u32::MAX)
}

/// Whether leasehold wrote these data.
pub(super) fn is_ours(data: &[u8]) -> bool {
    data.starts_with(b"leasehold=")
}

/// A contender as others see it, without its fence.
pub(super) fn party(contender: &Contender, data: &[u8], stat: &Stat) -> Party {
    let mut party = Party {
        units: contender.share.units,
        limit: contender.share.limit,
        age: age(stat.created_at),
        ..Party::default()
    };
    if is_ours(data) {
        party.claim = contender.claim;
        party.units = party.units.min(units(data));
        for (name, text) in form_urlencoded::parse(data) {
            let read = Note::new(&text).unwrap_or_default();
            match &*name {
                "owner" => party.owner = read,
                "note" => party.note = read,
                // No server tells when a session was renewed. It was alive when it made the node:
                // this much is left at least, and soon that says nothing.
                "ttl" => {
                    let ttl = text.parse().ok().map(Duration::from_millis);
                    party.left = ttl.map(|ttl| ttl.saturating_sub(party.age.unwrap_or(ttl)));
                }
                _ => {}
            }
        }
    } else if let Some(owner) = std::str::from_utf8(data).ok().and_then(|text| Note::new(text).ok())
    {
        // kazoo's identifier, Curator's address.
        party.owner = owner;
    }
    party
}

/// The server wrote the time, and it does not say what its clock shows now: this machine's clock
/// has to do.
fn age(created_at_millis: i64) -> Option<Duration> {
    let created = u64::try_from(created_at_millis).ok()?;
    Some(Duration::from_millis((clock::wall_micros() / 1000).saturating_sub(created)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);
    const STAT: Stat =
        Stat { created: 7, written: 7, created_at: 0, written_at: 0, version: 0, owner: 1 };

    fn contender() -> Contender {
        Contender::parse("0123456789abcdef0123456789abcdef-2of5__lock__0000000001").unwrap()
    }

    #[test]
    fn owners_and_notes_come_back_verbatim() {
        for text in ["", "host:42", "a&b=c%+ \n\u{1b}鍵", &"é".repeat(512)] {
            let text = Note::new(text).unwrap();
            let party = party(&contender(), &write(&text, &text, TTL), &STAT);
            assert_eq!((&party.owner, &party.note), (&text, &text));
            assert_eq!(party.left, Some(Duration::ZERO), "it was made in 1970");
            assert_eq!((party.units, party.limit, party.claim), (2, 5, contender().claim));
        }
    }

    #[test]
    fn an_amendment_keeps_the_rest_and_never_adds_units() {
        let [owner, note] = ["host:42", "a&b=c"].map(|text| Note::new(text).unwrap());
        let written = write(&owner, &Note::default(), TTL);
        assert_eq!(units(&written), u32::MAX);
        assert_eq!(amended(&written, &Note::default(), 5, 5), written, "nothing changes");
        let one = amended(&written, &note, 5, 1);
        assert_eq!(units(&one), 1);
        assert_eq!(amended(&one, &note, 5, 4), one, "more units are not had");
        let party = party(&contender(), &one, &STAT);
        assert_eq!((&party.owner, &party.note, party.units), (&owner, &note, 1));
        assert_eq!(party.left, Some(Duration::ZERO));
        for foreign in [&b"units=1"[..], b"leasehold=1&units=0", b"leasehold=1&units=x"] {
            assert_eq!(units(foreign), u32::MAX);
        }
    }

    #[test]
    fn others_are_shown_without_a_claim() {
        let foreign = party(&contender(), b"10.0.0.7", &STAT);
        assert_eq!((foreign.claim, foreign.owner.as_str()), (None, "10.0.0.7"));
        assert_eq!(party(&contender(), &[255, 0], &STAT).owner.as_str(), "");
        assert_eq!(party(&contender(), b"leasehold=1&owner=%00", &STAT).owner.as_str(), "");
    }
}
