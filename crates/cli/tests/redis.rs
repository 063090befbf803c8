//! The program over a Redis server: what only a server can do to it.

mod lab;

use lab::{Lab, Process, eventually, is_running};
use leasehold_testbed::Redis;

/// Starts `leasehold` in the lab with the server as its store.
fn start(lab: &Lab, url: &str, arguments: &[&str]) -> Process {
    Process::of(lab.leasehold(arguments).env("LEASEHOLD_STORE", url))
}

#[test]
fn when_the_server_hangs_the_command_is_gone_before_the_deadline() {
    let (lab, redis) = (Lab::new(), Redis::start());
    let script = "trap '' TERM; echo $LEASEHOLD_DEADLINE > deadline; echo $$ > pid.new; \
                  mv pid.new started; while :; do date +%s%3N >> alive; done";
    let holder = start(&lab, &redis.url(), &["run", "k", "--ttl", "2s", "--", "sh", "-c", script]);
    let command = lab.wait_for("started");
    redis.pause();
    let done = holder.finish();
    assert_eq!(done.code, Some(97), "{done:?}");
    assert!(done.stderr.contains("lost the lock on \"k\""), "{done:?}");
    assert!(!is_running(&command));
    // The last sign of life lies before the end of the key, which no renewal has moved by more
    // than the time between the grant and the pause.
    redis.resume();
    let left: i64 = redis.cli(&["PTTL", "k"]).trim().parse().unwrap();
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let alive = std::fs::read_to_string(lab.path("alive")).unwrap();
    let last: i64 = alive.lines().last().unwrap().parse().unwrap();
    assert!(left <= 0 || last < now + left, "alive at {last}, {left} ms left at {now}");
}

#[test]
fn a_server_that_is_not_there_is_69_or_waited_for_with_one_warning() {
    let (lab, redis) = (Lab::new(), Redis::start());
    let url = redis.url();
    redis.stop();
    let done = start(&lab, &url, &["run", "k", "--try", "--", "true"]).finish();
    assert_eq!(done.code, Some(69), "{done:?}");
    let done = start(&lab, &url, &["run", "k", "--wait", "1500ms", "--", "true"]).finish();
    assert_eq!(done.code, Some(69), "{done:?}");
    assert_eq!(done.stderr.matches("warning").count(), 1, "{done:?}");

    let once = ["once", "job", "--version", "v1", "--wait", "--", "sh", "-c", "exit 6"];
    let waits = start(&lab, &url, &["run", "k", "--", "sh", "-c", "exit 5"]);
    let job = Process::of(
        lab.leasehold(&once)
            .env("LEASEHOLD_STORE", &url)
            .stderr(std::fs::File::create(lab.path("trouble")).unwrap()),
    );
    eventually("the trouble", || {
        let told = std::fs::read_to_string(lab.path("trouble")).unwrap();
        told.contains("trying again").then_some(())
    });
    redis.start_again();
    for (waits, code) in [(waits, 5), (job, 6)] {
        let done = waits.finish();
        assert_eq!(done.code, Some(code), "{done:?}");
    }
}

#[test]
fn a_job_whose_end_cannot_be_written_down_is_69_and_may_be_run_again() {
    let (lab, redis) = (Lab::new(), Redis::start());
    let script = "echo ran >> log; touch began; while ! test -e go; do sleep 0.02; done";
    let once = ["once", "job", "--version", "v1", "--ttl", "5s", "--", "sh", "-c", script];
    let first = start(&lab, &redis.url(), &once);
    lab.wait_for("began");
    redis.pause();
    std::fs::write(lab.path("go"), "").unwrap();
    let done = first.finish();
    assert_eq!(done.code, Some(69), "{done:?}");
    assert!(done.stderr.contains("may be run again"), "{done:?}");
    redis.resume();
    // Whether the request that was under way is carried out now, or its hold has ended.
    let next = start(&lab, &redis.url(), &[&once[..2], &["--wait"], &once[2..]].concat()).finish();
    assert_eq!(next.code, Some(0), "{next:?}");
    let runs = std::fs::read_to_string(lab.path("log")).unwrap().lines().count();
    assert_eq!(runs == 1, next.stderr.contains("has been done"), "{next:?}");
}

#[test]
fn a_wrong_password_is_77_and_shown_nowhere() {
    let (lab, redis) = (Lab::new(), Redis::options().password("right").start());
    let url = redis.url().replace("right", "wr0ng");
    assert!(url.contains("wr0ng"), "{url}");
    for arguments in [&["run", "k", "--", "true"][..], &["ls", "-vv"], &["inspect", "k"]] {
        let done = start(&lab, &url, arguments).finish();
        assert_eq!(done.code, Some(77), "{done:?}");
        assert!(!done.stderr.contains("wr0ng"), "{done:?}");
    }
}

#[test]
fn the_command_is_not_told_the_password_and_a_nested_one_says_what_to_do() {
    let (lab, redis) = (Lab::new(), Redis::options().password("s3cret").start());
    let done = start(&lab, &redis.url(), &["run", "k", "--", "env"]).finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("LEASEHOLD_STORE=redis://"), "{done:?}");
    assert!(!done.stdout.contains("s3cret"), "{done:?}");

    let nested = format!("{} run inner -- echo ran", lab::LEASEHOLD);
    let run = |script: &str| {
        start(&lab, &redis.url(), &["run", "outer", "--", "sh", "-c", script]).finish()
    };
    let done = run(&nested);
    assert_eq!(done.code, Some(78), "{done:?}");
    assert!(done.stderr.contains("without the password") && done.stdout.is_empty(), "{done:?}");
    // With its own variable, and with the file that the outer one may have had it from.
    let done = run(&format!("LEASEHOLD_STORE={} {nested}", redis.url()));
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "ran\n"), "{done:?}");
    let config = lab.path("config/leasehold/config.toml");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, format!("store = \"{}\"\n", redis.url())).unwrap();
    let done = run(&nested);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "ran\n"), "{done:?}");
}

#[test]
fn a_holder_that_is_not_of_leasehold_is_waited_for_and_not_broken() {
    let (lab, redis) = (Lab::new(), Redis::start());
    redis.cli(&["SET", "k", "token of another", "PX", "3600000"]);
    let done = start(&lab, &redis.url(), &["run", "k", "--try", "--", "true"]).finish();
    assert_eq!(done.code, Some(75), "{done:?}");
    let done = start(&lab, &redis.url(), &["break", "k", "--yes"]).finish();
    assert_eq!(done.code, Some(77), "{done:?}");
    assert!(done.stderr.contains("not of leasehold"), "{done:?}");
    let done = start(&lab, &redis.url(), &["inspect", "k", "--json"]).finish();
    assert!(done.stdout.contains("\"foreign\":true"), "{done:?}");
    assert!(!done.stdout.contains("token of another"), "{done:?}");
    assert_eq!(redis.cli(&["GET", "k"]).trim(), "token of another");
}
