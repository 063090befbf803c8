//! What a session does: joins lines, waits, leaves, and proves that it is alive.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{OptionFuture, join_all};
use leasehold_core::line::Share;
use leasehold_core::{Ahead, Claim, ClaimId, Enter, Fence, Left, Note, Place, Renewed, SessionId};

use super::config::Config;
use super::judge::units_in;
use super::label;
use super::ledger::{Ledger, Node, Seat};
use super::line::Standing;
use super::names::{Contender, path_of};
use super::wire::{ANY, Answer, Code, Credentials, Failure, Link, Request, Stat};
use crate::clock;

/// How often a line is read again because it changed meanwhile.
pub(super) const LOOKS: u32 = 16;
/// How often the parents of a node are made again because the server deleted the empty ones.
pub(super) const PARENTS: u32 = 5;

/// A session of ours: a session of ZooKeeper.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) config: Arc<Config>,
    pub(super) owner: Note,
    pub(super) ttl: Duration,
    pub(super) credentials: Credentials,
    pub(super) link: Link,
    pub(super) ledger: Arc<Ledger>,
    /// How long a member may take to tell the leader whom it has heard.
    pub(super) relay: Duration,
}

pub(super) type Outcome<T> = Result<T, Failure>;

/// The text that a session goes by: all that another process needs to take it up.
pub(super) fn session_id(credentials: &Credentials, ttl: Duration) -> SessionId {
    use std::fmt::Write as _;
    let mut text = format!("{:016x}", credentials.id);
    for byte in &credentials.password {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    SessionId::new(&format!("{text}-{}", ttl.as_millis()))
}

/// Reads what [`session_id`] wrote.
pub(super) fn credentials(session: &SessionId) -> Option<(Credentials, Duration)> {
    let (hex, ttl) = session.as_str().split_once('-')?;
    if hex.len() != 48 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).ok();
    let password = (16..48).step_by(2).map(byte).collect::<Option<Vec<u8>>>()?;
    let id = u64::from_str_radix(&hex[..16], 16).ok()?.cast_signed();
    Some((Credentials { id, password }, Duration::from_millis(ttl.parse().ok()?)))
}

impl Session {
    /// See [`Store::enter`](crate::Store::enter).
    pub(super) async fn enter(&self, claim: &Claim, enter: Enter) -> Outcome<Entered> {
        self.ledger.entering(claim.id);
        for _ in 0..LOOKS {
            let found = match self.ledger.seat(claim.id) {
                Some(Seat::Known { node, .. }) => self.look(claim, node).await?,
                Some(Seat::Doubtful) => self.find(claim).await?,
                None => match self.join(claim, enter).await? {
                    Joined::There(node, standing) => Some((node, standing)),
                    Joined::Nowhere(entered) => return Ok(entered),
                },
            };
            let Some((node, mut standing)) = found else {
                // Its node is gone: as if it had never entered.
                self.ledger.forget(claim.id);
                continue;
            };
            let Some(position) = standing.position(name_of(&node.path)) else { continue };
            if let Some(limit) = self.disagreement(claim, &standing, position).await? {
                self.leave(claim).await?;
                return Ok(Entered::Disagrees { limit });
            }
            if self.judge(claim, &mut standing, position, enter).await? {
                self.ledger.holds(claim.id);
                if self.ledger.watch_unheard(&node.path, claim.id) {
                    // So that a revocation is told of. Nobody waits for the answer.
                    self.link.watch(node.path);
                }
                return Ok(Entered::At(Place::Held(node.fence)));
            }
            if enter == Enter::Try {
                let ahead = self.ahead(claim, &standing, position).await?;
                self.leave(claim).await?;
                return Ok(Entered::At(Place::Refused(ahead)));
            }
            if let Some(ahead) = self.wait(claim, &node, &standing, position).await? {
                return Ok(Entered::At(Place::Waiting(ahead)));
            }
        }
        // Everybody ahead keeps leaving; the next change is told all the same.
        Ok(Entered::At(Place::Waiting(Ahead::default())))
    }

