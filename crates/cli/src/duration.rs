//! Durations as people write them: `30s`, `500ms`, `1h30m`, and ISO 8601's `PT30S`.

use std::time::Duration;

use jiff::SignedDuration;

/// Reads a duration. A number alone is refused, but for 0: tools disagree on its unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("it has no unit; write {text}s or {text}ms"));
    }
    let signed: SignedDuration = text
        .parse()
        .map_err(|_| "it is not a duration such as 30s, 500ms, 1h30m or PT30S".to_owned())?;
    Duration::try_from(signed).map_err(|_| "it is negative".to_owned())
}

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// This long.
    For(Duration),
    /// As long as it takes.
    Forever,
}

/// Reads a time to wait: a duration, or `forever`.
pub(crate) fn parse_patience(text: &str) -> Result<Patience, String> {
    if text.trim() == "forever" {
        return Ok(Patience::Forever);
    }
    parse(text).map(Patience::For).map_err(|error| format!("{error} (or \"forever\")"))
}

/// A duration as a person wants to read it: to the second, or to the millisecond below ten.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, rest) {
        (0, 0, 0) => format!("{}ms", duration.as_millis()),
        (0, 0, 1..10) => {
            let tenths = duration.subsec_millis() / 100;
            if tenths == 0 { format!("{rest}s") } else { format!("{rest}.{tenths}s") }
        }
        (0, 0, _) => format!("{rest}s"),
        (0, _, 0) => format!("{minutes}m"),
        (0, ..) => format!("{minutes}m{rest}s"),
        (_, 0, _) => format!("{hours}h"),
        _ => format!("{hours}h{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("PT30S", 30_000),
            ("PT1H30M", 5_400_000),
            ("1.5s", 1_500),
            ("0", 0),
            ("0s", 0),
            (" 2s ", 2_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_advice() {
        assert_eq!(parse("30").unwrap_err(), "it has no unit; write 30s or 30ms");
        for bad in ["", "x", "-5s", "5s ago", "30 parsecs", "s", "1e9s", "99999999999999999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn forever_is_a_time_to_wait() {
        assert_eq!(parse_patience("forever"), Ok(Patience::Forever));
        assert_eq!(parse_patience("1s"), Ok(Patience::For(Duration::from_secs(1))));
        assert!(parse_patience("never").unwrap_err().contains("forever"));
    }

    #[test]
    fn shows_what_matters() {
        for (millis, shown) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (1_250, "1.2s"),
            (12_900, "12s"),
            (60_000, "1m"),
            (61_000, "1m1s"),
            (3_600_000, "1h"),
            (5_430_000, "1h30m"),
        ] {
            assert_eq!(show(Duration::from_millis(millis)), shown);
        }
    }
}
