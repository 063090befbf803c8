//! Which boot of the machine this is, and the clock that all its processes share.

use leasehold_core::Moment;

use super::trouble::Trouble;
use crate::clock;
use crate::error::ErrorKind;

/// A boot of the machine. Times that were written in another boot mean nothing in this one.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    id: String,
    /// How far this process's clock is ahead of the machine's, in nanoseconds: a container may
    /// have a time namespace of its own (`time_namespaces(7)`).
    ahead: i64,
}

impl Boot {
    /// Asks the system.
    pub(super) fn current() -> Result<Self, Trouble> {
        Ok(Self { id: boot_id()?, ahead: clock_offset() })
    }

    /// A boot of a test's choice.
    #[cfg(test)]
    pub(super) fn named(id: &str) -> Self {
        Self { id: id.to_owned(), ahead: 0 }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Now, in nanoseconds on the clock of the machine.
    pub(super) fn now(&self) -> i64 {
        nanos(clock::now()).saturating_sub(self.ahead)
    }
}

/// A moment as the file keeps it. 292 years of uptime fit.
pub(super) fn nanos(moment: Moment) -> i64 {
    i64::try_from(moment.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(target_os = "linux")]
fn boot_id() -> Result<String, Trouble> {
    let path = std::path::Path::new("/proc/sys/kernel/random/boot_id");
    let id = std::fs::read_to_string(path).map_err(|error| {
        Trouble::io("tell this boot of the machine from another by", path, error)
    })?;
    checked(&id)
}

#[cfg(target_os = "macos")]
fn boot_id() -> Result<String, Trouble> {
    let answer = std::process::Command::new("/usr/sbin/sysctl")
        .args(["-n", "kern.bootsessionuuid"])
        .output()
        .map_err(|error| {
            Trouble::io("tell this boot from another by", "/usr/sbin/sysctl".as_ref(), error)
        })?;
    checked(&String::from_utf8_lossy(&answer.stdout))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn boot_id() -> Result<String, Trouble> {
    checked("")
}

fn checked(id: &str) -> Result<String, Trouble> {
    let id = id.trim();
    if id.is_empty() {
        return Err(Trouble::new(
            ErrorKind::Unsupported,
            "this system does not name its boots, so leases could not be told to be of an earlier \
             one; use another store",
        ));
    }
    Ok(id.to_owned())
}

/// The line `boottime SECONDS NANOSECONDS` of `/proc/self/timens_offsets`; the file is absent where
/// the kernel has no time namespaces.
fn clock_offset() -> i64 {
    std::fs::read_to_string("/proc/self/timens_offsets").map_or(0, |text| parse_offset(&text))
}

fn parse_offset(text: &str) -> i64 {
    text.lines()
        .find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            // Older kernels number the clocks: 7 is CLOCK_BOOTTIME.
            matches!(words.next()?, "boottime" | "7").then_some(())?;
            let seconds: i64 = words.next()?.parse().ok()?;
            let nanos: i64 = words.next()?.parse().ok()?;
            seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        assert_eq!(parse_offset("monotonic           0         0\nboottime            0   0\n"), 0);
        assert_eq!(parse_offset("monotonic 5 0\nboottime  -86400  7\n"), -86_399_999_999_993);
        assert_eq!(parse_offset("boottime x y\n"), 0);
        assert_eq!(parse_offset(""), 0);
    }

    #[test]
    fn a_boot_has_a_name_and_a_clock_that_runs() {
        let boot = Boot::current().unwrap();
        assert_eq!(boot.id(), Boot::current().unwrap().id());
        let before = boot.now();
        assert!(before > 0 && boot.now() >= before);
    }
}
