//! What goes wrong, said once: message, place, hint and exit code.
//!
//! Every layer returns [`Failure`]; `main` prints it. This module knows no other module of the crate.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Failure>;

/// How the process ends, as a batch system sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The work is done.
    Done = 0,
    /// The run failed.
    Failed = 1,
    /// The command line or the configuration is wrong; running again cannot help.
    Usage = 2,
    /// Stopped after saving because its time was over or its place was needed: the same command goes on.
    Stopped = 75,
    /// A rank stopped answering.
    Hung = 76,
    /// Stopped after saving because somebody wanted it to: the same command goes on, once it is wanted again.
    Cancelled = 77,
}

impl Exit {
    /// All of them, by their codes.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Failed, Self::Usage, Self::Stopped, Self::Hung, Self::Cancelled];

    /// The exit behind a code; what has no name here is a failure.
    ///
    /// ```
    /// use scrimp::error::Exit;
    /// assert_eq!([75, 137].map(Exit::of_code), [Exit::Stopped, Exit::Failed]);
    /// ```
    pub fn of_code(code: i32) -> Self {
        Self::ALL.into_iter().find(|exit| *exit as i32 == code).unwrap_or(Self::Failed)
    }

    /// Whether the run stopped in good order before its last step.
    pub fn is_stop(self) -> bool {
        matches!(self, Self::Stopped | Self::Cancelled)
    }
}

/// An error for the person who has to act on it.
///
/// Printed as `error: MESSAGE`, the place and excerpt if there is one, each cause as
/// `caused by: …`, and each hint as `hint: …`. Messages start in lower case, name things in
/// backticks, say what was expected and what was found, and end without a full stop.
#[derive(Debug)]
pub struct Failure {
    message: String,
    place: Option<String>,
    causes: Vec<String>,
    hints: Vec<String>,
    exit: Exit,
    told_elsewhere: bool,
    known_to_all: bool,
}

/// What libtorch, the C++ library and the system say where memory does not suffice.
const OUT_OF_MEMORY: [&str; 4] =
    ["out of memory", "can't allocate memory", "bad_alloc", "Cannot allocate memory"];
/// How libtorch goes on behind its message, with the functions that it was in.
const FRAMES: [&str; 2] = ["\nException raised from", "\nframe #"];

impl Failure {
    /// A failure of the run (exit code 1).
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: None,
            causes: Vec::new(),
            hints: Vec::new(),
            exit: Exit::Failed,
            told_elsewhere: false,
            known_to_all: false,
        }
    }

    /// A mistake in the command line or the configuration (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit_with(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Marks a failure that another rank reports in full, so that this one need not.
    #[must_use]
    pub fn told_elsewhere(mut self) -> Self {
        self.told_elsewhere = true;
        self
    }

    /// Whether another rank reports it in full.
    pub fn is_told_elsewhere(&self) -> bool {
        self.told_elsewhere
    }

    /// Marks a failure that every rank knows of, so that all of them end in good order.
    #[must_use]
    pub fn known_to_all(mut self) -> Self {
        self.known_to_all = true;
        self
    }

    /// Whether every rank knows of it. Of another failure the other ranks know nothing: they may be
    /// waiting for this one.
    pub fn is_known_to_all(&self) -> bool {
        self.known_to_all || self.told_elsewhere
    }

    /// Whether memory did not suffice, on the host or on a device.
    pub fn is_out_of_memory(&self) -> bool {
        let said = std::iter::once(&self.message).chain(&self.causes);
        said.into_iter().any(|text| OUT_OF_MEMORY.iter().any(|words| text.contains(words)))
    }

    /// Adds where it happened, verbatim below the message (`  --> FILE:LINE:COLUMN`, an excerpt).
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Adds the exact next thing to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds an underlying error, outermost first, with everything that it wraps; of libtorch's what it
    /// says and not the functions that it was in.
    #[must_use]
    pub fn because(mut self, cause: &dyn Error) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            self.causes.push(without_frames(&cause.to_string()).to_owned());
            next = cause.source();
        }
        self
    }

    /// Adds an underlying error as text.
    #[must_use]
    pub fn because_of(mut self, cause: &str) -> Self {
        self.causes.push(without_frames(cause).to_owned());
        self
    }

    /// Puts a sentence about the larger task in front; the old message becomes the first cause.
    #[must_use]
    pub fn during(mut self, task: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.message, task.into());
        self.causes.insert(0, inner);
        self
    }

    /// The first line, without `error:`.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Message and causes as one sentence, for logs and for other ranks.
    pub fn sentence(&self) -> String {
        let parts: Vec<&str> =
            std::iter::once(&self.message).chain(&self.causes).map(String::as_str).collect();
        printable(&parts.join(": ")).into_owned()
    }

    /// The next things to do, in the order in which they were added.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The exit code that this failure asks for.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

