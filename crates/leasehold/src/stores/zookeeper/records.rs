//! Records: a node each, beside every line.
//!
//! | node, below the chroot | data | meaning |
//! |---|---|---|
//! | `/%leasehold/clock` | none | written by whoever wants to know the time |
//! | `/%leasehold/records/<hh>` | none | so that no node has too many children |
//! | `/%leasehold/records/<hh>/<key>` | `leasehold-record=1&keep=<ms>`, a line feed, the bytes | a record |
//!
//! A record is over when the leader's clock says so, and nobody sees it any more from then on. It
//! is replaced, or deleted a while later by whoever makes another.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use leasehold_core::{Claim, Key, Reading, Record, Version, Written};

use super::config::Config;
use super::names::{KEPT, record_of};
use super::session::{LOOKS, Outcome, PARENTS, Session, ancestors, read_node};
use super::wire::{ANY, Answer, Code, Failure, Link, Request, Stat};
use crate::error::ErrorKind;
use crate::random;

/// How long after it was over a record is deleted: longer than a request can be on its way that
/// was made when it was not.
const AFTER: Duration = Duration::from_mins(10);
/// One in so many new records looks for old ones, and at how many.
const EACH: u32 = 16;
const SWEPT: usize = 64;

/// The records of an ensemble, over a link to it.
pub(super) struct Records<'a> {
    pub(super) link: &'a Link,
    pub(super) config: &'a Config,
    /// How many records this handle has made.
    pub(super) made: &'a AtomicU32,
}

/// Where a record is.
struct At {
    below: String,
    path: String,
}

/// A record that is there, over or not.
struct Found {
    value: Vec<u8>,
    stat: Stat,
    keep: Duration,
}

impl Found {
    fn read((data, stat): (Vec<u8>, Stat)) -> Outcome<Self> {
        let parsed = (|| {
            let end = data.iter().position(|byte| *byte == b'\n')?;
            let head = std::str::from_utf8(&data[..end]).ok()?;
            let keep = head.strip_prefix("leasehold-record=1&keep=")?.parse().ok()?;
            Some((Duration::from_millis(keep), data[end + 1..].to_vec()))
        })();
        let (keep, value) = parsed.ok_or_else(|| Failure::Unsent {
            kind: ErrorKind::Corrupt,
            detail: "what is in the record's node is not what this version of leasehold wrote"
                .to_owned(),
            source: None,
        })?;
        Ok(Self { value, stat, keep })
    }

    fn version(&self) -> Version {
        Version::new(self.stat.written.unsigned_abs())
    }

    fn ends(&self) -> Duration {
        millis(self.stat.written_at) + self.keep
    }
}

fn write(record: &Record) -> Vec<u8> {
    // Rounded up: it is kept for its time at least.
    let keep = record.keep().as_nanos().div_ceil(1_000_000);
    let mut data = format!("leasehold-record=1&keep={keep}\n").into_bytes();
    data.extend(record.value());
    data
}

fn millis(since_1970: i64) -> Duration {
    Duration::from_millis(u64::try_from(since_1970).unwrap_or_default())
}

