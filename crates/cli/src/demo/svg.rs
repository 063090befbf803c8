//! The timeline as a sequence diagram.

use std::fmt::Write as _;

use super::timeline::{Actor, Event, Scene, Tone};

const LANE: f64 = 270.0;
const MARGIN: f64 = 150.0;
const TOP: f64 = 96.0;
const ROW: f64 = 40.0;
const TITLE: f64 = 58.0;

/// Draws the scenes from top to bottom: a column for each actor, a row for each event. Rows are in
/// order, not to scale; each has its time at the left.
pub(super) fn draw(scenes: &[Scene], store: &str) -> String {
    let lanes = u16::try_from(Actor::ALL.len()).unwrap_or(u16::MAX);
    let width = MARGIN * 2.0 + LANE * f64::from(lanes - 1) + 110.0;
    let rows: f64 = scenes.iter().map(|scene| TITLE + ROW * count(&scene.events)).sum();
    let height = TOP + rows + 30.0;
    let mut svg = String::new();
    // Writing to a `String` cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"14\">\n\
         <title>leasehold demo over {store}</title>\n{STYLE}\
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"10\"/>\n",
        store = escape(store),
    );
    for actor in Actor::ALL {
        let x = lane(actor);
        let _ = write!(
            svg,
            "<line class=\"life\" x1=\"{x}\" y1=\"64\" x2=\"{x}\" y2=\"{bottom}\"/>\n\
             <rect class=\"actor\" x=\"{left}\" y=\"22\" width=\"140\" height=\"40\" rx=\"8\"/>\n\
             <text class=\"name\" x=\"{x}\" y=\"47\" text-anchor=\"middle\">{name}</text>\n",
            left = x - 70.0,
            bottom = height - 20.0,
            name = actor.name(),
        );
    }
    let mut y = TOP;
    for (number, scene) in (1..).zip(scenes) {
        let _ = write!(
            svg,
            "<rect class=\"band\" x=\"12\" y=\"{top}\" width=\"{wide}\" height=\"30\" rx=\"6\"/>\n\
             <text class=\"title\" x=\"26\" y=\"{base}\">{number}. {title}</text>\n",
            top = y,
            wide = width - 24.0,
            base = y + 20.0,
            title = escape(scene.title),
        );
        y += TITLE;
        for event in &scene.events {
            row(&mut svg, event, y);
            y += ROW;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn row(svg: &mut String, event: &Event, y: f64) {
    let class = match event.tone {
        Tone::Plain => "plain",
        Tone::Good => "good",
        Tone::Refused => "refused",
        Tone::Bad => "bad",
    };
    let at = event.at.as_secs_f64();
    let text = escape(&event.text);
    let _ = writeln!(svg, "<text class=\"time\" x=\"26\" y=\"{}\">{at:.3} s</text>", y + 4.0);
    let (from, to) = (lane(event.from), lane(event.to));
    if event.from == event.to {
        let _ = write!(
            svg,
            "<circle class=\"{class} dot\" cx=\"{from}\" cy=\"{y}\" r=\"5\"/>\n\
             <text class=\"{class} label\" x=\"{x}\" y=\"{base}\">{text}</text>\n",
            x = from + 12.0,
            base = y + 5.0,
        );
        return;
    }
    let toward = if to > from { 1.0 } else { -1.0 };
    let (begin, end) = (from + 4.0 * toward, to - 4.0 * toward);
    let _ = write!(
        svg,
        "<line class=\"{class} arrow\" x1=\"{begin}\" y1=\"{y}\" x2=\"{shaft}\" y2=\"{y}\"/>\n\
         <path class=\"{class} head\" d=\"M{end} {y} l{back} -5 v10 z\"/>\n\
         <text class=\"{class} label\" x=\"{x}\" y=\"{base}\" text-anchor=\"middle\">{text}</text>\n",
        shaft = end - 8.0 * toward,
        back = -10.0 * toward,
        x = f64::midpoint(from, to),
        base = y - 7.0,
    );
}

fn lane(actor: Actor) -> f64 {
    let at = Actor::ALL.iter().position(|other| *other == actor).unwrap_or_default();
    MARGIN + LANE * f64::from(u16::try_from(at).unwrap_or(u16::MAX))
}

fn count(events: &[Event]) -> f64 {
    f64::from(u16::try_from(events.len()).unwrap_or(u16::MAX))
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            // XML 1.0 has no way to write the others.
            control if control.is_control() => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

const STYLE: &str = "<style>
.paper{fill:#fff}.life{stroke:#c4ccd6;stroke-dasharray:4 5}
.actor{fill:#1f3a5f}.name{fill:#fff;font-weight:600}
.band{fill:#eef2f7}.title{fill:#1f3a5f;font-weight:600}
.time{fill:#7b8794;font-size:12px;font-variant-numeric:tabular-nums}
.label{font-size:13px}.arrow{stroke-width:1.6}
text.plain{fill:#243240}line.plain{stroke:#52606d}path.plain,circle.plain{fill:#52606d}
text.good{fill:#126b3a}line.good{stroke:#1c8a4d}path.good,circle.good{fill:#1c8a4d}
text.refused{fill:#8a5a00}line.refused{stroke:#c98500}path.refused,circle.refused{fill:#c98500}
text.bad{fill:#b3261e;font-weight:600}line.bad{stroke:#b3261e}path.bad,circle.bad{fill:#b3261e}
</style>
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn hostile_text_stays_text() {
        let event = Event {
            at: Duration::from_millis(5),
            from: Actor::NodeA,
            to: Actor::Service,
            tone: Tone::Plain,
            text: "<script>\"&\u{1b}[31m".to_owned(),
        };
        let svg = draw(&[Scene { title: "One", events: vec![event] }], "redis://<h>");
        assert!(svg.contains("&lt;script&gt;&quot;&amp;\u{fffd}[31m"), "{svg}");
        assert!(!svg.contains("<script>") && !svg.contains('\u{1b}'));
    }
}