/// The text in front of a list of C++ functions.
fn without_frames(text: &str) -> &str {
    let start = FRAMES.iter().filter_map(|frames| text.find(frames)).min();
    start.map_or(text, |start| text[..start].trim_end())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", printable(&self.message))?;
        if let Some(place) = &self.place {
            write!(f, "\n{}", printable(place))?;
        }
        for cause in &self.causes {
            write!(f, "\n  caused by: {}", printable(cause))?;
        }
        if !self.hints.is_empty() {
            writeln!(f)?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {}", printable(hint))?;
        }
        Ok(())
    }
}

/// A text in which control characters but the end of a line and a tab are written out, so that names
/// from files cannot command a terminal.
///
/// ```
/// use scrimp::error::printable;
/// assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    let commands = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    if !text.contains(commands) {
        return Cow::Borrowed(text);
    }
    let written = |letter: char| match letter {
        letter if commands(letter) => letter.escape_unicode().to_string(),
        letter => letter.to_string(),
    };
    Cow::Owned(text.chars().map(written).collect())
}

impl Error for Failure {}

/// Turns a foreign error into a [`Failure`] that says what was being done.
pub trait Context<T> {
    /// Replaces the error by a failure with this message, keeping the error as its cause.
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Error + 'static> Context<T> for std::result::Result<T, E> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| Failure::new(message()).because(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_survives_the_way_over_its_code() {
        assert_eq!(Exit::ALL.map(|exit| Exit::of_code(exit as i32)), Exit::ALL);
        assert_eq!([-1, 76 + 256, 137].map(Exit::of_code), [Exit::Failed; 3]);
        assert_eq!(Exit::ALL.into_iter().filter(|exit| exit.is_stop()).count(), 2);
    }

    #[test]
    fn prints_message_place_causes_and_hints_in_this_order() {
        let io = std::io::Error::other("disk on fire");
        let failure = Failure::usage("cannot read `a.toml`")
            .at("  --> a.toml:7:1")
            .because(&io)
            .hint("run `scrimp methods`");
        assert_eq!(
            failure.to_string(),
            "error: cannot read `a.toml`\n  --> a.toml:7:1\n  caused by: disk on fire\n\nhint: run `scrimp methods`"
        );
        assert_eq!(failure.exit() as i32, 2);
    }

    #[test]
    fn what_libtorch_says_loses_its_functions_and_is_known_for_what_it_is() {
        let ways = ["\nException raised from alloc_cpu at alloc_cpu.cpp:127", ""];
        for way in ways {
            let text = format!(
                "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: \
                 you tried to allocate 64 bytes.{way}\nframe #0: c10::ThrowEnforceNotMet"
            );
            let failure = Failure::new("backward failed").because(&std::io::Error::other(text));
            assert!(failure.is_out_of_memory());
            assert!(failure.to_string().ends_with("you tried to allocate 64 bytes."), "{failure}");
        }
        let failure = Failure::new("CUDA out of memory. Tried to allocate 2.00 GiB");
        assert!(failure.is_out_of_memory() && !Failure::new("no GPU").is_out_of_memory());
    }

    #[test]
    fn causes_end_before_the_frames_of_another_language_and_command_no_terminal() {
        let torch = "sizes differ\nException raised from cat at TensorShape.cpp:1 (most recent call first):\nframe #0: c10::Error\n";
        let failure =
            Failure::new("`a\u{1b}[2J` is odd").because(&std::io::Error::other(torch)).hint("\r");
        let expected = "error: `a\\u{1b}[2J` is odd\n  caused by: sizes differ\n\nhint: \\u{d}";
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.sentence(), "`a\\u{1b}[2J` is odd: sizes differ");
    }

    #[test]
    fn context_during_a_larger_task_keeps_the_first_message_as_cause() {
        let failure = Failure::new("slice 3 holds NaN").during("cannot pack `x.nii.gz`");
        assert_eq!(
            failure.to_string(),
            "error: cannot pack `x.nii.gz`\n  caused by: slice 3 holds NaN"
        );
        assert_eq!(failure.sentence(), "cannot pack `x.nii.gz`: slice 3 holds NaN");
    }
}
