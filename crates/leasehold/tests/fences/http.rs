//! HTTP: the layer before an axum router, over real sockets.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Extension;
use axum::Router;
use axum::routing::{get, put};
use futures::future::{BoxFuture, FutureExt as _, ready};
use leasehold::fence::http::FenceLayer;
use leasehold::fence::{Ledger, MemoryLedger, SqliteLedger};
use leasehold::{Error, ErrorKind, Fence, Guard};
use leasehold_testbed::{test_name, worker};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Resource, a_paused_holder_is_refused, numbers};

/// What was written, and under which fences.
type Written = Arc<Mutex<Vec<(u64, String)>>>;

fn app(layer: FenceLayer, written: Written) -> Router {
    let read = Arc::clone(&written);
    let write = move |Extension(fence): Extension<Fence>, body: String| async move {
        written.lock().unwrap().push((fence.get(), body));
    };
    let read = move || async move {
        read.lock().unwrap().last().map(|(_, value)| value.clone()).unwrap_or_default()
    };
    Router::new()
        .route("/jobs/{id}", put(write).get(read))
        .route("/free", get(async || "free"))
        .layer(layer)
}

/// Serves it for as long as the runtime lives; returns the address.
async fn serve(layer: FenceLayer, written: Written) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app(layer, written)).await });
    address
}

/// The status, the head and the body of an answer.
async fn ask(
    address: &str,
    method: &str,
    path: &str,
    fences: &[&str],
    body: &str,
) -> (u16, String, String) {
    let fences: Vec<_> =
        fences.iter().map(|fence| format!("Leasehold-Fence: {fence}\r\n")).collect();
    let fences = fences.concat();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fences}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

struct Service {
    address: String,
}

impl Resource for Service {
    type Hold = u64;

    async fn open(_lock: &str, address: &str) -> Self {
        Self { address: address.to_owned() }
    }

    fn hold(&self, guard: &Guard) -> u64 {
        guard.fence().get()
    }

    async fn write(&self, hold: &u64, value: &str) -> Result<(), String> {
        let fence = hold.to_string();
        let (status, _, body) = ask(&self.address, "PUT", "/jobs/42", &[&fence], value).await;
        if status == 200 { Ok(()) } else { Err(format!("{status} {body}")) }
    }

    async fn read(&self) -> String {
        ask(&self.address, "GET", "/jobs/42", &[], "").await.2
    }
}

#[test]
fn a_holder_that_was_paused_past_its_lease_is_refused() {
    let start = || {
        assert!(worker::task().is_none());
        let home = tempfile::tempdir().unwrap();
        let ledger = Arc::new(SqliteLedger::open(&home.path().join("fences.db")).unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let address = runtime.block_on(serve(FenceLayer::new(ledger), Written::default()));
        let lock = format!("sqlite:{}", home.path().join("locks.db").display());
        ((home, runtime), lock, address)
    };
    a_paused_holder_is_refused::<Service, _>(&test_name!(), start, "412");
}

#[tokio::test]
async fn what_is_refused_is_a_problem_document() {
    let written = Written::default();
    let layer = FenceLayer::new(Arc::new(MemoryLedger::new(1)));
    let address = serve(layer, Arc::clone(&written)).await;
    let put = async |path, fences: &[&str]| ask(&address, "PUT", path, fences, "v").await;
    assert_eq!(put("/jobs/42", &["34"]).await.0, 200);
    assert_eq!(put("/jobs/42", &["34"]).await.0, 200);

    let (status, head, body) = put("/jobs/42", &["33"]).await;
    assert_eq!(status, 412);
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    let kind = problem["type"].as_str().unwrap();
    assert!(kind.ends_with("docs/fences.md#stale-fence"), "{kind}");
    let expected = json!({
        "type": kind, "title": "The fence is stale", "status": 412,
        "detail": "The lock was lost, and another holder has written since. Do not try again.",
        "resource": "/jobs/42", "token": 33, "greatest": 34,
    });
    assert_eq!(problem, expected);

    for (path, fences, status) in [
        ("/jobs/42", &[][..], 428),
        ("/jobs/42", &["x"], 400),
        ("/jobs/42", &["34", "35"], 400),
        ("/jobs/42", &["34;a=b"], 400),
        // The same resource, however it is asked.
        ("/jobs/42?again=1", &["33"], 412),
        // There is no room for another.
        ("/jobs/43", &["1"], 503),
    ] {
        let (found, _, body) = put(path, fences).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, &problem["status"]), (status, &json!(status)), "{path} {fences:?}");
    }
    assert_eq!(written.lock().unwrap().len(), 2, "what was refused did not get through");
    // Whoever only reads needs no fence.
    assert_eq!(ask(&address, "GET", "/jobs/42", &[], "").await.2, "v");
    assert_eq!(ask(&address, "GET", "/free", &["x"], "").await.0, 200);
}

