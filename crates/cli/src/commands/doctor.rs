//! `leasehold doctor`: which guarantees hold at a store, and which do not.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use leasehold::{
    Client, ClockOffset, Examination, Examined, Finding, Guarantees, Probe, Property, RoundTrip,
    Severity,
};
use serde::Serialize;

use super::Outcome;
use crate::args::{Common, Doctor};
use crate::duration::show;
use crate::exit::{self, Failure};
use crate::output::{FAINT, Output, STRONG, printable};
use crate::settings::{Flags, Settings, process_environment};

/// Runs the verb.
pub(crate) async fn doctor(
    args: &Doctor,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let flags = Flags { ttl: args.ttl, demand: args.demand, ..Flags::default() };
    let settings = Settings::load(common, flags, &process_environment)?;
    // With the timing of `run`, which is what is to be judged.
    let client = Client::builder()
        .url(&settings.store.value)
        .ttl(settings.ttl.value)
        .grace(settings.grace.value)
        .demand(settings.demanded())
        .build()
        .map_err(|error| settings.blame(error))?;
    let found = client.examine(&args.prefix).await?;
    let (store, ttl) = (client.store().to_string(), client.timing().ttl());
    // Connected, the store knows best.
    let guarantees = client.store().guarantees();
    if args.json {
        output.json(&Shown::new(&store, ttl, guarantees, &found))?;
    } else {
        output.print(&human(&store, ttl, guarantees, &found, Output::columns()))?;
    }
    Ok(Outcome::Code(code(found.worst())))
}

/// As plugins of monitoring programs have it: 1 is a warning, 2 is critical.
const fn code(worst: Severity) -> u8 {
    match worst {
        Severity::Fine | Severity::Note => 0,
        Severity::Unknown | Severity::Warning => exit::DOUBTFUL,
        Severity::Danger => exit::UNSAFE,
    }
}

/// What `--json` prints. Field names are part of the interface.
#[derive(Serialize)]
struct Shown<'a> {
    store: &'a str,
    ttl_ms: u64,
    worst: &'static str,
    guarantees: ShownGuarantees,
    servers: Vec<ShownServer<'a>>,
    probe: Option<ShownProbe>,
    findings: Vec<ShownFinding<'a>>,
}

#[derive(Serialize)]
struct ShownGuarantees {
    properties: Vec<&'static str>,
    min_ttl_ms: u64,
    lapse_delay_ms: u64,
}

#[derive(Serialize)]
struct ShownServer<'a> {
    name: &'a str,
    version: Option<&'a str>,
    role: Option<&'a str>,
    round_trip: Option<ShownRoundTrip>,
    clock: Option<ShownClock>,
}

#[derive(Serialize)]
struct ShownRoundTrip {
    exchanges: u32,
    min_us: u64,
    median_us: u64,
    max_us: u64,
}

#[derive(Serialize)]
struct ShownClock {
    ahead_us: i64,
    uncertainty_us: u64,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the name")]
struct ShownProbe {
    open_us: u64,
    enter_us: u64,
    renew_us: u64,
    leave_us: u64,
}

#[derive(Serialize)]
struct ShownFinding<'a> {
    severity: &'static str,
    topic: &'static str,
    server: Option<&'a str>,
    says: &'a str,
    change: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn new(store: &'a str, ttl: Duration, guarantees: Guarantees, found: &'a Examination) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            store,
            ttl_ms: ms(ttl),
            worst: found.worst().as_str(),
            guarantees: ShownGuarantees {
                properties: guarantees.properties.iter().map(Property::as_str).collect(),
                min_ttl_ms: ms(guarantees.min_ttl),
                lapse_delay_ms: ms(guarantees.lapse_delay),
            },
            servers: found.servers.iter().map(Into::into).collect(),
            probe: found.probe.as_ref().map(Into::into),
            findings: found.findings.iter().map(Into::into).collect(),
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

impl<'a> From<&'a Examined> for ShownServer<'a> {
    fn from(server: &'a Examined) -> Self {
        let round_trip = |trip: &RoundTrip| ShownRoundTrip {
            exchanges: trip.exchanges,
            min_us: micros(trip.min),
            median_us: micros(trip.median),
            max_us: micros(trip.max),
        };
        let clock = |clock: &ClockOffset| ShownClock {
            ahead_us: clock.ahead_micros,
            uncertainty_us: micros(clock.uncertainty),
        };
        Self {
            name: &server.name,
            version: server.version.as_deref(),
            role: server.role.as_deref(),
            round_trip: server.round_trip.as_ref().map(round_trip),
            clock: server.clock.as_ref().map(clock),
        }
    }
}

impl From<&Probe> for ShownProbe {
    fn from(probe: &Probe) -> Self {
        Self {
            open_us: micros(probe.open),
            enter_us: micros(probe.enter),
            renew_us: micros(probe.renew),
            leave_us: micros(probe.leave),
        }
    }
}

