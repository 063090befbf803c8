//! The floor of etcd: two requests by tonic, with the few messages that they need.

use futures::future::{FutureExt, LocalBoxFuture};
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

use crate::raw::Raw;

#[derive(Clone, PartialEq, Message)]
struct GrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(int64, tag = "3")]
    lease: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, optional, tag = "2")]
    put: Option<PutRequest>,
}

/// Nothing but the key: that it was never created, by the numbers that are left at zero.
#[derive(Clone, PartialEq, Message)]
struct Compare {
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(int64, optional, tag = "5")]
    create_revision: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnResponse {
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

#[derive(Clone, PartialEq, Message)]
struct DeleteRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct DeleteResponse {
    #[prost(int64, tag = "2")]
    deleted: i64,
}

/// `target` for the revision of the creation.
const CREATE: i32 = 1;

/// A key under a lease.
pub(crate) struct RawEtcd {
    grpc: Grpc<Channel>,
    lease: i64,
}

impl RawEtcd {
    pub(crate) async fn connect(port: u16) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let mut grpc = Grpc::new(endpoint.tcp_nodelay(true).connect().await.unwrap());
        let granted: GrantResponse =
            ask(&mut grpc, "/etcdserverpb.Lease/LeaseGrant", GrantRequest { ttl: 3600 }).await;
        Self { grpc, lease: granted.id }
    }
}

impl Raw for RawEtcd {
    fn pairs(&mut self, count: u32) -> LocalBoxFuture<'_, ()> {
        async move {
            let key = || b"raw/token".to_vec();
            for _ in 0..count {
                let put = PutRequest { key: key(), value: b"token".to_vec(), lease: self.lease };
                let absent = Compare { target: CREATE, key: key(), create_revision: Some(0) };
                let success = vec![Operation { put: Some(put) }];
                let take = TxnRequest { compare: vec![absent], success };
                let took: TxnResponse = ask(&mut self.grpc, "/etcdserverpb.KV/Txn", take).await;
                assert!(took.succeeded);
                let asked = DeleteRequest { key: key() };
                let gave: DeleteResponse =
                    ask(&mut self.grpc, "/etcdserverpb.KV/DeleteRange", asked).await;
                assert_eq!(gave.deleted, 1);
            }
        }
        .boxed_local()
    }
}

async fn ask<Q, A>(grpc: &mut Grpc<Channel>, method: &'static str, request: Q) -> A
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(method);
    let codec = tonic_prost::ProstCodec::default();
    grpc.unary(tonic::Request::new(request), path, codec).await.unwrap().into_inner()
}
