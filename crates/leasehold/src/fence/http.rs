//! HTTP: a header, and a tower layer that refuses older fences.
//!
//! A holder sends its fence with each request that writes:
//!
//! ```text
//! PUT /jobs/42 HTTP/1.1
//! Leasehold-Fence: 34
//! ```
//!
//! A decimal number from 0 to 2^64 − 1 (no structured field of RFC 9651, whose integers end at
//! fifteen digits; fences can have twenty). [`FenceLayer`] compares it with the greatest that the
//! resource has seen, takes note of it, and only then lets the request through, with the [`Fence`]
//! in its extensions. What it refuses it answers with a problem document (RFC 9457):
//!
//! | status | when |
//! |---|---|
//! | 412 Precondition Failed | the resource has seen a greater fence: do not try again |
//! | 428 Precondition Required | there is no fence |
//! | 400 Bad Request | there is more than one, or it is no number |
//! | 503 Service Unavailable | the ledger failed or is full; nothing was let through |
//!
//! 412 and not 409: the fence is a condition in the request that did not hold (RFC 9110, 15.5.13),
//! 428 is its twin, and no client takes it for a reason to repeat the request.
//!
//! ```
//! use std::sync::Arc;
//!
//! use axum::Router;
//! use axum::routing::put;
//! use leasehold::fence::MemoryLedger;
//! use leasehold::fence::http::FenceLayer;
//!
//! // `SqliteLedger::open(path)` instead of memory survives a restart.
//! let ledger = Arc::new(MemoryLedger::new(100_000));
//! let app: Router = Router::new()
//!     .route("/jobs/{id}", put(async || "written"))
//!     .layer(FenceLayer::new(ledger));
//! ```
//!
//! # What it cannot do
//!
//! **It judges when a request comes in, not when it writes.** A request under fence 33 that is let
//! through a moment before the first one under 34 may still be at work when that one is done, and
//! may write last. The layer refuses whoever *arrives* late, which is the holder that was paused. To
//! refuse the other one as well, the write itself has to be compared: hand the fence on from the
//! extensions to a [database](super::sql) or [file](super::file).
//!
//! Several servers before one resource need one ledger: a `SQLite` file serves the processes of one
//! machine.
//!
//! The resource is the request's path, byte for byte, and requests that change nothing (GET, HEAD,
//! OPTIONS, TRACE) pass; [`FenceLayer::resource`] decides otherwise.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use leasehold_core::{Fence, StaleFence};
use serde_json::{Value, json};
use tower_layer::Layer;
use tower_service::Service;

use super::Ledger;
use crate::error::{Error, ErrorKind};

/// The header that carries the writer's fence: `Leasehold-Fence`.
pub const HEADER: HeaderName = HeaderName::from_static("leasehold-fence");

/// Where the documents of problems lead to.
const TYPES: &str = "https://github.com/leasehold/leasehold/blob/main/docs/fences.md";

/// Why a request has no fence to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// There is none.
    Missing,
    /// There is more than one, or it is no number.
    Garbled,
}

/// The fence in the headers of a request.
///
/// # Errors
///
/// When there is not exactly one.
pub fn fence_of(headers: &HeaderMap) -> Result<Fence, HeaderError> {
    let mut values = headers.get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(HeaderError::Missing),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| HeaderError::Garbled)?;
            text.parse().map_err(|_| HeaderError::Garbled)
        }
        (Some(_), Some(_)) => Err(HeaderError::Garbled),
    }
}

type Resource = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// Lets no request through whose fence is smaller than the greatest that its resource has seen.
/// See the [module's documentation](self).
#[derive(Clone)]
pub struct FenceLayer {
    ledger: Arc<dyn Ledger>,
    resource: Arc<Resource>,
}

