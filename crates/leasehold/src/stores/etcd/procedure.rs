//! The procedures of etcd's gRPC interface that this store calls.

use std::marker::PhantomData;

use super::proto::{
    AuthenticateRequest, AuthenticateResponse, DeleteRequest, DeleteResponse, GrantRequest,
    GrantResponse, LeaseRequest, LeaseResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RevokeResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
    WatchRequest, WatchResponse,
};

/// A procedure that takes `Q` and answers `A`, once or in a stream.
#[derive(Debug)]
pub(super) struct Procedure<Q, A> {
    pub(super) path: &'static str,
    types: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Procedure<Q, A> {
    const fn at(path: &'static str) -> Self {
        Self { path, types: PhantomData }
    }
}

pub(super) const RANGE: Procedure<RangeRequest, RangeResponse> =
    Procedure::at("/etcdserverpb.KV/Range");
pub(super) const PUT: Procedure<PutRequest, PutResponse> = Procedure::at("/etcdserverpb.KV/Put");
pub(super) const DELETE: Procedure<DeleteRequest, DeleteResponse> =
    Procedure::at("/etcdserverpb.KV/DeleteRange");
pub(super) const TXN: Procedure<TxnRequest, TxnResponse> = Procedure::at("/etcdserverpb.KV/Txn");
pub(super) const WATCH: Procedure<WatchRequest, WatchResponse> =
    Procedure::at("/etcdserverpb.Watch/Watch");
pub(super) const GRANT: Procedure<GrantRequest, GrantResponse> =
    Procedure::at("/etcdserverpb.Lease/LeaseGrant");
pub(super) const REVOKE: Procedure<LeaseRequest, RevokeResponse> =
    Procedure::at("/etcdserverpb.Lease/LeaseRevoke");
/// A stream by its definition. With one request and one answer on each stream, the answer belongs
/// to this request and to none that was sent before.
pub(super) const KEEP_ALIVE: Procedure<LeaseRequest, LeaseResponse> =
    Procedure::at("/etcdserverpb.Lease/LeaseKeepAlive");
pub(super) const TIME_TO_LIVE: Procedure<LeaseRequest, LeaseResponse> =
    Procedure::at("/etcdserverpb.Lease/LeaseTimeToLive");
pub(super) const AUTHENTICATE: Procedure<AuthenticateRequest, AuthenticateResponse> =
    Procedure::at("/etcdserverpb.Auth/Authenticate");
pub(super) const STATUS: Procedure<StatusRequest, StatusResponse> =
    Procedure::at("/etcdserverpb.Maintenance/Status");
