//! The requests that a store of locks needs, and their answers.

use super::jute::{Garbled, Reader, Writer};

/// The id of a request that is an authentication.
const AUTH_XID: i32 = -4;
/// The id of a message that is an event.
const EVENT_XID: i32 = -1;
const AUTH: i32 = 100;
const NODE_DELETED: i32 = 2;
const NODE_CHANGED: i32 = 3;
const ALL_PERMISSIONS: i32 = 31;
const EPHEMERAL_SEQUENTIAL: i32 = 3;
const CONTAINER: i32 = 4;
/// Any version of a node's data will do.
pub(in super::super) const ANY: i32 = -1;
const PERSISTENT: i32 = 0;
const CHECK: i32 = 13;
/// What stands in an answer to several requests for one that was not carried out.
const FAILED: i32 = -1;

/// Who may do what with a node that is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Access {
    /// Everybody everything, which is what Curator and kazoo do by default.
    World,
    /// Its creator everything, others nothing.
    Creator,
}

/// A request about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Request {
    /// Creates an ephemeral node; the server appends a sequence number to its path.
    Join {
        path: String,
        data: Vec<u8>,
        access: Access,
    },
    /// Creates a node that the server deletes once it has lost its last child.
    Container {
        path: String,
        access: Access,
    },
    /// Creates a node that stays.
    Create {
        path: String,
        data: Vec<u8>,
        access: Access,
    },
    /// Replaces a node's data, if they are of this version.
    Set {
        path: String,
        data: Vec<u8>,
        version: i32,
    },
    Delete {
        path: String,
        version: i32,
    },
    /// Whether a node is there; only together with others.
    Check {
        path: String,
    },
    /// Carries out all of these, or none.
    Together(Vec<Request>),
    /// A write that does nothing: it deletes nothing, whatever there is, and so has to fail.
    /// A failed write too is agreed upon by a majority before it is answered.
    Beat {
        path: String,
    },
    Data {
        path: String,
        watch: bool,
    },
    Children {
        path: String,
    },
    /// Answered once the server that is asked has caught up with the leader.
    Sync {
        path: String,
    },
    /// Every ephemeral node of the session (ZooKeeper 3.6 and up).
    Ephemerals,
    /// The cheapest question there is.
    Touch,
    Close,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Answer {
    Joined {
        path: String,
        created: i64,
    },
    Data {
        data: Vec<u8>,
        stat: Stat,
    },
    Written(Stat),
    Names(Vec<String>),
    /// Nothing was done, because this one of several requests failed, the first being 0.
    Failed {
        step: usize,
        code: Code,
    },
    Done,
}

/// What a server knows of a node, besides its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Stat {
    /// The number of the transaction that created it.
    pub(in super::super) created: i64,
    /// The number of the transaction that wrote its data.
    pub(in super::super) written: i64,
    /// Milliseconds since 1970, by the leader's clock.
    pub(in super::super) created_at: i64,
    /// The same of its data.
    pub(in super::super) written_at: i64,
    /// How often its data were written since it was created.
    pub(in super::super) version: i32,
    /// The session that it ends with; 0 for none.
    pub(in super::super) owner: i64,
}

/// An error that a server answered: it did nothing of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Code(pub(in super::super) i32);

impl Code {
    pub(in super::super) const NO_NODE: Self = Self(-101);
    pub(in super::super) const NO_AUTH: Self = Self(-102);
    pub(in super::super) const BAD_VERSION: Self = Self(-103);
    pub(in super::super) const PARENT_IS_EPHEMERAL: Self = Self(-108);
    pub(in super::super) const NODE_EXISTS: Self = Self(-110);
    pub(in super::super) const SESSION_EXPIRED: Self = Self(-112);
    pub(in super::super) const INVALID_ACL: Self = Self(-114);
    pub(in super::super) const AUTH_FAILED: Self = Self(-115);
    pub(in super::super) const SESSION_MOVED: Self = Self(-118);
    pub(in super::super) const NOT_READ_ONLY: Self = Self(-119);
    pub(in super::super) const QUOTA_EXCEEDED: Self = Self(-125);
    pub(in super::super) const THROTTLED: Self = Self(-127);
    pub(in super::super) const UNIMPLEMENTED: Self = Self(-6);
}

