//! What a store says of itself and of its servers: which guarantees hold there, and which do not.

use std::fmt;
use std::time::Duration;

use crate::clock;

/// How many exchanges a measurement takes: enough for a median, few enough for a server that is
/// on another continent.
const EXCHANGES: u32 = 8;

/// How bad a finding is, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A guarantee that holds.
    Fine,
    /// Good to know; locks are as safe as they are said to be.
    Note,
    /// It could not be found out. It may be anything, also a danger.
    Unknown,
    /// Under a condition that will come about one day (a crash, a failover, a full disk), two may
    /// hold a lock, or nobody can.
    Warning,
    /// Locks are not safe here, or do not work.
    Danger,
}

impl Severity {
    /// All of them, from the best to the worst.
    pub const ALL: [Self; 5] = [Self::Fine, Self::Note, Self::Unknown, Self::Warning, Self::Danger];

    /// The word for it, in lower case: `fine`, `note`, `unknown`, `warning` or `danger`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Danger => "danger",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that an examination found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, in a word that programs can compare: lower case with hyphens, such as
    /// `eviction`. The same for a good and for a bad answer to one question.
    pub topic: &'static str,
    /// The server that it is about, where the store has several.
    pub server: Option<String>,
    /// What is so, and what that means for locks, in sentences. May contain what a server said of
    /// itself; never a password.
    pub says: String,
    /// What to change, such as lines of configuration or commands for the server's own client;
    /// `None` if there is nothing to change.
    pub change: Option<String>,
}

impl Finding {
    /// A finding about the store as a whole, without a change.
    pub fn new(severity: Severity, topic: &'static str, says: impl Into<String>) -> Self {
        Self { severity, topic, server: None, says: says.into(), change: None }
    }

    /// A guarantee that holds.
    pub fn fine(topic: &'static str, says: impl Into<String>) -> Self {
        Self::new(Severity::Fine, topic, says)
    }

    /// Something that is good to know.
    pub fn note(topic: &'static str, says: impl Into<String>) -> Self {
        Self::new(Severity::Note, topic, says)
    }

    /// Something that could not be found out.
    pub fn unknown(topic: &'static str, says: impl Into<String>) -> Self {
        Self::new(Severity::Unknown, topic, says)
    }

    /// Something that goes wrong under a condition that will come about.
    pub fn warning(topic: &'static str, says: impl Into<String>) -> Self {
        Self::new(Severity::Warning, topic, says)
    }

    /// Something that makes locks unsafe or impossible.
    pub fn danger(topic: &'static str, says: impl Into<String>) -> Self {
        Self::new(Severity::Danger, topic, says)
    }

    /// The same, with what to change.
    #[must_use]
    pub fn change(mut self, change: impl Into<String>) -> Self {
        self.change = Some(change.into());
        self
    }

    /// The same, about one server.
    #[must_use]
    pub fn at(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }
}

/// What an examination found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examination {
    /// The servers that were asked; none for a store without a server.
    pub servers: Vec<Examined>,
    /// How long the steps of a lock took that nobody else wanted.
    pub probe: Option<Probe>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// The severity of the worst finding.
    #[must_use]
    pub fn worst(&self) -> Severity {
        let severities = self.findings.iter().map(|finding| finding.severity);
        severities.max().unwrap_or(Severity::Fine)
    }

    /// The findings of one severity, in order.
    pub fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.severity == severity)
    }

    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Adds what was found at one server of several.
    pub fn add_server(&mut self, server: Examined, findings: Vec<Finding>) {
        let named = findings.into_iter().map(|finding| finding.at(server.name.clone()));
        self.findings.extend(named);
        self.servers.push(server);
    }

    /// Puts the worst first; findings of one severity stay in the order in which they were found.
    pub(crate) fn sort(&mut self) {
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    }
}

/// A server that was asked, and what was measured there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examined {
    /// Its address, as the store's URL names it.
    pub name: String,
    /// The version it says it is.
    pub version: Option<String>,
    /// What it says it is among its peers: `primary`, `leader` …
    pub role: Option<String>,
    /// How long it takes to answer.
    pub round_trip: Option<RoundTrip>,
    /// How far its wall clock is from the one here; `None` where it tells no time.
    pub clock: Option<ClockOffset>,
}

impl Examined {
    /// A server of which nothing is known but its address.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), version: None, role: None, round_trip: None, clock: None }
    }

    /// Measures exchanges with the server, over a connection that stands. An exchange returns the
    /// server's wall clock, in microseconds since 1970, if the server told it.
    ///
    /// # Errors
    ///
    /// That of the first exchange that fails.
    pub async fn measure<E, F>(mut self, mut exchange: impl FnMut() -> F) -> Result<Self, E>
    where
        F: Future<Output = Result<Option<u64>, E>>,
    {
        let mut spans = [Duration::ZERO; EXCHANGES as usize];
        for span in &mut spans {
            let (wall, sent) = (clock::wall_micros(), clock::now());
            let told = exchange().await?;
            *span = clock::now().since(sent);
            let offset = told.map(|told| offset(wall, *span, told));
            self.clock = match (self.clock, offset) {
                (Some(best), Some(offset)) if best.uncertainty <= offset.uncertainty => Some(best),
                (best, offset) => offset.or(best),
            };
        }
        spans.sort_unstable();
        let [min, .., max] = spans;
        let median = spans[(spans.len() - 1) / 2];
        self.round_trip = Some(RoundTrip { exchanges: EXCHANGES, min, median, max });
        Ok(self)
    }
}

