//! The proxy does what it says, and nothing else.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use leasehold_testbed::Proxy;
use leasehold_testbed::proxy::{Direction, Mode};

/// A server that answers each line in capitals, and counts the lines.
struct Echo {
    port: u16,
    lines: Arc<AtomicU64>,
    arrived: mpsc::Receiver<String>,
}

fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let lines = Arc::new(AtomicU64::new(0));
    let (tell, arrived) = mpsc::channel();
    let count = lines.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (count, tell) = (count.clone(), tell.clone());
            std::thread::spawn(move || answer(stream, &count, &tell));
        }
    });
    Echo { port, lines, arrived }
}

fn answer(mut stream: TcpStream, count: &AtomicU64, tell: &mpsc::Sender<String>) {
    let reader = std::io::BufReader::new(stream.try_clone().expect("a clone"));
    for line in std::io::BufRead::lines(reader).map_while(Result::ok) {
        count.fetch_add(1, SeqCst);
        let _ = tell.send(line.clone());
        if stream.write_all(format!("{}\n", line.to_uppercase()).as_bytes()).is_err() {
            return;
        }
    }
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("the proxy accepts");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    stream
}

fn ask(stream: &mut TcpStream, line: &str) -> std::io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes())?;
    read_line(stream)
}

fn read_line(stream: &mut TcpStream) -> std::io::Result<String> {
    let (mut line, mut byte) = (String::new(), [0]);
    loop {
        if stream.read(&mut byte)? == 0 {
            return Ok(line);
        }
        line.push(char::from(byte[0]));
        if byte[0] == b'\n' {
            return Ok(line);
        }
    }
}

/// That nothing comes can only be seen by waiting a little.
fn assert_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
    let error = read_line(stream).expect_err("something came through");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
}

#[test]
fn it_forwards_and_counts() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    let mut stream = connect(&proxy);
    assert_eq!(ask(&mut stream, "one").expect("an answer"), "ONE\n");
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.open), (1, 1));
    assert_eq!((counts.request_bytes, counts.reply_bytes), (4, 4));
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(read_line(&mut stream).expect("an orderly end"), "");
}

#[test]
fn a_cut_resets_what_is_open_and_nothing_later() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    let mut stream = connect(&proxy);
    assert_eq!(ask(&mut stream, "one").expect("an answer"), "ONE\n");
    proxy.cut();
    let error = read_line(&mut stream).expect_err("the connection is cut");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(ask(&mut connect(&proxy), "two").expect("an answer"), "TWO\n");
}

#[test]
fn a_black_hole_swallows_and_resets_when_it_ends() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    let mut old = connect(&proxy);
    assert_eq!(ask(&mut old, "one").expect("an answer"), "ONE\n");
    proxy.set(Mode::BlackHole);
    let mut new = connect(&proxy);
    for stream in [&mut old, &mut new] {
        stream.write_all(b"two\n").expect("it is accepted");
        assert_silent(stream);
    }
    assert_eq!(server.lines.load(SeqCst), 1);
    proxy.set(Mode::Forward);
    for stream in [&mut old, &mut new] {
        let error = read_line(stream).expect_err("a stream with a hole");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(ask(&mut connect(&proxy), "three").expect("an answer"), "THREE\n");
}

#[test]
fn nothing_follows_what_was_swallowed() {
    const ROUNDS: u32 = 30;
    let server = echo();
    let proxy = Proxy::before(server.port);
    for _ in 0..ROUNDS {
        let stream = connect(&proxy);
        let mut requests = stream.try_clone().expect("a clone");
        let writer = std::thread::spawn(move || {
            (0_u64..).try_for_each(|n| requests.write_all(format!("{n}\n").as_bytes()))
        });
        let lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
        for (line, due) in lines.map_while(Result::ok).zip(0_u64..) {
            assert_eq!(line.parse(), Ok(due), "an answer to another request");
            if due % 200 == 199 {
                proxy.set(Mode::BlackHole);
                // sleep: something is on its way all the time, and is swallowed.
                std::thread::sleep(Duration::from_millis(1));
                proxy.set(Mode::Forward);
            }
        }
        let _reset = writer.join().expect("the writer ends with the connection");
    }
}

#[test]
fn what_is_held_arrives_later() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    let mut stream = connect(&proxy);
    assert_eq!(ask(&mut stream, "one").expect("an answer"), "ONE\n");
    proxy.set(Mode::Hold);
    stream.write_all(b"two\n").expect("it is accepted");
    assert_silent(&mut stream);
    assert_eq!(server.lines.load(SeqCst), 1);
    proxy.set(Mode::Forward);
    assert_eq!(read_line(&mut stream).expect("an answer"), "TWO\n");
}

#[test]
fn new_connections_are_refused_and_old_ones_go_on() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    let mut old = connect(&proxy);
    assert_eq!(ask(&mut old, "one").expect("an answer"), "ONE\n");
    proxy.set(Mode::Refuse);
    assert!(ask(&mut connect(&proxy), "two").is_err());
    assert_eq!(ask(&mut old, "three").expect("an answer"), "THREE\n");
}

#[test]
fn a_server_that_is_gone_shows_as_a_reset() {
    let proxy = Proxy::before(leasehold_testbed::free_port());
    assert!(ask(&mut connect(&proxy), "one").is_err());
}

#[test]
fn a_dropped_reply_is_a_request_that_was_carried_out() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    let (mut other, mut stream) = (connect(&proxy), connect(&proxy));
    proxy.drop_reply_to(b"write");
    assert_eq!(ask(&mut other, "read").expect("an answer"), "READ\n");
    assert_eq!(ask(&mut stream, "write it").expect("an orderly end"), "");
    let arrived: Vec<String> = server.arrived.iter().take(2).collect();
    assert_eq!(arrived, ["read", "write it"]);
    assert_eq!(ask(&mut other, "write again").expect("only once"), "WRITE AGAIN\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(proxy.dropped(1));
    assert_eq!(proxy.counts().dropped_replies, 1);
}

#[test]
fn replies_are_dropped_until_told_otherwise() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    proxy.set(Mode::DropReplies);
    for _ in 0..2 {
        assert_eq!(ask(&mut connect(&proxy), "one").expect("an orderly end"), "");
    }
    assert_eq!(server.lines.load(SeqCst), 2);
    proxy.set(Mode::Forward);
    assert_eq!(ask(&mut connect(&proxy), "two").expect("an answer"), "TWO\n");
}

#[test]
fn delays_overlap_and_go_one_way() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    let delay = Duration::from_millis(200);
    proxy.delay(Direction::Requests, delay);
    let mut stream = connect(&proxy);
    let begun = Instant::now();
    for line in ["1", "2", "3", "4"] {
        stream.write_all(format!("{line}\n").as_bytes()).expect("it is accepted");
        server.lines.load(SeqCst);
    }
    for line in ["1\n", "2\n", "3\n", "4\n"] {
        assert_eq!(read_line(&mut stream).expect("an answer"), line);
    }
    assert!(begun.elapsed() >= delay, "nothing arrives before its time");
    proxy.delay(Direction::Requests, Duration::ZERO);
    assert_eq!(ask(&mut stream, "five").expect("an answer"), "FIVE\n");
}

#[tokio::test]
async fn it_may_be_dropped_within_a_runtime() {
    let server = echo();
    let proxy = Proxy::before(server.port);
    let mut stream = connect(&proxy);
    assert_eq!(ask(&mut stream, "one").expect("an answer"), "ONE\n");
    drop(proxy);
    assert!(matches!(read_line(&mut stream), Ok(line) if line.is_empty()));
}
