//! A Redis of each kind starts, forgets and remembers as it was told.

use std::process::Command;

use leasehold_testbed::{Memory, Redis};

fn redis_cli(redis: &Redis, args: &[&str]) -> (bool, String) {
    let output = Command::new("redis-cli").args(args).args(["-e", "PING"]).output();
    let output = output.unwrap_or_else(|error| panic!("redis-cli for {redis:?}: {error}"));
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

#[test]
fn servers_do_not_get_in_each_others_way() {
    let (one, two) = (Redis::start(), Redis::start());
    assert_ne!(one.port(), two.port());
    one.cli(&["SET", "k", "a b"]);
    assert_eq!(one.cli(&["GET", "k"]), "a b");
    assert_eq!(two.cli(&["EXISTS", "k"]), "0");
}

#[test]
fn memory_is_kept_or_lost_as_asked() {
    let redis = Redis::start();
    redis.cli(&["SET", "k", "v"]);
    let (pid, port) = (redis.pid(), redis.port());
    redis.restart(Memory::Kept);
    assert_eq!(redis.cli(&["GET", "k"]), "v");
    assert_ne!(redis.pid(), pid);
    assert_eq!(redis.port(), port);
    redis.restart(Memory::Lost);
    assert_eq!(redis.cli(&["EXISTS", "k"]), "0");
}

#[test]
fn an_append_only_file_survives_a_kill() {
    let redis = Redis::options().append_only().start();
    redis.cli(&["SET", "k", "v"]);
    redis.kill();
    redis.start_again();
    assert_eq!(redis.cli(&["GET", "k"]), "v");
}

#[test]
fn a_killed_server_refuses_connections() {
    let redis = Redis::start();
    redis.kill();
    let refused = std::net::TcpStream::connect(("127.0.0.1", redis.port()));
    assert_eq!(refused.expect_err("nobody is there").kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_paused_server_answers_when_it_goes_on() {
    let redis = Redis::start();
    redis.pause();
    let mut asked = Command::new("redis-cli")
        .args(["-u", &redis.url(), "PING"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("redis-cli runs");
    assert!(asked.try_wait().expect("it can be asked").is_none(), "answered while stopped");
    redis.resume();
    assert!(asked.wait().expect("it ends").success());
}

#[test]
fn passwords_users_databases_and_sockets_are_in_the_urls() {
    let redis = Redis::options()
        .password("s3cret")
        .user("worker", "pw", "~jobs:* &* +@all")
        .database(3)
        .start();
    assert!(redis.cli(&["CLIENT", "INFO"]).contains("db=3"));
    assert_eq!(redis.url(), format!("redis://:s3cret@127.0.0.1:{}/3", redis.port()));
    // redis-cli takes the empty user of that URL for a name, so the same in options.
    let default = ["-u", &redis.url_as("default", "s3cret"), "--no-auth-warning"];
    assert_eq!(redis_cli(&redis, &default), (true, "PONG\n".to_owned()));
    assert_eq!(
        redis_cli(&redis, &["-u", &redis.url_as("worker", "pw"), "--no-auth-warning"]).1,
        "PONG\n"
    );
    let port = redis.port().to_string();
    assert!(redis_cli(&redis, &["-p", &port]).1.contains("NOAUTH"));
    let socket = redis.socket().display().to_string();
    assert_eq!(
        redis_cli(&redis, &["-s", &socket, "--no-auth-warning", "-a", "s3cret"]).1,
        "PONG\n"
    );
    assert_eq!(redis.unix_url(), format!("redis+unix://:s3cret@{socket}?db=3"));
}

#[test]
fn tls_is_good_with_the_right_authority_only() {
    let redis = Redis::options().tls().start();
    let (port, certificates) = (redis.tls_port().to_string(), redis.certificates());
    let with = |ca: std::path::PathBuf| {
        redis_cli(&redis, &["-p", &port, "--tls", "--cacert", &ca.display().to_string()])
    };
    assert_eq!(with(certificates.ca()), (true, "PONG\n".to_owned()));
    assert!(!with(certificates.wrong_ca()).0);
}

#[test]
fn client_certificates_are_demanded_when_asked_for() {
    let redis = Redis::options().client_certificates().start();
    let (port, certificates) = (redis.tls_port().to_string(), redis.certificates());
    let ca = certificates.ca().display().to_string();
    let (cert, key) = (certificates.client(), certificates.client_key());
    let base = ["-p", &port, "--tls", "--cacert", &ca];
    assert!(!redis_cli(&redis, &base).0);
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let full = [&base[..], &["--cert", &cert, "--key", &key]].concat();
    assert_eq!(redis_cli(&redis, &full), (true, "PONG\n".to_owned()));
}

#[test]
fn a_server_that_does_not_start_shows_its_log() {
    let start = || Redis::options().config("maxmemory-policy", "nonsense").start();
    let message = *std::panic::catch_unwind(start)
        .expect_err("it does not start")
        .downcast::<String>()
        .expect("a message");
    assert!(message.contains("maxmemory-policy"), "{message}");
}
