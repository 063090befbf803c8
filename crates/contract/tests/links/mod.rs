//! A way to the servers for one worker: a proxy before each of them.

use std::process::Command;

use leasehold_contract::{Link, Weather};
use leasehold_testbed::Proxy;
use leasehold_testbed::proxy::{Direction, Mode};

#[derive(Debug)]
struct Proxies {
    each: Vec<Proxy>,
    url: String,
}

/// A way to the servers on those ports, where `url` is how they are reached by others.
pub(crate) fn to(ports: &[u16], url: impl FnOnce(&[u16]) -> String) -> Box<dyn Link> {
    let each: Vec<Proxy> = ports.iter().map(|port| Proxy::before(*port)).collect();
    let ports: Vec<u16> = each.iter().map(Proxy::port).collect();
    Box::new(Proxies { url: url(&ports), each })
}

impl Link for Proxies {
    fn worker(&self) -> Command {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_contract-worker"));
        worker.arg(&self.url);
        worker
    }

    fn wires(&self) -> usize {
        self.each.len()
    }

    fn set(&self, wire: usize, weather: Weather) {
        let (mode, late) = match weather {
            Weather::Clear => (Mode::Forward, None),
            Weather::Held => (Mode::Hold, None),
            Weather::Swallowed => (Mode::BlackHole, None),
            Weather::Mute => (Mode::DropReplies, None),
            Weather::Slow(late) => (Mode::Forward, Some(late)),
        };
        self.each[wire].set(mode);
        self.each[wire].delay(Direction::Replies, late.unwrap_or_default());
    }

    fn cut(&self, wire: usize) {
        self.each[wire].cut();
    }
}