impl FenceLayer {
    /// A layer that keeps the greatest fences in `ledger`.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, resource: Arc::new(path_of_writes) }
    }

    /// Another function from a request to the resource that it writes; `None` lets it through
    /// unchecked. Requests that one lock protects have to have one resource.
    #[must_use]
    pub fn resource(
        mut self,
        resource: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.resource = Arc::new(resource);
        self
    }

    /// What is to be answered instead of letting the request through.
    async fn judge(&self, resource: &str, headers: &HeaderMap) -> Result<Fence, Problem> {
        let token = fence_of(headers).map_err(Problem::Header)?;
        self.ledger.advance(resource, token).await.map_err(|error| Problem::of(&error))?;
        Ok(token)
    }
}

/// The path, of a request that is not safe (RFC 9110, 9.2.1).
fn path_of_writes(parts: &Parts) -> Option<String> {
    (!parts.method.is_safe()).then(|| parts.uri.path().to_owned())
}

impl<S> Layer<S> for FenceLayer {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { layer: self.clone(), inner }
    }
}

/// A service behind a [`FenceLayer`].
#[derive(Debug, Clone)]
pub struct Fenced<S> {
    layer: FenceLayer,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Fenced<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready; the clone need not be.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            if let Some(resource) = (layer.resource)(&parts) {
                match layer.judge(&resource, &parts.headers).await {
                    Ok(token) => {
                        parts.extensions.insert(token);
                    }
                    Err(problem) => return Ok(problem.answer(&resource)),
                }
            }
            inner.call(Request::from_parts(parts, body)).await
        })
    }
}

impl fmt::Debug for FenceLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FenceLayer").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

/// Why a request is not let through.
#[derive(Debug)]
enum Problem {
    Header(HeaderError),
    Stale(StaleFence),
    Full,
    Failed,
}

impl Problem {
    fn of(error: &Error) -> Self {
        if let Some(stale) = error.stale_fence() {
            return Self::Stale(stale.clone());
        }
        // Where the ledger is, is nobody's business on the other side.
        tracing::error!(%error, "the ledger of fences failed, and a request was refused");
        if error.kind() == ErrorKind::Full { Self::Full } else { Self::Failed }
    }

    fn answer<R: From<String>>(&self, resource: &str) -> Response<R> {
        let (status, name, title, detail) = match self {
            Self::Stale(_) => (
                StatusCode::PRECONDITION_FAILED,
                "stale-fence",
                "The fence is stale",
                "The lock was lost, and another holder has written since. Do not try again.",
            ),
            Self::Header(HeaderError::Missing) => (
                StatusCode::PRECONDITION_REQUIRED,
                "missing-fence",
                "There is no fence",
                "Send the fence of the lock in the header Leasehold-Fence.",
            ),
            Self::Header(HeaderError::Garbled) => (
                StatusCode::BAD_REQUEST,
                "garbled-fence",
                "The fence cannot be read",
                "Leasehold-Fence is one decimal number without a sign.",
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "fences-unavailable",
                "The fence cannot be checked",
                "No more resources can be kept track of.",
            ),
            Self::Failed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "fences-unavailable",
                "The fence cannot be checked",
                "The greatest fences seen cannot be read or written.",
            ),
        };
        let mut document = json!({
            "type": format!("{TYPES}#{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
            "resource": resource,
        });
        if let (Self::Stale(stale), Value::Object(members)) = (self, &mut document) {
            members.insert("token".into(), stale.token.get().into());
            members.insert("greatest".into(), stale.greatest.get().into());
        }
        let mut response = Response::new(R::from(document.to_string()));
        *response.status_mut() = status;
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, problem);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_exactly_one_number_or_no_fence() {
        let headers = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            fence_of(&headers)
        };
        assert_eq!(headers(&[b"34"]), Ok(Fence::new(34)));
        assert_eq!(headers(&[b"18446744073709551615"]), Ok(Fence::new(u64::MAX)));
        assert_eq!(headers(&[]), Err(HeaderError::Missing));
        for bad in
            [&[&b"34"[..], b"34"][..], &[b""], &[b"34, 35"], &[b"34;x"], &[b"\xff"], &[b"-1"]]
        {
            assert_eq!(headers(bad), Err(HeaderError::Garbled), "{bad:?}");
        }
    }
}