/// How long a server takes to answer the smallest request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundTrip {
    /// How many were measured.
    pub exchanges: u32,
    /// The shortest.
    pub min: Duration,
    /// Half of them took no longer than this.
    pub median: Duration,
    /// The longest.
    pub max: Duration,
}

/// How far the wall clock of a server is from the one of this machine.
///
/// As NTP does it: the server read its clock somewhere between the request and the answer, so the
/// shortest exchange gives the best figure, and half of its duration is the uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockOffset {
    /// By how many microseconds the server's clock is ahead; negative if it is behind.
    pub ahead_micros: i64,
    /// By how much that may be wrong, either way.
    pub uncertainty: Duration,
}

impl ClockOffset {
    /// The least by which the clocks certainly differ.
    #[must_use]
    pub fn at_least(&self) -> Duration {
        Duration::from_micros(self.ahead_micros.unsigned_abs()).saturating_sub(self.uncertainty)
    }
}

/// How long the steps of an uncontended lock took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// Beginning a session.
    pub open: Duration,
    /// Entering the line and holding.
    pub enter: Duration,
    /// Renewing.
    pub renew: Duration,
    /// Releasing.
    pub leave: Duration,
}

/// The clock that said `told` during an exchange that began at `wall` here and took `span`.
fn offset(wall: u64, span: Duration, told: u64) -> ClockOffset {
    let half = span / 2;
    let middle = i128::from(wall) + i128::try_from(half.as_micros()).unwrap_or(i128::MAX);
    let ahead = i128::from(told) - middle;
    let limit = if ahead < 0 { i64::MIN + 1 } else { i64::MAX };
    ClockOffset {
        ahead_micros: i64::try_from(ahead).unwrap_or(limit),
        // Clocks are read to the microsecond.
        uncertainty: half + Duration::from_micros(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_ordered_and_what_is_not_known_is_worse_than_a_note() {
        assert!(Severity::ALL.is_sorted());
        assert!(Severity::Unknown > Severity::Note && Severity::Unknown < Severity::Warning);
        assert_eq!(format!("[{:>7}]", Severity::Danger), "[ danger]");
    }

    #[test]
    fn the_worst_comes_first_and_the_rest_keeps_its_order() {
        let mut found = Examination::default();
        assert_eq!(found.worst(), Severity::Fine);
        found.add(Finding::fine("a", ""));
        found.add(Finding::warning("b", ""));
        found.add(Finding::danger("c", ""));
        found.add_server(Examined::new("h:1"), vec![Finding::warning("d", "").change("x=1")]);
        found.sort();
        let topics: Vec<_> = found.findings.iter().map(|finding| finding.topic).collect();
        assert_eq!(topics, ["c", "b", "d", "a"]);
        assert_eq!(found.worst(), Severity::Danger);
        assert_eq!(found.findings[2].server.as_deref(), Some("h:1"));
        assert_eq!(found.of(Severity::Warning).count(), 2);
    }

    #[test]
    fn a_clock_is_judged_at_the_middle_of_the_exchange() {
        let second = Duration::from_secs(1);
        let ahead = offset(1_000_000, 2 * second, 5_000_000);
        assert_eq!(ahead.ahead_micros, 3_000_000);
        assert_eq!(ahead.at_least(), Duration::from_micros(1_999_999));
        let behind = offset(9_000_000, Duration::ZERO, 1_000_000);
        assert_eq!(behind.ahead_micros, -8_000_000);
        // Within the uncertainty nothing is certain.
        assert_eq!(offset(1_000_000, 2 * second, 2_500_000).at_least(), Duration::ZERO);
        let _ = (offset(0, second, u64::MAX), offset(u64::MAX, Duration::MAX, 0).at_least());
    }

    #[tokio::test]
    async fn the_shortest_exchange_tells_the_time() {
        let mut asked = 0_u64;
        let measured = Examined::new("h").measure(|| {
            asked += 1;
            let last = asked == 8;
            async move {
                // sleep: the first exchanges are long on purpose, and lie about the time.
                tokio::time::sleep(Duration::from_millis(if last { 1 } else { 60 })).await;
                Ok::<_, ()>(Some(if last { clock::wall_micros() + 5_000_000 } else { 0 }))
            }
        });
        let measured = measured.await.unwrap();
        let (round_trip, offset) = (measured.round_trip.unwrap(), measured.clock);
        assert_eq!((asked, round_trip.exchanges), (8, 8));
        assert!(round_trip.min <= round_trip.median && round_trip.median <= round_trip.max);
        assert!(round_trip.median >= Duration::from_millis(60));
        let offset = offset.unwrap();
        assert!(offset.ahead_micros > 4_000_000, "the one that was not long: {offset:?}");
    }
}