    /// See [`Store::leave`](crate::Store::leave).
    pub(super) async fn leave(&self, claim: &Claim) -> Outcome<Left> {
        self.ledger.leaving(claim.id);
        let (node, held) = match self.ledger.seat(claim.id) {
            Some(Seat::Known { node, holds: true }) => (node, true),
            // It may have come to hold without anybody noticing.
            Some(Seat::Known { node, holds: false }) => {
                let standing = read_line(&self.link, &line_path(&self.config, claim)).await?;
                let held = self.stands(claim, &node, standing).await?;
                (node, held)
            }
            Some(Seat::Doubtful) | None => {
                let Some((node, standing)) = self.find(claim).await? else {
                    self.ledger.forget(claim.id);
                    return Ok(Left::Gone);
                };
                let held = self.stands(claim, &node, standing).await?;
                (node, held)
            }
        };
        let left = match self.link.ask(Request::Delete { path: node.path, version: ANY }).await {
            Ok(_) if held => Left::Released,
            Ok(_) => Left::Withdrawn,
            Err(failure) if failure.is(Code::NO_NODE) => Left::Gone,
            Err(failure) => return Err(failure),
        };
        self.ledger.forget(claim.id);
        Ok(left)
    }

    /// See [`Store::renew`](crate::Store::renew).
    ///
    /// The member that we are connected to notes that it heard us, and tells the leader at the
    /// leader's next ping. An answer of the member alone proves nothing: one that is cut off
    /// from the leader goes on answering for a while, and meanwhile the leader counts. So:
    ///
    /// 1. The member hears us (`Touch`), no earlier than this call.
    /// 2. It passes that on, within `relay`.
    /// 3. A write of ours (`Beat`) is agreed upon by a majority: so after step 2 the member was
    ///    still in touch with the leader, and that leader had not been replaced. A new leader
    ///    grants every session its full timeout anew.
    ///
    /// Taking the session up on a new connection is step 1 and 2 at once: the member asks the
    /// leader about it.
    pub(super) async fn renew(&self, roll: &[Claim]) -> Outcome<Renewed> {
        let began = clock::now();
        self.link.ask(Request::Touch).await?;
        if self.link.connected() < began {
            clock::sleep_until(clock::now() + self.relay).await;
        }
        let beat =
            self.link.ask(Request::Beat { path: format!("{}/leasehold-beat", self.config.chroot) });
        let nodes = self.link.ask(Request::Ephemerals);
        match beat.await {
            // It has to fail, for one of these reasons.
            Ok(_) | Err(Failure::Answered(Code::NO_NODE | Code::BAD_VERSION | Code::NO_AUTH)) => {}
            Err(failure) => return Err(failure),
        }
        let Answer::Names(nodes) = nodes.await? else { return Err(Failure::Cut) };
        let claims = |path: &String| Contender::parse(name_of(path))?.claim;
        let present: HashSet<ClaimId> = nodes.iter().filter_map(claims).collect();
        self.leave_again(nodes.iter().filter_map(|path| Some((path, claims(path)?)))).await?;
        let lost: Vec<ClaimId> =
            roll.iter().map(|claim| claim.id).filter(|id| !present.contains(id)).collect();
        for claim in &lost {
            self.ledger.forget(*claim);
        }
        self.watch_holds(roll);
        Ok(Renewed::Extended { lost })
    }

    /// Ends what was left without success.
    async fn leave_again(&self, nodes: impl Iterator<Item = (&String, ClaimId)>) -> Outcome<()> {
        let left = nodes.filter(|(_, claim)| self.ledger.is_leaving(*claim));
        let asked = left.map(|(path, claim)| {
            let deleted = self.link.ask(Request::Delete { path: path.clone(), version: ANY });
            async move { (claim, deleted.await) }
        });
        for (claim, deleted) in join_all(asked).await {
            match deleted {
                Err(failure) if !failure.is(Code::NO_NODE) => return Err(failure),
                _ => self.ledger.forget(claim),
            }
        }
        Ok(())
    }

