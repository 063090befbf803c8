//! What needs no session of ours: looking at lines, listing keys, ending somebody's claim.

use futures::future::{join_all, try_join_all};
use leasehold_core::{ClaimId, Key, Line};

use super::config::Config;
use super::label;
use super::names::{Contender, key_of, path_of, text_of};
use super::session::{fence, read_line, read_node};
use super::wire::{ANY, Answer, Code, Failure, Link, Request};
use crate::error::ErrorKind;

/// How many nodes a listing looks at before it gives up: an ensemble may hold millions that have
/// nothing to do with locks.
const NODES_MAX: usize = 200_000;
/// How many requests are under way at once.
const BATCH: usize = 512;

/// Who holds a key and who waits for it.
pub(super) async fn inspect(link: &Link, config: &Config, key: &Key) -> Result<Line, Failure> {
    let parent = format!("{}{}", config.chroot, path_of(key));
    let mut standing = read_line(link, &parent).await?;
    let nodes = standing
        .contenders
        .iter()
        .map(|contender| read_node(link, format!("{parent}/{}", contender.name)));
    let nodes = try_join_all(nodes).await?;
    standing.amend(nodes.iter().enumerate().map(|(position, node)| {
        // One that left since the names were read claims nothing.
        (position, node.as_ref().map_or(0, |(data, _)| label::units(data)))
    }));
    let mut seen = Line::default();
    for (position, node) in nodes.into_iter().enumerate() {
        let Some((data, stat)) = node else { continue };
        let mut party = label::party(&standing.contenders[position], &data, &stat);
        if standing.holds(position) {
            party.fence = Some(fence(stat.created));
            seen.holders.push(party);
        } else {
            seen.waiters.push(party);
        }
    }
    Ok(seen)
}

/// Ends a claim of leasehold's by force. `false` if there is none.
pub(super) async fn revoke(
    link: &Link,
    config: &Config,
    key: &Key,
    claim: ClaimId,
) -> Result<bool, Failure> {
    let parent = format!("{}{}", config.chroot, path_of(key));
    let standing = read_line(link, &parent).await?;
    let mut revoked = false;
    for contender in standing.contenders.iter().filter(|one| one.claim == Some(claim)) {
        let path = format!("{parent}/{}", contender.name);
        match read_node(link, path.clone()).await? {
            Some((data, _)) if label::is_ours(&data) => {}
            _ => continue,
        }
        match link.ask(Request::Delete { path, version: ANY }).await {
            Ok(_) => revoked = true,
            Err(failure) if failure.is(Code::NO_NODE) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(revoked)
}

/// The keys that begin with `prefix` and that a leasehold claim stands in line for.
///
/// Walks the nodes below the chroot, as far as they can lead to such a key.
pub(super) async fn keys(link: &Link, config: &Config, prefix: &str) -> Result<Vec<Key>, Failure> {
    link.ask(Request::Sync { path: "/".to_owned() }).await?;
    let mut found = Vec::new();
    let mut seen = 0;
    // Paths below the chroot.
    let mut level = vec![String::new()];
    while !level.is_empty() {
        seen += level.len();
        if seen > NODES_MAX {
            let detail = format!(
                "there are more than {NODES_MAX} nodes to look at; ask for a longer prefix, or \
                 keep the locks below a chroot of their own"
            );
            return Err(Failure::Unsent { kind: ErrorKind::Unsupported, detail, source: None });
        }
        let mut next = Vec::new();
        for batch in level.chunks(BATCH) {
            let asked = batch.iter().map(|path| {
                let path = format!("{}{path}", config.chroot);
                link.ask(Request::Children {
                    path: if path.is_empty() { "/".into() } else { path },
                })
            });
            for (path, answer) in batch.iter().zip(join_all(asked).await) {
                let names = match answer {
                    Ok(Answer::Names(names)) => names,
                    Ok(_) => return Err(Failure::Cut),
                    // Gone meanwhile, or not ours to see.
                    Err(Failure::Answered(Code::NO_NODE | Code::NO_AUTH)) => continue,
                    Err(failure) => return Err(failure),
                };
                if let Some(key) = key_of(path)
                    && key.as_str().starts_with(prefix)
                    && has_ours(link, config, path, &names).await?
                {
                    found.push(key);
                }
                next.extend(
                    names
                        .iter()
                        .filter(|name| Contender::parse(name).is_none())
                        .map(|name| format!("{path}/{name}"))
                        .filter(|path| leads_to(path, prefix)),
                );
            }
        }
        level = next;
    }
    found.sort();
    Ok(found)
}

/// Whether one of these children is a claim of leasehold's.
async fn has_ours(
    link: &Link,
    config: &Config,
    path: &str,
    names: &[String],
) -> Result<bool, Failure> {
    for name in names {
        if Contender::parse(name).is_none_or(|one| one.claim.is_none()) {
            continue;
        }
        let node = read_node(link, format!("{}{path}/{name}", config.chroot)).await;
        match node {
            Ok(Some((data, _))) if label::is_ours(&data) => return Ok(true),
            Ok(_) | Err(Failure::Answered(Code::NO_AUTH)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(false)
}

/// Whether this node, or one below it, can be that of a key that begins with `prefix`.
fn leads_to(path: &str, prefix: &str) -> bool {
    let Some(text) = text_of(path) else { return false };
    text.starts_with(prefix) || prefix.starts_with(&format!("{text}/"))
}
