//! The transactions, as data: pure.

use super::proto::{
    By, Compare, DeleteRequest, DeleteResponse, KeyValue, Operand, Order, PutRequest, RangeRequest,
    RangeResponse, Relation, Request, RequestOp, Response, ResponseOp, Target, TxnRequest,
    TxnResponse,
};

/// How many contenders one page of a line has.
pub(super) const PAGE: i64 = 128;

impl From<Request> for RequestOp {
    fn from(request: Request) -> Self {
        Self { request: Some(request) }
    }
}

pub(super) fn txn(
    compare: Vec<Compare>,
    success: Vec<Request>,
    failure: Vec<Request>,
) -> TxnRequest {
    let ops = |requests: Vec<Request>| requests.into_iter().map(RequestOp::from).collect();
    TxnRequest { compare, success: ops(success), failure: ops(failure) }
}

/// Whether a key was created, or changed, at a revision that stands in `relation` to the operand.
/// A key that is not there has revision 0.
pub(super) fn compare(key: &[u8], relation: Relation, operand: Operand) -> Compare {
    let target = match operand {
        Operand::Create(_) => Target::Create,
        Operand::Mod(_) => Target::Mod,
    };
    Compare {
        relation: relation.into(),
        target: target.into(),
        key: key.to_vec(),
        operand: Some(operand),
        range_end: Vec::new(),
    }
}

pub(super) fn absent(key: &[u8]) -> Compare {
    compare(key, Relation::Equal, Operand::Create(0))
}

pub(super) fn present(key: &[u8]) -> Compare {
    compare(key, Relation::Greater, Operand::Create(0))
}

/// Every key of the range was created before `revision`; also true of an empty one.
pub(super) fn none_since(range: &(Vec<u8>, Vec<u8>), revision: i64) -> Compare {
    Compare {
        range_end: range.1.clone(),
        ..compare(&range.0, Relation::Less, Operand::Create(revision))
    }
}

/// A page of a line in order of arrival: those that came after `after` and no later than `until`
/// (0: no bound).
pub(super) fn page(range: &(Vec<u8>, Vec<u8>), after: i64, until: i64) -> RangeRequest {
    RangeRequest {
        key: range.0.clone(),
        range_end: range.1.clone(),
        limit: PAGE,
        order: Order::Ascend.into(),
        by: By::Created.into(),
        min_create_revision: if after == 0 { 0 } else { after + 1 },
        max_create_revision: until,
        ..RangeRequest::default()
    }
}

pub(super) fn get(key: &[u8]) -> RangeRequest {
    RangeRequest { key: key.to_vec(), ..RangeRequest::default() }
}

pub(super) fn put(key: &[u8], value: Vec<u8>, lease: i64) -> Request {
    Request::Put(PutRequest { key: key.to_vec(), value, lease, ignore_lease: false })
}

/// Changes the value of a key that is there, without touching its lease.
pub(super) fn rewrite(key: &[u8], value: Vec<u8>) -> Request {
    Request::Put(PutRequest { key: key.to_vec(), value, lease: 0, ignore_lease: true })
}

pub(super) fn delete(key: &[u8]) -> DeleteRequest {
    DeleteRequest { key: key.to_vec(), prev_kv: true }
}

impl TxnResponse {
    pub(super) fn revision(&self) -> i64 {
        self.header.map_or(0, |header| header.revision)
    }

    fn each(self) -> impl Iterator<Item = Response> {
        self.responses.into_iter().filter_map(|ResponseOp { response }| response)
    }

    /// The answer of the transaction within.
    pub(super) fn inner(self) -> Option<TxnResponse> {
        self.each().find_map(|response| match response {
            Response::Txn(txn) => Some(txn),
            _ => None,
        })
    }

    pub(super) fn ranges(self) -> impl Iterator<Item = RangeResponse> {
        self.each().filter_map(|response| match response {
            Response::Range(range) => Some(range),
            _ => None,
        })
    }

    /// What the only range and the only deletion found.
    pub(super) fn range_and_deletion(self) -> (RangeResponse, DeleteResponse) {
        let (mut range, mut deletion) = (RangeResponse::default(), DeleteResponse::default());
        for response in self.each() {
            match response {
                Response::Range(found) => range = found,
                Response::Delete(found) => deletion = found,
                Response::Put(_) | Response::Txn(_) => {}
            }
        }
        (range, deletion)
    }
}

impl RangeResponse {
    pub(super) fn first(self) -> Option<KeyValue> {
        self.kvs.into_iter().next()
    }
}