impl Records<'_> {
    pub(super) async fn read(&self, key: &Key) -> Outcome<Reading> {
        let (at, found) = self.look(&self.at(key)).await?;
        let written = found
            .filter(|found| at < found.ends())
            .map(|found| Written { version: found.version(), value: found.value.into() });
        Ok(Reading { written, at: Some(at) })
    }

    /// Writes what is still the writing of `version`.
    pub(super) async fn replace(
        &self,
        key: &Key,
        version: Version,
        record: &Record,
    ) -> Outcome<bool> {
        let place = self.at(key);
        let (at, found) = self.look(&place).await?;
        let Some(found) = found.filter(|found| at < found.ends() && found.version() == version)
        else {
            return Ok(false);
        };
        let (data, version) = (write(record), found.stat.version);
        done(self.link.ask(Request::Set { path: place.path, data, version }).await)
    }

    /// Writes where there is none.
    pub(super) async fn make(&self, key: &Key, record: &Record) -> Outcome<bool> {
        let place = self.at(key);
        let create = Request::Create {
            path: place.path.clone(),
            data: write(record),
            access: self.config.access(),
        };
        for _ in 0..LOOKS {
            match self.below(&place.below, create.clone()).await {
                Ok(Answer::Written(stat)) => {
                    if self.made.fetch_add(1, Ordering::Relaxed).is_multiple_of(EACH) {
                        // Somebody else will, if this fails.
                        let _ = self.sweep(&place.below, millis(stat.written_at)).await;
                    }
                    return Ok(true);
                }
                Ok(_) => return Err(Failure::Cut),
                Err(failure) if failure.is(Code::NODE_EXISTS) => {}
                Err(failure) => return Err(failure),
            }
            // The parent's version tells whether old ones were deleted meanwhile: a node that is
            // made anew has versions that were there before.
            let parent = self.link.ask(Request::Data { path: place.below.clone(), watch: false });
            let (at, found) = self.look(&place).await?;
            let parent = match parent.await {
                Ok(Answer::Data { stat, .. }) => stat.version,
                Ok(_) => return Err(Failure::Cut),
                Err(failure) => return Err(failure),
            };
            let Some(found) = found else { continue };
            if at < found.ends() {
                return Ok(false);
            }
            let guard =
                Request::Set { path: place.below.clone(), data: Vec::new(), version: parent };
            let version = found.stat.version;
            let set = Request::Set { path: place.path, data: write(record), version };
            return done(self.link.ask(Request::Together(vec![guard, set])).await);
        }
        Err(busy())
    }

    /// The time, and the record: no older than this call, because what is asked first is agreed
    /// upon by a majority.
    async fn look(&self, place: &At) -> Outcome<(Duration, Option<Found>)> {
        let path = format!("{}{KEPT}/clock", self.config.chroot);
        let tick = Request::Set { path: path.clone(), data: Vec::new(), version: ANY };
        let ticked = self.link.ask(tick.clone());
        let found = read_node(self.link, place.path.clone());
        let (ticked, mut found) = futures::join!(ticked, found);
        let stat = match ticked {
            Ok(Answer::Written(stat)) => stat,
            Err(failure) if failure.is(Code::NO_NODE) => {
                let kept = format!("{}{KEPT}", self.config.chroot);
                let access = self.config.access();
                let create = Request::Create { path, data: Vec::new(), access };
                let answer = match self.below(&kept, create).await {
                    Err(failure) if failure.is(Code::NODE_EXISTS) => self.link.ask(tick).await,
                    answer => answer,
                };
                found = read_node(self.link, place.path.clone()).await;
                match answer? {
                    Answer::Written(stat) => stat,
                    _ => return Err(Failure::Cut),
                }
            }
            Ok(_) => return Err(Failure::Cut),
            Err(failure) => return Err(failure),
        };
        Ok((millis(stat.written_at), found?.map(Found::read).transpose()?))
    }

    /// Asks for something below `parent`, and makes that first if it is not there.
    async fn below(&self, parent: &str, request: Request) -> Outcome<Answer> {
        let missing = |answer: &Outcome<Answer>| match answer {
            Ok(Answer::Failed { code, .. }) | Err(Failure::Answered(code)) => {
                *code == Code::NO_NODE
            }
            _ => false,
        };
        let mut answer = self.link.ask(request.clone()).await;
        for _ in 0..PARENTS {
            if !missing(&answer) {
                break;
            }
            let access = self.config.access();
            let (chroot, kept) = parent.split_at(self.config.chroot.len().min(parent.len()));
            // The chroot's are containers, as everywhere; what is ours stays.
            let above = Some(chroot).filter(|chroot| !chroot.is_empty()).into_iter();
            let above: Vec<_> = above
                .flat_map(ancestors)
                .map(|path| self.link.ask(Request::Container { path, access }))
                .collect();
            let ours: Vec<_> = ancestors(kept)
                .map(|path| format!("{chroot}{path}"))
                .map(|path| self.link.ask(Request::Create { path, data: Vec::new(), access }))
                .collect();
            let asked = self.link.ask(request.clone());
            let mut refusal = None;
            for made in join_all(above).await.into_iter().chain(join_all(ours).await) {
                match made {
                    Err(Failure::Answered(Code::NODE_EXISTS)) | Ok(_) => {}
                    Err(failure) => refusal = Some(failure),
                }
            }
            answer = asked.await;
            if missing(&answer)
                && let Some(refusal) = refusal
            {
                return Err(refusal);
            }
        }
        answer
    }

    /// Deletes records that are over for a while: a few of those that are beside a new one.
    async fn sweep(&self, below: &str, now: Duration) -> Outcome<()> {
        let parent = self.link.ask(Request::Data { path: below.to_owned(), watch: false });
        let children = self.link.ask(Request::Children { path: below.to_owned() });
        let (Answer::Data { stat: parent, .. }, Answer::Names(mut names)) =
            (parent.await?, children.await?)
        else {
            return Err(Failure::Cut);
        };
        let offset = random::seed().unwrap_or_default() % (names.len().max(1) as u64);
        names.rotate_left(usize::try_from(offset).unwrap_or_default());
        names.truncate(SWEPT);
        let paths = names.iter().map(|name| format!("{below}/{name}"));
        let read = paths.map(async |path| (read_node(self.link, path.clone()).await, path));
        let mut steps = vec![Request::Set {
            path: below.to_owned(),
            data: Vec::new(),
            version: parent.version,
        }];
        for (node, path) in join_all(read).await {
            let Some(node) = node? else { continue };
            if let Ok(found) = Found::read(node)
                && found.ends() + AFTER < now
            {
                steps.push(Request::Delete { path, version: found.stat.version });
            }
        }
        if steps.len() > 1 {
            self.link.ask(Request::Together(steps)).await?;
        }
        Ok(())
    }

    fn at(&self, key: &Key) -> At {
        let (below, name) = record_of(key);
        let below = format!("{}{below}", self.config.chroot);
        At { path: format!("{below}/{name}"), below }
    }
}

