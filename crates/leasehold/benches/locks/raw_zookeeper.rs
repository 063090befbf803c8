//! The floor of ZooKeeper: two requests on a bare connection, one after the other.

use futures::future::{FutureExt, LocalBoxFuture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::Raw;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const ALL_PERMISSIONS: i32 = 31;
const PLAIN: i32 = 0;
const EPHEMERAL_SEQUENTIAL: i32 = 3;

/// A session of its own, and a node below which to create.
pub(crate) struct RawZooKeeper {
    stream: TcpStream,
}

impl RawZooKeeper {
    pub(crate) async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Self { stream };
        let mut hello = Vec::new();
        hello.extend(0_i32.to_be_bytes()); // the protocol's version
        hello.extend(0_i64.to_be_bytes()); // the last transaction that was seen
        hello.extend(600_000_i32.to_be_bytes()); // the session's timeout in ms
        hello.extend(0_i64.to_be_bytes()); // a new session
        put(&mut hello, &[0; 16]); // without a password
        raw.exchange(&hello).await;
        raw.create("/raw", PLAIN).await;
        raw
    }

    /// Sends a message and reads the answer.
    async fn exchange(&mut self, message: &[u8]) -> Vec<u8> {
        let mut framed = Vec::with_capacity(4 + message.len());
        put(&mut framed, message);
        self.stream.write_all(&framed).await.unwrap();
        let length = self.stream.read_u32().await.unwrap();
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut answer).await.unwrap();
        answer
    }

    /// Makes a request, which must succeed; what follows the answer's header.
    async fn request(&mut self, kind: i32, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend(1_i32.to_be_bytes());
        message.extend(kind.to_be_bytes());
        message.extend(body);
        let mut answer = self.exchange(&message).await;
        // The request's number, the transaction's, and the error.
        let rest = answer.split_off(16);
        assert_eq!(answer[12..], [0; 4], "the server refused request {kind}");
        rest
    }

    async fn create(&mut self, path: &str, flags: i32) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, path.as_bytes());
        put(&mut body, b"token");
        body.extend(1_i32.to_be_bytes()); // one line of the access list
        body.extend(ALL_PERMISSIONS.to_be_bytes());
        put(&mut body, b"world");
        put(&mut body, b"anyone");
        body.extend(flags.to_be_bytes());
        let mut created = self.request(CREATE, &body).await;
        created.split_off(4)
    }
}

impl Raw for RawZooKeeper {
    fn pairs(&mut self, count: u32) -> LocalBoxFuture<'_, ()> {
        async move {
            for _ in 0..count {
                let node = self.create("/raw/lock-", EPHEMERAL_SEQUENTIAL).await;
                let mut body = Vec::new();
                put(&mut body, &node);
                body.extend((-1_i32).to_be_bytes()); // whatever its version
                self.request(DELETE, &body).await;
            }
        }
        .boxed_local()
    }
}

/// Bytes behind their length.
fn put(message: &mut Vec<u8>, bytes: &[u8]) {
    message.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    message.extend(bytes);
}
