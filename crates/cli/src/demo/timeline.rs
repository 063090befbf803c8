//! What happened in the demo, when, and between whom.

use std::time::{Duration, Instant};

/// Who takes part, in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    NodeA,
    Service,
    NodeB,
    Resource,
}

impl Actor {
    pub(super) const ALL: [Self; 4] = [Self::NodeA, Self::Service, Self::NodeB, Self::Resource];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NodeA => "Node A",
            Self::Service => "Lock service",
            Self::NodeB => "Node B",
            Self::Resource => "Resource",
        }
    }
}

/// How an event reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// A request, or a step.
    Plain,
    /// A grant, an accepted write.
    Good,
    /// A refusal that is part of normal work.
    Refused,
    /// A crash, a pause, a stale write.
    Bad,
}

/// One arrow, or a remark beside one actor where `from` and `to` are the same.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) from: Actor,
    pub(super) to: Actor,
    pub(super) tone: Tone,
    pub(super) text: String,
}

/// A part of the demo.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) title: &'static str,
    pub(super) events: Vec<Event>,
}

/// Everything that happened so far, printed as it happens.
#[derive(Debug)]
pub(super) struct Timeline {
    began: Instant,
    pub(super) scenes: Vec<Scene>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), scenes: Vec::new() }
    }

    pub(super) fn scene(&mut self, title: &'static str) -> std::io::Result<()> {
        self.scenes.push(Scene { title, events: Vec::new() });
        let bold = anstyle::Style::new().bold();
        print_line(&format!("\n{bold}{}. {title}{bold:#}", self.scenes.len()))
    }

    pub(super) fn arrow(
        &mut self,
        from: Actor,
        to: Actor,
        tone: Tone,
        text: impl Into<String>,
    ) -> std::io::Result<()> {
        let event = Event { at: self.began.elapsed(), from, to, tone, text: text.into() };
        let line = render(&event);
        if let Some(scene) = self.scenes.last_mut() {
            scene.events.push(event);
        }
        print_line(&line)
    }

    pub(super) fn remark(
        &mut self,
        actor: Actor,
        tone: Tone,
        text: impl Into<String>,
    ) -> std::io::Result<()> {
        self.arrow(actor, actor, tone, text)
    }
}

/// One line, at once: the demo is watched while it runs.
fn print_line(line: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = anstream::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn render(event: &Event) -> String {
    use anstyle::{AnsiColor, Style};
    let tone = match event.tone {
        Tone::Plain => Style::new(),
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Refused => AnsiColor::Yellow.on_default(),
        Tone::Bad => AnsiColor::Red.on_default().bold(),
    };
    let dim = Style::new().dimmed();
    let at = event.at.as_secs_f64();
    let who = if event.from == event.to {
        event.from.name().to_owned()
    } else {
        format!("{} → {}", event.from.name(), event.to.name())
    };
    format!("  {dim}{at:7.3} s{dim:#}  {who:<23}  {tone}{}{tone:#}", event.text)
}