impl Session {
    /// Writes a record while a claim of this session holds its key.
    pub(super) async fn write_under(
        &self,
        records: &Records<'_>,
        claim: &Claim,
        record: &Record,
    ) -> Outcome<bool> {
        let Some(hold) = self.hold(claim).await? else { return Ok(false) };
        let At { path, below } = records.at(&claim.key);
        let access = self.config.access();
        let set = Request::Set { path: path.clone(), data: write(record), version: ANY };
        let create = Request::Create { path, data: write(record), access };
        for _ in 0..LOOKS {
            for write in [set.clone(), create.clone()] {
                let is_new = matches!(write, Request::Create { .. });
                let steps = vec![Request::Check { path: hold.clone() }, write];
                let together = Request::Together(steps);
                let answer = if is_new {
                    // A claim that is gone is not a parent that is missing.
                    match self.link.ask(together.clone()).await {
                        Ok(Answer::Failed { step: 1, code: Code::NO_NODE }) => {
                            records.below(&below, together).await
                        }
                        answer => answer,
                    }
                } else {
                    self.link.ask(together).await
                };
                match answer? {
                    Answer::Done => return Ok(true),
                    Answer::Failed { step: 0, code: Code::NO_NODE } => return Ok(false),
                    Answer::Failed { step: 1, code: Code::NO_NODE | Code::NODE_EXISTS } => {}
                    Answer::Failed { code, .. } => return Err(Failure::Answered(code)),
                    _ => return Err(Failure::Cut),
                }
            }
        }
        Err(busy())
    }
}

/// Whether what was asked for was done, where somebody else's writing is the only other way out.
fn done(answer: Outcome<Answer>) -> Outcome<bool> {
    match answer {
        Ok(Answer::Failed { code: Code::NO_NODE | Code::BAD_VERSION, .. })
        | Err(Failure::Answered(Code::NO_NODE | Code::BAD_VERSION)) => Ok(false),
        Ok(Answer::Failed { code, .. }) => Err(Failure::Answered(code)),
        Ok(_) => Ok(true),
        Err(failure) => Err(failure),
    }
}