    /// Watches what was watched on a connection that broke since.
    fn watch_holds(&self, roll: &[Claim]) {
        for claim in roll {
            if let Some(Seat::Known { node, .. }) = self.ledger.seat(claim.id)
                && self.ledger.watch_unheard(&node.path, claim.id)
            {
                self.link.watch(node.path);
            }
        }
    }

    /// Ends the session.
    pub(super) async fn close(&self) -> Outcome<()> {
        match self.link.ask(Request::Close).await {
            Ok(_) | Err(Failure::Ended) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Joins the line at its end.
    async fn join(&self, claim: &Claim, enter: Enter) -> Outcome<Joined> {
        let parent = line_path(&self.config, claim);
        if enter == Enter::Try {
            // Looking first costs a round trip, and spares the others a node that stands in
            // their way until it is deleted again.
            let standing = read_line(&self.link, &parent).await?;
            let position = standing.contenders.len();
            if let Some(limit) = self.disagreement(claim, &standing, position).await? {
                return Ok(Joined::Nowhere(Entered::Disagrees { limit }));
            }
            let mut standing = standing.with(Share::from(claim));
            if !self.judge(claim, &mut standing, position, enter).await? {
                let ahead = self.ahead(claim, &standing, position).await?;
                return Ok(Joined::Nowhere(Entered::At(Place::Refused(ahead))));
            }
        }
        self.ledger.doubt(claim.id);
        let (node, children) = match self.create(claim, &parent).await {
            Ok(created) => created,
            Err(failure) => return Err(self.not_created(claim, failure).await),
        };
        let standing = Standing::of(&children);
        let first = standing.find(claim.id).map(|at| &standing.contenders[at].name);
        if first.is_some_and(|first| *first != name_of(&node.path)) {
            // Another handle entered the same claim before: that place counts.
            return self.join_earlier(claim, node, standing).await;
        }
        Ok(Joined::There(node, standing))
    }

    /// Makes sure that an error without an effect has none.
    async fn not_created(&self, claim: &Claim, failure: Failure) -> Failure {
        if matches!(failure, Failure::Cut) {
            return failure;
        }
        // The server did nothing, or was never asked; or it created the node, and does not let us
        // see who else is there.
        if matches!(self.ledger.seat(claim.id), Some(Seat::Known { .. })) {
            return self.leave(claim).await.err().map_or(failure, |_| Failure::Cut);
        }
        self.ledger.forget(claim.id);
        failure
    }

    async fn join_earlier(&self, claim: &Claim, node: Node, standing: Standing) -> Outcome<Joined> {
        match self.find(claim).await? {
            Some((earlier, _)) if earlier.path != node.path => {
                self.link.ask(Request::Delete { path: node.path, version: ANY }).await?;
                let parent = line_path(&self.config, claim);
                Ok(Joined::There(earlier, read_line(&self.link, &parent).await?))
            }
            // It is the node of another session, with a name that somebody copied.
            _ => {
                self.ledger.seated(claim.id, node.clone());
                Ok(Joined::There(node, standing))
            }
        }
    }

    /// Creates the node and reads the line, in one round trip if the parents are there.
    async fn create(&self, claim: &Claim, parent: &str) -> Outcome<(Node, Vec<String>)> {
        let access = self.config.access();
        let path = format!("{parent}/{}", self.config.dialect.prefix(claim));
        let data = label::write(&self.owner, &claim.note, self.ttl);
        let mut refusal = Failure::Answered(Code::NO_NODE);
        for attempt in 0..=PARENTS {
            let parents: Vec<_> = if attempt == 0 {
                Vec::new()
            } else {
                ancestors(parent)
                    .map(|path| self.link.ask(Request::Container { path, access }))
                    .collect()
            };
            let join = Request::Join { path: path.clone(), data: data.clone(), access };
            let joined = self.link.ask(join);
            let children = self.link.ask(Request::Children { path: parent.to_owned() });
            for made in join_all(parents).await {
                match made {
                    Err(Failure::Answered(Code::NODE_EXISTS)) | Ok(_) => {}
                    Err(failure) => refusal = failure,
                }
            }
            match joined.await {
                Ok(Answer::Joined { path, created }) => {
                    let node = Node { path, fence: fence(created) };
                    // Should the connection break between the two answers, what was created is
                    // known all the same.
                    self.ledger.seated(claim.id, node.clone());
                    let Answer::Names(children) = children.await? else { return Err(Failure::Cut) };
                    return Ok((node, children));
                }
                Ok(_) => return Err(Failure::Cut),
                Err(failure) if failure.is(Code::NO_NODE) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(refusal)
    }

    /// Reads the line of a node that we know.
    async fn look(&self, claim: &Claim, node: Node) -> Outcome<Option<(Node, Standing)>> {
        let path = line_path(&self.config, claim);
        let standing = match self.link.ask(Request::Children { path }).await {
            Ok(Answer::Names(children)) => Standing::of(&children),
            Ok(_) => return Err(Failure::Cut),
            Err(failure) if failure.is(Code::NO_NODE) => Standing::default(),
            Err(failure) => return Err(failure),
        };
        let there = standing.position(name_of(&node.path)).is_some();
        Ok(there.then_some((node, standing)))
    }

    /// Finds the node of a claim by its id, after an answer was lost: only one of this session.
    /// A new session does not take over what its predecessor's end will delete (CURATOR-604).
    pub(super) async fn find(&self, claim: &Claim) -> Outcome<Option<(Node, Standing)>> {
        let parent = line_path(&self.config, claim);
        let standing = read_line(&self.link, &parent).await?;
        let ours = standing.contenders.iter().filter(|one| one.claim == Some(claim.id));
        for contender in ours {
            let path = format!("{parent}/{}", contender.name);
            match read_node(&self.link, path.clone()).await? {
                Some((_, stat)) if stat.owner == self.credentials.id => {
                    let node = Node { path, fence: fence(stat.created) };
                    self.ledger.seated(claim.id, node.clone());
                    return Ok(Some((node, standing)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Watches those who stand in the way, and the claim's own node. `None` if the line changed
    /// meanwhile.
    async fn wait(
        &self,
        claim: &Claim,
        node: &Node,
        standing: &Standing,
        position: usize,
    ) -> Outcome<Option<Ahead>> {
        let parent = line_path(&self.config, claim);
        let path_of = |name: &str| format!("{parent}/{name}");
        let obstacles = standing.obstacles(position);
        let mut watches = Vec::new();
        let known = obstacles.iter().map(|one| (path_of(&one.name), one.share.units));
        for (path, units) in known.chain([(node.path.clone(), 0)]) {
            if self.ledger.watch(&path, claim.id) {
                let watch = self.watch(claim.id, path);
                watches.push(async move { Outcome::Ok((watch.await?, units)) });
            }
        }
        // Asked in the same breath as the watches; the answers come together.
        let ahead = self.ahead(claim, standing, position);
        let (answers, ahead) = futures::future::join(join_all(watches), ahead).await;
        for answer in answers {
            // Gone, or amended since it was judged.
            let (found, judged) = answer?;
            if found.is_none_or(|units| units < judged) {
                return Ok(None);
            }
        }
        let deciding = standing.deciding(position).map(|one| path_of(&one.name)).collect();
        self.ledger.decided_by(claim.id, deciding);
        ahead.map(Some)
    }

    /// Watches a node on behalf of a claim: how many units it claims at most. `None` if there is
    /// no node.
    pub(super) fn watch(
        &self,
        claim: ClaimId,
        path: String,
    ) -> impl Future<Output = Outcome<Option<u32>>> + use<> {
        let asked = self.link.ask(Request::Data { path: path.clone(), watch: true });
        let ledger = Arc::clone(&self.ledger);
        async move {
            let units = units_in(asked.await);
            match units {
                Ok(Some(units)) => ledger.watched(&path, claim, units),
                _ => ledger.unwatched(&path, claim),
            }
            units
        }
    }

    /// What stands ahead of `position`.
    fn ahead(
        &self,
        claim: &Claim,
        standing: &Standing,
        position: usize,
    ) -> impl Future<Output = Outcome<Ahead>> + use<> {
        let rank = u32::try_from(position.saturating_sub(standing.holders)).ok();
        let head = standing.contenders.first().cloned();
        let parent = line_path(&self.config, claim);
        let asked = head.as_ref().map(|head| {
            let path = format!("{parent}/{}", head.name);
            self.link.ask(Request::Data { path, watch: false })
        });
        async move {
            let holder = match (head, OptionFuture::from(asked).await) {
                (Some(head), Some(Ok(Answer::Data { data, stat }))) => {
                    let fence = Some(fence(stat.created));
                    Some(leasehold_core::Party { fence, ..label::party(&head, &data, &stat) })
                }
                (Some(head), Some(Err(Failure::Answered(Code::NO_NODE | Code::NO_AUTH)))) => {
                    Some(leasehold_core::Party {
                        units: head.share.units,
                        limit: head.share.limit,
                        ..leasehold_core::Party::default()
                    })
                }
                (_, Some(Err(failure))) => return Err(failure),
                _ => None,
            };
            let foreign = holder.as_ref().is_some_and(|holder| holder.claim.is_none());
            Ok(Ahead { rank, holder, foreign })
        }
    }
}

/// What became of entering a line.
pub(super) enum Entered {
    At(Place),
    /// Nothing: the line has this limit, and the claim another.
    Disagrees {
        limit: u32,
    },
}

/// What became of joining a line.
enum Joined {
    There(Node, Standing),
    Nowhere(Entered),
}

/// The line at a node, no older than this call: a member may lag behind the leader.
pub(super) async fn read_line(link: &Link, parent: &str) -> Outcome<Standing> {
    let synced = link.ask(Request::Sync { path: parent.to_owned() });
    let children = link.ask(Request::Children { path: parent.to_owned() });
    synced.await?;
    match children.await {
        Ok(Answer::Names(children)) => Ok(Standing::of(&children)),
        Ok(_) => Err(Failure::Cut),
        Err(failure) if failure.is(Code::NO_NODE) => Ok(Standing::default()),
        Err(failure) => Err(failure),
    }
}

/// A node's data, if it is there.
pub(super) fn read_node(
    link: &Link,
    path: String,
) -> impl Future<Output = Outcome<Option<(Vec<u8>, Stat)>>> + Send + use<> {
    let asked = link.ask(Request::Data { path, watch: false });
    async move {
        match asked.await {
            Ok(Answer::Data { data, stat }) => Ok(Some((data, stat))),
            Ok(_) => Err(Failure::Cut),
            Err(failure) if failure.is(Code::NO_NODE) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// The same, no older than this call.
pub(super) async fn read_fresh(link: &Link, path: &str) -> Outcome<Option<(Vec<u8>, Stat)>> {
    let synced = link.ask(Request::Sync { path: path.to_owned() });
    let node = read_node(link, path.to_owned());
    let (synced, node) = futures::join!(synced, node);
    synced?;
    node
}

/// The number of the transaction that created the node. It grows with every change in the
/// ensemble, through restarts and elections, while the number in the node's name starts over.
pub(super) fn fence(created: i64) -> Fence {
    Fence::new(created.unsigned_abs())
}

pub(super) fn line_path(config: &Config, claim: &Claim) -> String {
    format!("{}{}", config.chroot, path_of(&claim.key))
}

/// The last part of a path.
pub(super) fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// `/a`, `/a/b` and `/a/b/c` for `/a/b/c`.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = String> {
    path.char_indices()
        .skip(1)
        .filter(|(_, c)| *c == '/')
        .map(|(at, _)| path[..at].to_owned())
        .chain([path.to_owned()])
}

/// The sessions that this handle carries.
pub(super) type Sessions = HashMap<SessionId, Arc<Session>>;
