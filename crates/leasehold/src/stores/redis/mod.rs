//! One Redis server (6.2 or newer, Valkey too), the one that sentinels call the primary, or a cluster.
//!
//! # URLs
//!
//! - `redis://[[user]:password@]host[:port][/database][?timeout=2s]`
//! - `rediss://…`, the same over TLS. Trusts the system's certificates, or those of `?ca=FILE`;
//!   shows a certificate with `?cert=FILE&key=FILE`. There is no way to trust everybody.
//! - `redis+unix:///path/to/socket[?db=1&user=…&password=…]`
//!
//! - `redis+sentinel://[[user]:password@]host[:26379][,host[:port]…]/group[/database]`: the primary
//!   of the group of servers that these sentinels watch over; `rediss+sentinel://…`, sentinels and
//!   servers over TLS. User and password are the servers'; the sentinels' own are
//!   `?sentinel_user=…&sentinel_password=…`.
//!
//! - `redis+cluster://[[user]:password@]host[:6379][,host[:port]…]`: the cluster that these nodes
//!   belong to; `rediss+cluster://…` over TLS. Any of its nodes will do, and one that answers
//!   suffices. There is no database but 0.
//!
//! `timeout` bounds each request, a new connection included, and is 2 seconds unless given.
//! `replicas=N` (0 unless given, 32 at most) makes a grant and a renewal count only when N replicas
//! have confirmed it (`WAIT`): see below.
//!
//! # Sentinels
//!
//! All sentinels are asked at once and the answer of the highest configuration epoch counts, as soon as a
//! majority has answered; without one, whoever answers within half of the time-out. The server must
//! say of itself that it is a primary. The client listens to the sentinels while it is connected and
//! leaves the server as soon as they name another, also if that server still answers; it also looks
//! again when a server says that it is a replica. Sentinels that cannot be reached leave a working
//! connection alone. After a failover each holder renews at once and learns whether the new primary
//! knows its hold.
//!
//! `replicas=N` narrows what a failover can lose, at one more round trip and the time of the
//! replication for each grant and renewal; it does not close it. `WAIT` is no consensus: the sentinels
//! may promote a replica that did not confirm, unless `N` is the number of all replicas. A grant that
//! fewer confirmed is given back, and the error says how many did.
//!
//! # Cluster
//!
//! Each request goes to the node that serves the slot of its key, and all that belongs to a key is in
//! that slot. Which node that is the nodes say: all that are known are asked at once, first of all and
//! whenever one fails or sends a request elsewhere (`MOVED`); the answer of the highest epoch counts as
//! soon as a majority has answered. A request that a node refused to carry out (`MOVED`, `ASK`,
//! `TRYAGAIN`) is sent again within its time-out; one with an unknown outcome never is, but by the
//! session, with the same claim id.
//!
//! - **A node that is away** costs the holds in its slots only, unless the cluster says
//!   `cluster-require-full-coverage yes` (its default): then all keys wait until a replica took over.
//!   The TTL should be longer than a failover takes, `cluster-node-timeout` and some seconds.
//! - **A failover** is followed like that of sentinels; what it loses and `replicas=` are the same, for
//!   each node by itself.
//! - **A slot that is being moved** keeps its holds. But while some of what belongs to a key is on
//!   either node, and for a key without a line also when all of it has moved, Redis carries out nothing
//!   that concerns several names: entering, renewing and releasing wait until the move of that slot has
//!   ended, and a hold that could not be renewed in that time is lost. `redis-cli --cluster reshard`
//!   moves a slot with few keys in milliseconds.
//! - **Wake-ups** are sharded messages (Redis 7.0 or newer): one in line listens in the slot of its key,
//!   and asks again when the slot goes elsewhere. Older nodes have none: the first in line asks every
//!   50 ms. A session listens for revocations in one slot; while the node of that slot is away, they are
//!   learned at the next renewal.
//! - Each process has a connection to every primary whose keys it uses, and another to each where it
//!   listens.
//! - Certificates are checked against what the nodes call themselves: with TLS give them host names by
//!   `cluster-announce-hostname` and `cluster-preferred-endpoint-type hostname`, or certificates for
//!   their addresses.
//!
//! # What it keeps
//!
//! The key is a string under its own name, verbatim, with the claim's id as its value and the TTL
//! on it: the layout of redis-py's `Lock`, redsync, node-redlock, rslock and others, which are
//! excluded and exclude, both ways. Beside it, in the same slot of a cluster, stand
//! `leasehold:{…}:meta:KEY` (the fence, and who holds), `…:line:KEY` and `…:wait:KEY` (those who
//! wait); they vanish some time after the last use. Keys that begin with `leasehold:{` are refused.
//!
//! With a limit above 1 (semaphores, readers beside readers) several hold at once. The key is then
//! held by all of them together: its value is `leasehold:LIMIT:UNITS:TIME`, nobody's token, and it
//! lasts as long as the longest of their leases. Who they are stands in the line, and in
//! `…:hold:KEY` when each of them lapses. Whoever deletes the key ends all of them.
//!
//! A record is kept under `leasehold:{…}:record:KEY`, for as long as it says, and its last version
//! under `…:version:KEY` for an hour more.
//!
//! # What it promises
//!
//! - One at a time among all who use this layout, as long as the server keeps its data and its
//!   clock moves evenly. A claim of a key of any type, or without TTL, waits.
//! - First come, first served among leasehold's own, handed over by the releasing step itself.
//!   After a stranger's hold the first in line finds out by asking every 50 ms.
//! - Each claim has its own lease, also among those who hold at once: one that lapsed is passed over
//!   by whoever looks next. A stranger's hold counts as all of the limit.
//! - Fences are `max(last + 1, the server's clock in microseconds)`: they grow through release,
//!   expiry, deletion of the key, a flush and a restart without persistence, unless the server's
//!   clock is set back by as much in the same moment. Versions of records are counted the same way.
//!
//! # What it does not promise
//!
//! - A failover to a replica may forget the last grants, because replication is asynchronous: two
//!   may then hold, with different fences. The holder that was forgotten learns of it at its next
//!   renewal. What the lock protects is protected by the fence alone. Fences go on growing as long as
//!   the new primary's clock is not behind the old one's by more than the failover took: it counts
//!   by its clock what it does not remember.
//! - A step of the server's clock forwards ends leases early, and nobody can see it coming. A step
//!   backwards is clamped by whoever looks next.
//! - A server that evicts keys when its memory is full (`maxmemory-policy` other than
//!   `noeviction`) may evict a lock: somebody else holds at once, with a greater fence, and the holder
//!   learns of it at its next renewal. Use `noeviction`: then a full memory stops grants only, and
//!   holds are renewed and released all the same.
//! - A claim costs the same however many wait and however many hold, with one exception: the first
//!   look after the server's clock was set back visits all who hold beside each other.
//!
//! # Access list
//!
//! A user needs `&leasehold:wake:*`, the names of its keys and `~leasehold:*`, and the commands
//! `+script|load +evalsha +eval +scan +subscribe +unsubscribe +publish +select +get +set +del
//! +exists +pexpire +pexpireat +pttl +time +hget +hset +hdel +zadd +zrem +zrange +zrevrange
//! +zrangebyscore +zrank +zscore +zcard`, with `replicas=` also `+wait`. `+script|load` may be left
//! out (and `+scan`, if nobody lists keys; `+select`, in database 0). `leasehold doctor` reads
//! `+info +config|get` as well, and says so if it may not.
//!
//! In a cluster `+cluster|slots +cluster|info +ssubscribe +sunsubscribe +spublish +asking` come to it,
//! and `+subscribe +unsubscribe +publish +select` are not needed; `leasehold doctor` reads
//! `+cluster|nodes`.

pub(in crate::stores) mod answers;
mod cluster;
pub(in crate::stores) mod config;
pub(in crate::stores) mod connection;
mod dial;
pub(in crate::stores) mod examine;
mod examine_cluster;
pub(in crate::stores) mod failure;
pub(in crate::stores) mod inbox;
pub(in crate::stores) mod keys;
pub(in crate::stores) mod scripts;
mod sentinel;
mod servers;
pub(in crate::stores) mod session;
mod store;
mod topology;
pub(in crate::stores) mod wire;

use std::time::Duration;

pub use store::Redis;

use crate::store::{Guarantees, LeaseScope};

/// Below this a garbage collection, a `BGSAVE` or one retransmitted packet costs the lease.
const MIN_TTL: Duration = Duration::from_millis(100);

/// What the store can do.
const GUARANTEES: Guarantees = Guarantees {
    min_ttl: MIN_TTL,
    line: true,
    counting: true,
    records: true,
    lease: LeaseScope::Claim,
    renew_batch: servers::RENEW_BATCH,
    recheck: Duration::from_secs(2),
};