fn busy() -> Failure {
    let detail = "others change the record faster than it can be written; try again".to_owned();
    Failure::Unsent { kind: ErrorKind::Unavailable, detail, source: None }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leasehold_testbed::ZooKeeper;

    use super::super::wire::{Pace, open};
    use super::*;

    async fn opened(server: &ZooKeeper) -> (Link, Arc<Config>) {
        let config = Arc::new(Config::parse(&server.url()).unwrap());
        let timeout = Duration::from_mins(1);
        let pace = Pace { timeout, patience: timeout };
        let link = open(Arc::clone(&config), None, pace, Box::new(|_| {})).await.unwrap().link;
        (link, config)
    }

    #[tokio::test]
    async fn what_is_over_for_a_while_is_swept_and_the_rest_stays() {
        let server = ZooKeeper::start();
        let (link, config) = opened(&server).await;
        let made = AtomicU32::new(1);
        let records = Records { link: &link, config: &config, made: &made };
        let [brief, long]: [Key; 2] = ["brief", "long"].map(|text| text.parse().unwrap());
        let keep = [Duration::from_millis(100), Duration::from_hours(1)];
        for (key, keep) in [&brief, &long].into_iter().zip(keep) {
            assert!(records.make(key, &Record::new(b"x", keep).unwrap()).await.unwrap());
        }
        let there =
            async |key: &Key| read_node(&link, records.at(key).path).await.unwrap().is_some();
        let now = records.read(&brief).await.unwrap().at.unwrap();
        for (later, stays) in [(Duration::ZERO, true), (AFTER + Duration::from_secs(1), false)] {
            for key in [&brief, &long] {
                records.sweep(&records.at(key).below, now + later).await.unwrap();
            }
            assert_eq!(there(&brief).await, stays);
            assert!(there(&long).await);
        }
        assert_eq!(records.read(&brief).await.unwrap().written, None);
        assert!(records.make(&brief, &Record::new(b"y", keep[1]).unwrap()).await.unwrap());
        assert!(records.read(&brief).await.unwrap().written.is_some());
    }

    /// What is made anew has versions of its data that were there before: who read it before it
    /// was deleted must not replace it.
    #[tokio::test]
    async fn what_was_made_anew_is_not_replaced_by_who_saw_the_old_one() {
        let server = ZooKeeper::start();
        let (link, config) = opened(&server).await;
        let made = AtomicU32::new(1);
        let records = Records { link: &link, config: &config, made: &made };
        let key: Key = "k".parse().unwrap();
        let keep = Duration::from_millis(100);
        assert!(records.make(&key, &Record::new(b"old", keep).unwrap()).await.unwrap());
        let place = records.at(&key);
        let version = |node: Option<(Vec<u8>, Stat)>| node.unwrap().1.version;
        let parent = version(read_node(&link, place.below.clone()).await.unwrap());
        let node = read_node(&link, place.path.clone()).await.unwrap();
        let first = Found::read(node.clone().unwrap()).unwrap().version();
        let old = version(node);
        let now = records.read(&key).await.unwrap().at.unwrap();
        records.sweep(&place.below, now + AFTER * 2).await.unwrap();
        let long = Duration::from_hours(1);
        assert!(records.make(&key, &Record::new(b"new", long).unwrap()).await.unwrap());
        assert_eq!(version(read_node(&link, place.path.clone()).await.unwrap()), old);

        let guard = Request::Set { path: place.below.clone(), data: Vec::new(), version: parent };
        let set = Request::Set { path: place.path.clone(), data: Vec::new(), version: old };
        assert!(!done(link.ask(Request::Together(vec![guard, set])).await).unwrap());
        let kept = records.read(&key).await.unwrap().written.unwrap();
        assert_eq!(kept.value.as_ref(), b"new");
        assert!(kept.version > first, "a version is not used again");
    }
}
