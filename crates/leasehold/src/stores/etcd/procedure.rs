//! The procedures of etcd's gRPC interface that this store calls.

use std::marker::PhantomData;

use super::proto::{
    AuthenticateRequest, AuthenticateResponse, DeleteRequest, DeleteResponse, GrantRequest,
    GrantResponse, LeaseRequest, LeaseResponse, MembersRequest, MembersResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RevokeResponse, StatusRequest, StatusResponse,
    TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};

/// A procedure that takes `Q` and answers `A`, once or in a stream.
#[derive(Debug)]
pub(super) struct Procedure<Q, A> {
    pub(super) path: &'static str,
    /// Whether it may change something.
    pub(super) writes: bool,
    types: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Procedure<Q, A> {
    const fn writing(path: &'static str) -> Self {
        Self { path, writes: true, types: PhantomData }
    }

    const fn reading(path: &'static str) -> Self {
        Self { path, writes: false, types: PhantomData }
    }
}

pub(super) const RANGE: Procedure<RangeRequest, RangeResponse> =
    Procedure::reading("/etcdserverpb.KV/Range");
pub(super) const PUT: Procedure<PutRequest, PutResponse> =
    Procedure::writing("/etcdserverpb.KV/Put");
pub(super) const DELETE: Procedure<DeleteRequest, DeleteResponse> =
    Procedure::writing("/etcdserverpb.KV/DeleteRange");
pub(super) const TXN: Procedure<TxnRequest, TxnResponse> =
    Procedure::writing("/etcdserverpb.KV/Txn");
pub(super) const WATCH: Procedure<WatchRequest, WatchResponse> =
    Procedure::reading("/etcdserverpb.Watch/Watch");
pub(super) const GRANT: Procedure<GrantRequest, GrantResponse> =
    Procedure::writing("/etcdserverpb.Lease/LeaseGrant");
pub(super) const REVOKE: Procedure<LeaseRequest, RevokeResponse> =
    Procedure::writing("/etcdserverpb.Lease/LeaseRevoke");
/// A stream by its definition. With one request and one answer on each stream, the answer belongs
/// to this request and to none that was sent before.
pub(super) const KEEP_ALIVE: Procedure<LeaseRequest, LeaseResponse> =
    Procedure::writing("/etcdserverpb.Lease/LeaseKeepAlive");
pub(super) const TIME_TO_LIVE: Procedure<LeaseRequest, LeaseResponse> =
    Procedure::reading("/etcdserverpb.Lease/LeaseTimeToLive");
pub(super) const AUTHENTICATE: Procedure<AuthenticateRequest, AuthenticateResponse> =
    Procedure::reading("/etcdserverpb.Auth/Authenticate");
pub(super) const STATUS: Procedure<StatusRequest, StatusResponse> =
    Procedure::reading("/etcdserverpb.Maintenance/Status");
pub(super) const MEMBERS: Procedure<MembersRequest, MembersResponse> =
    Procedure::reading("/etcdserverpb.Cluster/MemberList");
