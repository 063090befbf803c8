//! The program on a terminal, under a real shell with job control (in tmux).

mod lab;

use std::process::{Command, Stdio};

use lab::{Lab, Process, eventually, state_of, wait_for_end};

/// A shell in a terminal, which ends with the test.
struct Terminal<'a> {
    lab: &'a Lab,
    _server: Process,
}

impl<'a> Terminal<'a> {
    fn new(lab: &'a Lab) -> Self {
        // In the foreground and killed with the thread that starts it, which is the test's.
        let mut server = Command::new("setpriv");
        server.args(["--pdeathsig", "KILL", "tmux", "-D", "-f", "/dev/null", "-S"]);
        server.arg(lab.path("tmux"));
        lab.prepare(&mut server);
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let bin = std::path::Path::new(lab::LEASEHOLD).parent().unwrap();
        let rc =
            format!("PS1='ready> '; PATH={}:$PATH; cd {}", bin.display(), lab.path("").display());
        std::fs::write(lab.path("rc"), rc).unwrap();
        let rc = lab.path("rc").display().to_string();
        let terminal = Self { lab, _server: Process::of(&mut server) };
        eventually("the terminal", || {
            let size = ["new-session", "-d", "-x", "150", "-y", "30"];
            let shell = ["bash", "--rcfile", &rc, "-i"];
            terminal.tmux(&[&size[..], &shell[..]].concat()).map(|_| ())
        });
        terminal.wait_for("ready>");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("tmux");
        self.lab.prepare(command.arg("-S").arg(self.lab.path("tmux")).args(arguments));
        let done = command.output().unwrap();
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Types a line.
    fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]).unwrap();
        self.key("Enter");
    }

    /// Presses a key.
    fn key(&self, name: &str) {
        self.tmux(&["send-keys", name]).unwrap();
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).unwrap()
    }

    /// Waits until the screen has it.
    fn wait_for(&self, text: &str) {
        let mut screen = String::new();
        let started = std::time::Instant::now();
        while !screen.contains(text) {
            assert!(started.elapsed().as_secs() < 30, "no {text:?} on:\n{screen}");
            screen = self.screen();
        }
    }

    /// Asks the shell, which reads only when it has the terminal back, for the last exit code.
    fn code(&self) -> String {
        std::fs::remove_file(self.lab.path("code")).ok();
        self.line("echo $? > code.new; mv code.new code");
        self.lab.wait_for("code")
    }
}

/// What the shell has for a job that it sees stopped.
const STOPPED: &str = "147";
/// Runs until the file `stop` is there.
const SCRIPT: &str =
    "echo $$ > pid.new; mv pid.new started; until test -e stop; do sleep 0.01; done";

fn wait_for_state(process: &str, state: char) {
    eventually(&format!("state {state}"), || {
        state_of(process).filter(|now| (*now == 'T') == (state == 'T'))
    });
}

#[test]
fn a_waiting_line_shows_the_holder_and_goes_away() {
    let lab = Lab::new();
    let holder = lab.start_holding(&["--note", "nightly"], "sleep 1000");
    let terminal = Terminal::new(&lab);
    terminal.line("leasehold run k -- echo granted-$((1+1))");
    terminal.wait_for("leasehold: waiting for k, held by ");
    terminal.wait_for(&format!(":{} (nightly), next in line", holder.id()));
    holder.signal("TERM");
    terminal.wait_for("granted-2");
    assert!(!terminal.screen().contains("waiting for"), "{}", terminal.screen());
    assert_eq!(terminal.code(), "0");
}

#[test]
fn a_key_gives_up_the_wait() {
    let lab = Lab::new();
    let _holder = lab.start_holding(&[], "sleep 1000");
    let terminal = Terminal::new(&lab);
    terminal.line("leasehold run k -- touch ran");
    terminal.wait_for("waiting for");
    lab.wait_for_line("k", 1, 1);
    terminal.key("C-c");
    assert_eq!(terminal.code(), "130");
    assert_eq!(lab.inspect("k")["waiters"].as_array().unwrap().len(), 0);
    assert!(!lab.path("ran").exists());
}

#[test]
fn a_key_reaches_the_command_once() {
    let lab = Lab::new();
    let terminal = Terminal::new(&lab);
    std::fs::write(lab.path("script"), format!("trap 'echo INT >> ints; exit 7' INT; {SCRIPT}"))
        .unwrap();
    terminal.line("leasehold run k -- sh script");
    lab.wait_for("started");
    terminal.key("C-c");
    assert_eq!(terminal.code(), "7");
    assert_eq!(lab.wait_for("ints"), "INT");
}

#[test]
fn a_key_that_ends_the_command_ends_the_script_around_it() {
    let lab = Lab::new();
    let terminal = Terminal::new(&lab);
    std::fs::write(lab.path("script"), SCRIPT).unwrap();
    std::fs::write(lab.path("outer"), "leasehold run k -- sh script\ntouch second\n").unwrap();
    for shell in ["bash", "sh"] {
        std::fs::remove_file(lab.path("started")).ok();
        terminal.line(&format!("{shell} outer"));
        lab.wait_for("started");
        terminal.key("C-c");
        assert_eq!(terminal.code(), "130", "{shell}");
        assert!(!lab.path("second").exists(), "{shell}");
    }
    assert_eq!(lab.run(&["ls"]).stdout, "");
}

