//! Panics as failures: errors of libtorch, which tch turns into panics, and mistakes of this program.
//!
//! A person gets a sentence and an exit code in place of a thread's last words. What was being done is
//! not known here; whoever catches a failure says so.

use crate::error::{Failure, Result};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};

/// How the panic of a `Result` that was unwrapped begins where tch wraps an error of libtorch.
const LIBTORCH: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"";

thread_local! {
    /// How many calls of [`caught`] this thread is in: they tell what they catch.
    static CATCHERS: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic of this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics that nobody catches are told as failures, too. With `RUST_BACKTRACE` set, Rust's
/// own words follow.
pub fn tell_as_failures() {
    let former = std::panic::take_hook();
    let wordy = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        PLACE.set(place);
        if CATCHERS.get() == 0 {
            // Nobody reading it is no reason to fail once more.
            let _ = writeln!(std::io::stderr(), "{}", failure_of(panic.payload()));
        }
        if wordy {
            former(panic);
        }
    }));
}

/// Does some work, whose panic becomes a failure.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    CATCHERS.set(CATCHERS.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHERS.set(CATCHERS.get() - 1);
    // Some unwind with a failure on purpose.
    done.unwrap_or_else(|panic| {
        Err(panic
            .downcast::<Failure>()
            .map_or_else(|panic| failure_of(&*panic), |failure| *failure))
    })
}

/// Passes on what went well and what every rank knows of. A failure of this rank alone unwinds from here
/// to [`caught`], so that nothing that is dropped on the way waits for ranks that cannot come.
pub fn unwound_if_alone<T>(outcome: Result<T>) -> Result<T> {
    match outcome {
        Err(failure) if !failure.is_known_to_all() => resume_unwind(Box::new(failure)),
        outcome => outcome,
    }
}

/// Does some work as [`caught`] does, for callers to whom the failure was told as it happened.
pub fn caught_and_told<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|panic| Err(failure_of(&*panic).told_elsewhere()))
}

/// What a panic is called.
fn failure_of(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
    if let Some((_, quoted)) = words.split_once(LIBTORCH) {
        let said = unquoted(quoted.trim_end_matches("\")"));
        let failure = Failure::new("libtorch gave up").because_of(&said);
        return if failure.is_out_of_memory() {
            Failure::new("there is not enough memory").because_of(&said)
        } else {
            failure
        };
    }
    let place = PLACE.take().unwrap_or_else(|| "an unknown place".to_owned());
    Failure::new(format!("a mistake in scrimp: {words}"))
        .at(format!("  --> {place}"))
        .hint("report this line; `RUST_BACKTRACE=1` in front of the same command says more")
}

/// The text behind its debugging form.
fn unquoted(quoted: &str) -> String {
    let mut text = String::with_capacity(quoted.len());
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        text.push(match (letter, if letter == '\\' { letters.next() } else { None }) {
            (_, Some('n')) => '\n',
            (_, Some('t')) => '\t',
            (_, Some(escaped)) => escaped,
            (letter, None) => letter,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tch_unwraps_is_told_without_frames() {
        let error = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: \
                     \"64\" bytes.\nframe #0: c10";
        let words = format!("called `Result::unwrap()` on an `Err` value: Torch({error:?})");
        let failure = caught::<()>(|| std::panic::panic_any(words)).unwrap_err();
        insta::assert_snapshot!(failure, @r#"
        error: there is not enough memory
          caused by: [enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: "64" bytes.
        "#);
        let words = "called `Result::unwrap()` on an `Err` value: Torch(\"shapes do not match\")";
        let failure = caught::<()>(|| std::panic::panic_any(words.to_owned())).unwrap_err();
        assert_eq!(failure.sentence(), "libtorch gave up: shapes do not match");
    }

    #[test]
    fn a_mistake_is_called_one_and_what_returns_is_passed_on() {
        let failure = caught::<()>(|| panic!("seven")).unwrap_err();
        assert_eq!(failure.message(), "a mistake in scrimp: seven");
        assert_eq!(caught(|| Ok(7)).unwrap(), 7);
        for known in [false, true] {
            let failure = Failure::usage("no such key");
            let failure = if known { failure.known_to_all() } else { failure };
            let failed = caught::<()>(|| unwound_if_alone(Err(failure))).unwrap_err();
            assert_eq!((failed.message(), failed.is_known_to_all()), ("no such key", known));
        }
    }
}