/// A ledger whose disk is gone.
#[derive(Debug)]
struct Broken;

impl Ledger for Broken {
    fn advance<'a>(&'a self, _: &'a str, _: Fence) -> BoxFuture<'a, Result<(), Error>> {
        let error = Error::new(ErrorKind::Unavailable, "take note of a fence", "/secret is gone");
        ready(Err(error)).boxed()
    }
}

#[tokio::test]
async fn a_ledger_that_fails_lets_nothing_through_and_says_no_more() {
    let written = Written::default();
    let address = serve(FenceLayer::new(Arc::new(Broken)), Arc::clone(&written)).await;
    let (status, _, body) = ask(&address, "PUT", "/jobs/42", &["34"], "v").await;
    assert_eq!(status, 503);
    let problem: Value = serde_json::from_str(&body).unwrap();
    let kind = problem["type"].as_str().unwrap();
    assert!(kind.ends_with("docs/fences.md#fences-unavailable"), "{kind}");
    assert!(!body.contains("secret"), "{body}");
    assert!(written.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_caller_says_what_the_resource_is() {
    let layer = FenceLayer::new(Arc::new(MemoryLedger::new(9)))
        .resource(|parts| parts.uri.path().starts_with("/jobs/").then(|| "jobs".to_owned()));
    let address = serve(layer, Written::default()).await;
    assert_eq!(ask(&address, "PUT", "/jobs/1", &["5"], "").await.0, 200);
    assert_eq!(ask(&address, "PUT", "/jobs/2", &["4"], "").await.0, 412);
    assert_eq!(ask(&address, "GET", "/jobs/2", &[], "").await.0, 428);
    assert_eq!(ask(&address, "GET", "/free", &[], "").await.0, 200);
}

#[tokio::test]
async fn a_restart_forgets_nothing_that_a_file_keeps() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("fences.db");
    let open = |path: &Path| FenceLayer::new(Arc::new(SqliteLedger::open(path).unwrap()));
    let address = serve(open(&path), Written::default()).await;
    assert_eq!(ask(&address, "PUT", "/jobs/42", &["34"], "").await.0, 200);
    let address = serve(open(&path), Written::default()).await;
    assert_eq!(ask(&address, "PUT", "/jobs/42", &["33"], "").await.0, 412);
}

/// Of the ledgers themselves: what a handler does after it was let through is its own affair.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_ledger_accepts_never_decreases() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("fences.db");
    let ledgers: [Arc<dyn Ledger>; 2] =
        [Arc::new(MemoryLedger::new(1)), Arc::new(SqliteLedger::open(&path).unwrap())];
    for ledger in ledgers {
        // The greatest that was accepted and answered.
        let answered = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (1..=4)
            .map(|seed| {
                let (ledger, answered) = (Arc::clone(&ledger), Arc::clone(&answered));
                tokio::spawn(async move {
                    for token in numbers(seed, 1000).take(60) {
                        let before = answered.load(Ordering::SeqCst);
                        match ledger.advance("r", Fence::new(token)).await {
                            Ok(()) => {
                                assert!(token >= before, "{token} after {before}");
                                answered.fetch_max(token, Ordering::SeqCst);
                            }
                            Err(error) => {
                                let stale = error.stale_fence().expect("stale").clone();
                                assert!(stale.greatest.get() > token, "{stale}");
                            }
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let error = ledger.advance("r", Fence::new(0)).await.unwrap_err();
        let greatest = error.stale_fence().unwrap().greatest.get();
        assert_eq!(greatest, answered.load(Ordering::SeqCst));
    }
}