impl<'a> From<&'a Finding> for ShownFinding<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            severity: finding.severity.as_str(),
            topic: finding.topic,
            server: finding.server.as_deref(),
            says: &finding.says,
            change: finding.change.as_deref(),
        }
    }
}

/// How a severity is called and coloured.
const fn look(severity: Severity) -> (&'static str, &'static str, Style) {
    match severity {
        Severity::Fine => ("fine", "fine", AnsiColor::Green.on_default()),
        Severity::Note => ("good to know", "notes", STRONG),
        Severity::Unknown => ("not known", "not known", AnsiColor::Magenta.on_default().bold()),
        Severity::Warning => ("warning", "warnings", AnsiColor::Yellow.on_default().bold()),
        Severity::Danger => ("danger", "dangers", AnsiColor::Red.on_default().bold()),
    }
}

/// What was found, for people: a verdict, then the worst first, then what was measured.
fn human(
    store: &str,
    ttl: Duration,
    guarantees: Guarantees,
    found: &Examination,
    columns: usize,
) -> String {
    let mut text = verdict(found);
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{FAINT}{}, for a TTL of {}{FAINT:#}", printable(store), show(ttl));
    let several = found.servers.len() > 1;
    let topics = found.findings.iter().map(|finding| finding.topic.len());
    let indent = 4 + topics.max().unwrap_or_default();
    for severity in Severity::ALL.into_iter().rev() {
        if found.of(severity).next().is_none() {
            continue;
        }
        let (name, _, style) = look(severity);
        let _ = writeln!(text, "\n{style}{name}{style:#}");
        for finding in found.of(severity) {
            text.push_str(&entry(finding, several, indent, columns));
        }
    }
    text.push_str(&promised(guarantees, columns));
    text.push_str(&measured(found));
    text
}

/// What stores of this kind promise, by the names that can be demanded.
fn promised(guarantees: Guarantees, columns: usize) -> String {
    let mut text = format!("\n{STRONG}promised by this kind of store{STRONG:#}\n");
    let width = columns.saturating_sub(2).max(20);
    for line in wrap(&guarantees.properties.to_string(), width) {
        let _ = writeln!(text, "  {line}");
    }
    let min = show(guarantees.min_ttl);
    let delay = match guarantees.lapse_delay {
        Duration::ZERO => String::new(),
        delay => format!("; a hold that lapsed is free up to {} later", show(delay)),
    };
    let _ = writeln!(text, "  TTLs from {min}{delay}");
    text
}

fn verdict(found: &Examination) -> String {
    let (_, _, style) = look(found.worst());
    let says = match found.worst() {
        Severity::Fine | Severity::Note => "Nothing was found that puts locks at risk here",
        Severity::Unknown => "Locks work here; whether they are safe is not known",
        Severity::Warning => "Locks work here, but not through everything",
        Severity::Danger => "Locks are not safe here, or do not work",
    };
    let counts: Vec<String> = [Severity::Danger, Severity::Warning, Severity::Unknown]
        .into_iter()
        .filter_map(|severity| {
            let (one, more, _) = look(severity);
            match found.of(severity).count() {
                0 => None,
                1 => Some(format!("1 {one}")),
                count => Some(format!("{count} {more}")),
            }
        })
        .collect();
    let colon = if counts.is_empty() { "" } else { ": " };
    format!("{style}{says}{colon}{}.{style:#}\n", counts.join(", "))
}

/// One finding: its topic, what it says beside it, and what to change below, to be copied.
fn entry(finding: &Finding, several: bool, indent: usize, columns: usize) -> String {
    let server = finding.server.as_ref().filter(|_| several);
    let says = match server {
        Some(server) => format!("{}: {}", printable(server), printable(&finding.says)),
        None => printable(&finding.says),
    };
    let width = columns.saturating_sub(indent).max(20);
    let mut text = String::new();
    for (number, line) in wrap(&says, width).into_iter().enumerate() {
        let topic = if number == 0 { finding.topic } else { "" };
        let _ = writeln!(text, "  {topic:<0$}{line}", indent - 2);
    }
    // Not wrapped, however long: it is there to be copied.
    for change in finding.change.iter().flat_map(|change| change.lines()) {
        let _ = writeln!(text, "{:indent$}{STRONG}{}{STRONG:#}", "", printable(change));
    }
    text
}

/// Lines of words, none longer than `width` unless it is a single word.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else if let Some(last) = lines.last_mut() {
            if line > 0 {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

fn measured(found: &Examination) -> String {
    let mut text = format!("\n{STRONG}measured{STRONG:#}\n");
    for server in &found.servers {
        let mut facts = vec![printable(&server.name)];
        facts.extend(
            server.version.as_deref().map(|version| format!("version {}", printable(version))),
        );
        facts.extend(server.role.as_deref().map(printable));
        let _ = writeln!(text, "  {}", facts.join(", "));
        if let Some(trip) = &server.round_trip {
            let (min, median, max) = (millis(trip.min), millis(trip.median), millis(trip.max));
            let _ = writeln!(
                text,
                "    round trip  {median} ms ({min} to {max}, {} exchanges)",
                trip.exchanges
            );
        }
        if let Some(clock) = &server.clock {
            let side = if clock.ahead_micros < 0 { "behind" } else { "ahead" };
            let by = millis(Duration::from_micros(clock.ahead_micros.unsigned_abs()));
            let off = millis(clock.uncertainty);
            let _ = writeln!(text, "    clock       {by} ms {side}, \u{b1} {off} ms");
        }
    }
    match &found.probe {
        None => text.push_str("  no lock could be taken for a try\n"),
        Some(probe) => {
            let steps = [
                ("open", probe.open),
                ("enter", probe.enter),
                ("renew", probe.renew),
                ("release", probe.leave),
            ];
            let steps = steps.map(|(name, span)| format!("{name} {} ms", millis(span)));
            let _ = writeln!(text, "  a lock: {}", steps.join(", "));
        }
    }
    text
}

fn millis(span: Duration) -> String {
    let millis = span.as_secs_f64() * 1000.0;
    if millis < 100.0 { format!("{millis:.1}") } else { format!("{millis:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarantees() -> Guarantees {
        leasehold::stores::connect("memory:").unwrap().guarantees()
    }

    fn found() -> Examination {
        let mut found = Examination::default();
        let danger =
            Finding::danger("eviction", "The server deletes locks when \x1b[2J it is full.");
        found.add(danger.change("CONFIG SET maxmemory-policy noeviction\nCONFIG REWRITE"));
        found.add(Finding::fine("role", "The server is a primary."));
        found
    }

    #[test]
    fn people_see_the_verdict_first_and_what_to_change_whole() {
        let ttl = Duration::from_secs(30);
        let text = human("redis://h:6379/0", ttl, guarantees(), &found(), 40);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            text,
            "Locks are not safe here, or do not work: 1 danger.\n\
             redis://h:6379/0, for a TTL of 30s\n\n\
             danger\n  \
             eviction  The server deletes locks\n            \
             when \\u{1b}[2J it is full.\n            \
             CONFIG SET maxmemory-policy noeviction\n            \
             CONFIG REWRITE\n\n\
             fine\n  \
             role      The server is a primary.\n\n\
             promised by this kind of store\n  \
             line, wakes, counting, records\n  \
             TTLs from 20ms\n\n\
             measured\n  \
             no lock could be taken for a try\n"
        );
    }

    #[test]
    fn servers_are_named_where_there_are_several() {
        let mut found = found();
        found.add_server(Examined::new("a:1"), vec![Finding::fine("member", "It serves.")]);
        assert!(!human("s", Duration::ZERO, guarantees(), &found, 80).contains("a:1: It"));
        found.add_server(Examined::new("b:1"), vec![Finding::fine("member", "It serves.")]);
        assert!(human("s", Duration::ZERO, guarantees(), &found, 80).contains("b:1: It serves."));
    }

    #[test]
    fn the_code_is_that_of_the_worst() {
        let codes = Severity::ALL.map(code);
        assert_eq!(codes, [0, 0, 1, 1, 2]);
    }

    #[test]
    fn the_verdict_never_says_more_than_was_read() {
        for (severity, begins) in [
            (Severity::Note, "Nothing was found"),
            (
                Severity::Unknown,
                "Locks work here; whether they are safe is not known: 1 not known.",
            ),
            (Severity::Warning, "Locks work here, but not through everything: 1 warning."),
        ] {
            let mut found = Examination::default();
            found.add(Finding::new(severity, "t", "It is so."));
            let text = anstream::adapter::strip_str(&verdict(&found)).to_string();
            assert!(text.starts_with(begins), "{text}");
        }
    }

    #[test]
    fn json_is_what_was_documented() {
        let found = found();
        let json =
            serde_json::to_string(&Shown::new("s", Duration::from_secs(1), guarantees(), &found))
                .unwrap();
        assert_eq!(
            json,
            r#"{"store":"s","ttl_ms":1000,"worst":"danger","guarantees":{"properties":["line","wakes","counting","records"],"min_ttl_ms":20,"lapse_delay_ms":0},"servers":[],"probe":null,"findings":[{"severity":"danger","topic":"eviction","server":null,"says":"The server deletes locks when \u001b[2J it is full.","change":"CONFIG SET maxmemory-policy noeviction\nCONFIG REWRITE"},{"severity":"fine","topic":"role","server":null,"says":"The server is a primary.","change":null}]}"#
        );
    }

    #[test]
    fn long_words_stand_alone() {
        assert_eq!(wrap("a bb ccccc d", 4), ["a bb", "ccccc", "d"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