/// What a frame from the server is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The answer to a request, still to be read as its kind demands.
    Reply { xid: i32, zxid: i64, code: i32, body: &'a [u8] },
    /// The answer to an authentication.
    Auth { code: i32 },
    /// A watched node is gone.
    Deleted(&'a str),
    /// The data of a watched node were written.
    Changed(&'a str),
    /// Something else that a watch tells.
    Other,
}

impl Request {
    const fn opcode(&self) -> i32 {
        match self {
            Self::Join { .. } | Self::Create { .. } => 15,
            Self::Set { .. } => 5,
            Self::Check { .. } => CHECK,
            Self::Together(_) => 14,
            Self::Container { .. } => 19,
            Self::Delete { .. } | Self::Beat { .. } => 2,
            Self::Touch => 3,
            Self::Data { .. } => 4,
            Self::Children { .. } => 8,
            Self::Sync { .. } => 9,
            Self::Ephemerals => 103,
            Self::Close => -11,
        }
    }

    /// The frame that asks it.
    pub(super) fn frame(&self, xid: i32) -> Vec<u8> {
        let mut frame = Writer::new();
        frame.int(xid).int(self.opcode());
        self.put(&mut frame);
        frame.finish()
    }

    fn put(&self, frame: &mut Writer) {
        match self {
            Self::Join { path, data, access } => {
                create(frame, path, data, *access, EPHEMERAL_SEQUENTIAL);
            }
            Self::Container { path, access } => create(frame, path, &[], *access, CONTAINER),
            Self::Create { path, data, access } => create(frame, path, data, *access, PERSISTENT),
            Self::Set { path, data, version } => {
                frame.text(path).bytes(data).int(*version);
            }
            Self::Delete { path, version } => {
                frame.text(path).int(*version);
            }
            Self::Check { path } => {
                frame.text(path).int(ANY);
            }
            Self::Together(requests) => {
                for request in requests {
                    frame.int(request.opcode()).bool(false).int(-1);
                    request.put(frame);
                }
                frame.int(-1).bool(true).int(-1);
            }
            // No node has this version.
            Self::Beat { path } => {
                frame.text(path).int(i32::MIN);
            }
            Self::Data { path, watch } => {
                frame.text(path).bool(*watch);
            }
            Self::Children { path } => {
                frame.text(path).bool(false);
            }
            Self::Touch => {
                frame.text("/").bool(false);
            }
            Self::Sync { path } => {
                frame.text(path);
            }
            Self::Ephemerals => {
                frame.text("/");
            }
            Self::Close => {}
        }
    }

    /// Reads the answer to it.
    pub(super) fn answer(&self, body: &[u8]) -> Result<Answer, Garbled> {
        let mut body = Reader::new(body);
        Ok(match self {
            Self::Join { .. } => {
                let path = body.text()?.to_owned();
                Answer::Joined { path, created: stat(&mut body)?.created }
            }
            Self::Create { .. } => {
                body.text()?;
                Answer::Written(stat(&mut body)?)
            }
            Self::Set { .. } => Answer::Written(stat(&mut body)?),
            Self::Together(requests) => together(requests, &mut body)?,
            Self::Data { .. } => {
                let data = body.bytes()?.to_vec();
                Answer::Data { data, stat: stat(&mut body)? }
            }
            Self::Children { .. } | Self::Ephemerals => Answer::Names(body.texts()?),
            _ => Answer::Done,
        })
    }
}

fn create(frame: &mut Writer, path: &str, data: &[u8], access: Access, flags: i32) {
    let (scheme, id) = match access {
        Access::World => ("world", "anyone"),
        Access::Creator => ("auth", ""),
    };
    frame.text(path).bytes(data).int(1).int(ALL_PERMISSIONS).text(scheme).text(id).int(flags);
}

/// The answers to several requests: that of each, or for each why all failed. Those that came
/// before the one that is to blame have no error of their own.
fn together(requests: &[Request], body: &mut Reader<'_>) -> Result<Answer, Garbled> {
    for step in 0..requests.len() {
        let (kind, _done, _error) = (body.int()?, body.bool()?, body.int()?);
        if kind != FAILED {
            // It was carried out, and so were all.
            return Ok(Answer::Done);
        }
        let code = Code(body.int()?);
        if code.0 != 0 {
            return Ok(Answer::Failed { step, code });
        }
    }
    Err(Garbled)
}

fn stat(body: &mut Reader<'_>) -> Result<Stat, Garbled> {
    let (created, written, created_at, written_at) =
        (body.long()?, body.long()?, body.long()?, body.long()?);
    let (version, _children, _acl) = (body.int()?, body.int()?, body.int()?);
    Ok(Stat { created, written, created_at, written_at, version, owner: body.long()? })
}

/// The frame that says who we are.
pub(super) fn auth_frame(scheme: &str, secret: &[u8]) -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(AUTH_XID).int(AUTH).int(0).text(scheme).bytes(secret);
    frame.finish()
}

/// Tells what a frame is.
pub(super) fn read(frame: &[u8]) -> Result<Frame<'_>, Garbled> {
    let mut reader = Reader::new(frame);
    let (xid, zxid, code) = (reader.int()?, reader.long()?, reader.int()?);
    match xid {
        AUTH_XID => Ok(Frame::Auth { code }),
        EVENT_XID => {
            let (kind, _state) = (reader.int()?, reader.int()?);
            let path = reader.text()?;
            Ok(match kind {
                NODE_DELETED => Frame::Deleted(path),
                NODE_CHANGED => Frame::Changed(path),
                _ => Frame::Other,
            })
        }
        xid => Ok(Frame::Reply { xid, zxid, code, body: &frame[16..] }),
    }
}

/// What a session is known by, and what it was granted.
#[derive(Clone, PartialEq, Eq)]
pub(in super::super) struct Credentials {
    pub(in super::super) id: i64,
    pub(in super::super) password: Vec<u8>,
}

/// Whoever knows them owns the session.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// The frame that opens a session, or takes it up again.
pub(super) fn connect_frame(
    resumed: Option<&Credentials>,
    timeout_ms: i32,
    last_zxid: i64,
) -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(0).long(last_zxid).int(timeout_ms);
    match resumed {
        Some(Credentials { id, password }) => frame.long(*id).bytes(password),
        None => frame.long(0).bytes(&[0; 16]),
    };
    // Not content with a server that is cut off from the others.
    frame.bool(false);
    frame.finish()
}

/// What the server made of it: the session and its timeout in milliseconds; `None` for one that
/// it does not know any more.
pub(super) fn connected(frame: &[u8]) -> Result<Option<(Credentials, i32)>, Garbled> {
    let mut reader = Reader::new(frame);
    let (_version, timeout_ms, id) = (reader.int()?, reader.int()?, reader.long()?);
    let password = reader.bytes()?.to_vec();
    Ok((timeout_ms > 0 && id != 0).then_some((Credentials { id, password }, timeout_ms)))
}
