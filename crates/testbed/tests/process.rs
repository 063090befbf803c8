//! What is started dies with its test; what is stopped stands still.

use std::ffi::OsString;
use std::time::Duration;

use leasehold_testbed::{Output, Process, Redis, Worker, is_alive, test_name, worker};

/// Long: a machine may be busy. Nobody waits it out but a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn shell(script: &str, output: Output) -> (tempfile::TempDir, Process) {
    let home = tempfile::tempdir().expect("a directory");
    let args = ["-c", script].map(OsString::from);
    let process = Process::start("/bin/sh".as_ref(), &args, &[], &home.path().join("log"), output);
    (home, process)
}

/// Waits for the end of a process that is not ours to wait for.
fn assert_ends(pid: u32, what: &str) {
    let until = std::time::Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(std::time::Instant::now() < until, "{what} ({pid}) is still there");
        // sleep: a pause between two looks at a process that is nobody's child here
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_dies_with_a_test_that_is_killed() {
    if worker::task().is_some() {
        let redis = Redis::start();
        worker::say(&redis.pid().to_string());
        let _ = worker::hear();
        unreachable!("the worker is killed while it listens");
    }
    let mut test = Worker::start(&test_name!(), "start a server");
    let server: u32 = test.line().parse().expect("a process id");
    assert!(is_alive(server));
    // Only the test process itself: its group would spare neither.
    kill(test.pid());
    assert_ends(server, "the server");
}

#[test]
fn a_stopped_server_dies_with_a_test_that_is_killed() {
    if worker::task().is_some() {
        let redis = Redis::start();
        redis.pause();
        worker::say(&redis.pid().to_string());
        let _ = worker::hear();
        unreachable!("the worker is killed while it listens");
    }
    let mut test = Worker::start(&test_name!(), "start a server");
    let server: u32 = test.line().parse().expect("a process id");
    kill(test.pid());
    assert_ends(server, "the stopped server");
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let redis = std::thread::spawn(Redis::start).join().expect("it starts");
    assert_eq!(redis.cli(&["PING"]), "PONG");
}

#[test]
fn a_process_dies_with_its_guardian() {
    let (_home, mut process) = shell("echo $PPID; exec cat", Output::Lines);
    let guardian = process.line().expect("a line").parse().expect("a process id");
    kill(guardian);
    assert!(process.ended_within(PATIENCE));
}

#[test]
fn dropping_a_process_kills_what_it_started() {
    let (_home, mut process) = shell("sleep 1000 & echo $!; wait", Output::Lines);
    let grandchild = process.line().expect("a line").parse().expect("a process id");
    assert!(is_alive(grandchild));
    drop(process);
    assert_ends(grandchild, "the grandchild");
}

#[test]
fn the_exit_code_passes_through() {
    let (_home, mut process) = shell("exit 7", Output::Log);
    assert_eq!(process.wait(), 7);
    let (_home, mut process) = shell("kill -TERM $$", Output::Log);
    assert_eq!(process.wait(), 128 + 15);
}

#[test]
fn lines_go_both_ways() {
    let (_home, mut process) = shell("read -r line; echo \"<$line>\"", Output::Lines);
    process.send("a  b");
    assert_eq!(process.line().as_deref(), Some("<a  b>"));
    assert_eq!(process.line(), None);
}

#[test]
fn a_program_that_cannot_run_is_a_panic_with_the_reason() {
    let home = tempfile::tempdir().expect("a directory");
    let log = home.path().join("log");
    let mut process = Process::start("/nonexistent/x".as_ref(), &[], &[], &log, Output::Log);
    assert_eq!(process.wait(), 127);
    assert!(process.log().contains("not found"), "{}", process.log());
}

#[test]
fn a_missing_program_names_its_package() {
    let missing = std::panic::catch_unwind(|| leasehold_testbed::require("no-such-server", "pkg"));
    let message = *missing.expect_err("it panics").downcast::<String>().expect("a message");
    assert!(message.contains("`no-such-server`") && message.contains("apt-get install pkg"));
}

#[test]
fn a_worker_that_is_paused_says_nothing_until_it_goes_on() {
    if worker::task().is_some() {
        worker::say("ready");
        while let Some(line) = worker::hear() {
            worker::say(&line);
        }
        return;
    }
    let mut worker = Worker::start(&test_name!(), "echo");
    assert_eq!(worker.line(), "ready");
    worker.pause();
    worker.send("hello");
    let stopped = std::fs::read_to_string(format!("/proc/{}/status", worker.pid()));
    assert!(stopped.expect("it is still there").contains("State:\tT (stopped)"));
    worker.resume();
    assert_eq!(worker.line(), "hello");
    worker.kill();
    assert!(!is_alive(worker.pid()));
    assert_eq!(worker.next_line(), None);
}

#[test]
fn a_worker_finishes_with_its_environment() {
    if let Some(task) = worker::task() {
        worker::say(&format!("{task} {}", std::env::var("COLOUR").expect("it is set")));
        return;
    }
    let mut worker = Worker::start_with(&test_name!(), "a task", &[("COLOUR", "blue")]);
    assert_eq!(worker.line(), "a task blue");
    worker.finish();
}

#[test]
#[should_panic(expected = "the worker failed")]
fn a_worker_that_fails_is_a_failure_of_its_test() {
    assert!(worker::task().is_none(), "as the worker should");
    Worker::start(&test_name!(), "fail").finish();
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(status.expect("kill(1) runs").success());
}