#[test]
fn a_key_stops_the_job_and_the_shell_continues_it() {
    let lab = Lab::new();
    let terminal = Terminal::new(&lab);
    std::fs::write(lab.path("script"), format!("{SCRIPT}; exit 5")).unwrap();
    terminal.line("leasehold run k --ttl 1h -- sh script");
    let command = lab.wait_for("started");
    for _ in 0..2 {
        terminal.key("C-z");
        wait_for_state(&command, 'T');
        assert_eq!(terminal.code(), STOPPED);
        terminal.line("fg");
        wait_for_state(&command, 'S');
    }
    // And in the background.
    terminal.key("C-z");
    wait_for_state(&command, 'T');
    assert_eq!(terminal.code(), STOPPED);
    terminal.line("bg");
    wait_for_state(&command, 'S');
    assert_eq!(terminal.code(), "0");
    terminal.line("fg");
    let owner = lab.inspect("k")["holders"][0]["owner"].as_str().unwrap().to_owned();
    let leasehold = owner.rsplit_once(':').unwrap().1.to_owned();
    eventually("the job in the foreground", || {
        let stat = std::fs::read_to_string(format!("/proc/{command}/stat")).ok()?;
        // The group that has the terminal.
        let group = stat.rsplit_once(") ")?.1.split(' ').nth(5)?.to_owned();
        (group == leasehold).then_some(())
    });
    std::fs::write(lab.path("stop"), "").unwrap();
    assert_eq!(terminal.code(), "5");
}

#[test]
fn a_job_that_was_stopped_for_too_long_is_not_continued() {
    let lab = Lab::new();
    let terminal = Terminal::new(&lab);
    std::fs::write(lab.path("script"), format!("trap '' TERM; {SCRIPT}; touch went-on")).unwrap();
    terminal.line("leasehold run k --ttl 1s -- sh script");
    let command = lab.wait_for("started");
    terminal.key("C-z");
    wait_for_end(&command);
    // Somebody else has it meanwhile.
    assert_eq!(lab.run(&["run", "k", "--", "true"]).code, Some(0));
    terminal.line("fg");
    terminal.wait_for("lost the lock");
    assert_eq!(terminal.code(), "97");
    assert!(!lab.path("went-on").exists());
}

#[test]
fn a_shell_under_the_lock_has_the_terminal() {
    let lab = Lab::new();
    let terminal = Terminal::new(&lab);
    terminal.line("leasehold run k -- bash --norc -i");
    lab.wait_for_line("k", 1, 0);
    terminal.line("echo inner-$((1+2)) $(tty)");
    terminal.wait_for("inner-3 /dev/");
    terminal.line("exit 4");
    assert_eq!(terminal.code(), "4");
}

#[test]
fn another_part_of_a_pipeline_can_have_the_terminal() {
    let lab = Lab::new();
    let terminal = Terminal::new(&lab);
    let reader = "sh -c 'read x; echo ready; read y < /dev/tty; echo got-$x-$y'";
    terminal.line(&format!("leasehold run k -- echo hello | {reader}"));
    terminal.wait_for("\nready");
    terminal.line("there");
    terminal.wait_for("\ngot-hello-there");
    assert_eq!(terminal.code(), "0");
}

#[test]
fn a_command_in_a_pipeline_gets_the_terminal_when_it_reads() {
    let lab = Lab::new();
    let terminal = Terminal::new(&lab);
    terminal.line("leasehold run k -- sh -c 'echo ready; read x; echo got-$x' | cat");
    terminal.wait_for("\nready");
    terminal.line("this");
    terminal.wait_for("\ngot-this");
    assert_eq!(terminal.code(), "0");
}

#[test]
fn a_terminal_that_the_lost_command_had_changed_is_restored() {
    let lab = Lab::new();
    let terminal = Terminal::new(&lab);
    std::fs::write(lab.path("script"), format!("trap '' TERM; stty raw -echo; {SCRIPT}")).unwrap();
    terminal.line("leasehold run k --grace 100ms -- sh script");
    lab.wait_for("started");
    lab.run(&["break", "k", "--yes"]);
    terminal.wait_for("lost the lock");
    assert_eq!(terminal.code(), "97");
    terminal.line("stty -a > modes.new; mv modes.new modes");
    let modes = lab.wait_for("modes");
    assert!(modes.contains(" icanon") && modes.contains(" echo "), "{modes}");
}

#[test]
fn break_shows_the_holder_and_asks() {
    let lab = Lab::new();
    let holder = lab.start_holding(&["--note", "stuck"], "sleep 1000");
    let terminal = Terminal::new(&lab);
    terminal.line("leasehold break k");
    terminal.wait_for("(stuck)");
    terminal.wait_for("[y/N]");
    terminal.line("n");
    assert_eq!(terminal.code(), "1");
    assert_eq!(lab.inspect("k")["holders"].as_array().unwrap().len(), 1);
    terminal.line("clear");
    eventually("an empty screen", || (!terminal.screen().contains("[y/N]")).then_some(()));
    terminal.line("leasehold break k");
    terminal.wait_for("[y/N]");
    terminal.line("y");
    assert_eq!(terminal.code(), "0");
    assert_eq!(holder.finish().code, Some(97));
}
