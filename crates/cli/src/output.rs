//! What people and programs read: messages on stderr, results on stdout.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::args::{Common, When};
use crate::exit::Failure;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub(crate) const STRONG: Style = Style::new().bold();
pub(crate) const FAINT: Style = Style::new().dimmed();

/// How to talk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    quiet: bool,
    colour: ColorChoice,
}

impl Output {
    pub(crate) fn new(common: &Common) -> Self {
        let colour = match common.color {
            When::Auto => ColorChoice::Auto,
            When::Always => ColorChoice::Always,
            When::Never => ColorChoice::Never,
        };
        Self { quiet: common.quiet, colour }
    }

    /// Whether stderr gets colours.
    pub(crate) fn has_colour(self) -> bool {
        match self.colour {
            ColorChoice::Auto => AutoStream::choice(&io::stderr()) != ColorChoice::Never,
            choice => choice != ColorChoice::Never,
        }
    }

    /// Whether a line on stderr can be drawn over and over.
    pub(crate) fn is_live(self) -> bool {
        !self.quiet
            && io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// How many columns the terminal has that stdout is, up to what can be read with ease.
    pub(crate) fn columns() -> usize {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        columns.unwrap_or(80).min(100)
    }

    /// Says something that a person may want to know.
    pub(crate) fn note(self, message: impl Display) {
        if !self.quiet {
            self.say("", Style::new(), message);
        }
    }

    /// Says something that a person should know.
    pub(crate) fn warn(self, message: impl Display) {
        if !self.quiet {
            self.say("warning: ", WARNING, message);
        }
    }

    /// Says why the program failed.
    pub(crate) fn error(self, message: impl Display) {
        self.say("error: ", ERROR, message);
    }

    /// In one write, so that lines of several processes do not mix. Failing to write to stderr is
    /// nothing that could be told to anybody.
    fn say(self, label: &str, style: Style, message: impl Display) {
        let line = format!("leasehold: {style}{label}{style:#}{message}\n");
        self.draw(&line);
    }

    /// Writes to stderr as it is, with colours only where they are wanted.
    pub(crate) fn draw(self, text: &str) {
        let mut stderr = AutoStream::new(io::stderr(), self.colour);
        let _ = stderr.write_all(text.as_bytes());
    }

    /// Replaces the last line of the terminal that stderr is. Moving the cursor is no colour, so it
    /// is done whatever is wanted of that.
    pub(crate) fn redraw(line: &str) {
        let _ = io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
    }

    /// Prints a result. A reader that went away (`| head`) ends the program without a word.
    pub(crate) fn print(self, text: &str) -> Result<(), Failure> {
        let mut stdout = AutoStream::new(io::stdout(), self.colour);
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(0),
            _ => Failure::new(crate::exit::INTERNAL, format!("cannot write to stdout: {error}")),
        })
    }

    /// Prints a result as one line of JSON.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_string(value)
            .map_err(|error| Failure::new(crate::exit::INTERNAL, error.to_string()))?;
        line.push('\n');
        self.print(&line)
    }
}

/// A text of somebody else's that is safe to print on a terminal: control characters, and those
/// that reorder or hide text, are escaped.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        let hidden = matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if character.is_control() || hidden {
            // Writing to a `String` cannot fail.
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_cannot_write_to_a_terminal() {
        assert_eq!(printable("jobs/42 鍵 👩"), "jobs/42 鍵 👩");
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}c\u{202e}d"), "a\\u{1b}[2Jb\\n\\u{9b}c\\u{202e}d");
    }
}
