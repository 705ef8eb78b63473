//! How fast a run is: what its steps take from one look at its numbers to the next.
//!
//! A step on a GPU returns when it is enqueued, and only a number that is read says when it is done. So the
//! clock is read behind such a number and nowhere else. Knows neither methods nor logs.

use crate::error::Result;
use std::time::{Duration, Instant};

/// The clock of a run.
pub(super) struct Pace {
    now: fn() -> Instant,
    /// Since when it runs; it stands where this is none.
    running_since: Option<Instant>,
    stretch: Stretch,
}

/// The steps between two looks.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    steps: u32,
    images: usize,
    data_wait: Duration,
    total: Duration,
}

impl Pace {
    /// Before the first step.
    pub(super) fn new() -> Self {
        Self::by(Instant::now)
    }

    fn by(now: fn() -> Instant) -> Self {
        Self { now, running_since: None, stretch: Stretch::default() }
    }

    /// A step begins: the clock runs.
    pub(super) fn begin_step(&mut self) {
        self.running_since.get_or_insert_with(self.now);
    }

    /// A step of so many images is computed or enqueued, after waiting for its data.
    pub(super) fn end_step(&mut self, images: usize, data_wait: Duration) {
        self.stretch.steps += 1;
        self.stretch.images += images;
        self.stretch.data_wait += data_wait;
    }

    /// What follows is no training: the clock stands until the next step begins.
    pub(super) fn pause(&mut self) {
        if let Some(since) = self.running_since.take() {
            self.stretch.total += (self.now)() - since;
        }
    }

    /// What `look` reads of the last step, and the steps up to it. The next stretch begins when it is read.
    pub(super) fn up_to<T>(&mut self, look: impl FnOnce() -> Result<T>) -> Result<(T, Stretch)> {
        let read = look()?;
        self.pause();
        self.running_since = Some((self.now)());
        Ok((read, std::mem::take(&mut self.stretch)))
    }
}

impl Stretch {
    /// `time` spread over the steps, in milliseconds.
    pub(super) fn ms_of_a_step(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e3 / f64::from(self.steps.max(1))
    }

    /// The mean time of a step, in milliseconds.
    pub(super) fn step_ms(&self) -> f64 {
        self.ms_of_a_step(self.total)
    }

    /// The mean time that a step waited for its data, in milliseconds.
    pub(super) fn data_wait_ms(&self) -> f64 {
        self.ms_of_a_step(self.data_wait)
    }

    /// Images of all ranks in a second.
    pub(super) fn images_per_second(&self) -> f64 {
        self.images as f64 / self.total.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use std::cell::Cell;

    const LONG: Duration = Duration::from_millis(40);

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    fn now() -> Instant {
        let now = NOW.get().unwrap_or_else(Instant::now);
        NOW.set(Some(now));
        now
    }

    /// What takes this long.
    fn works() {
        NOW.set(Some(now() + LONG));
    }

    fn step(pace: &mut Pace) {
        pace.begin_step();
        pace.end_step(12, Duration::ZERO);
    }

    fn slow_look(pace: &mut Pace) -> Stretch {
        let read = || {
            works();
            Ok(())
        };
        pace.up_to(read).unwrap().1
    }

    #[test]
    fn steps_that_are_only_enqueued_take_what_reading_the_last_one_waits() {
        let mut pace = Pace::by(now);
        step(&mut pace);
        step(&mut pace);
        let stretch = slow_look(&mut pace);
        assert!((stretch.step_ms() - 20.0).abs() < 1e-9, "{stretch:?}");
        assert!((stretch.images_per_second() - 24.0 / 0.04).abs() < 1e-6, "{stretch:?}");
        step(&mut pace);
        let stretch = slow_look(&mut pace);
        assert!((stretch.step_ms() - 40.0).abs() < 1e-9, "{stretch:?}");
    }

    #[test]
    fn what_lies_between_a_look_and_the_next_step_counts_unless_the_clock_stands() {
        let mut pace = Pace::by(now);
        step(&mut pace);
        slow_look(&mut pace);
        pace.pause();
        works();
        // A second pause changes nothing.
        pace.pause();
        step(&mut pace);
        assert_eq!(slow_look(&mut pace).total, LONG);
        works();
        step(&mut pace);
        assert_eq!(slow_look(&mut pace).total, 2 * LONG);
    }

    #[test]
    fn a_look_that_fails_leaves_the_stretch_to_the_next_one() {
        let mut pace = Pace::by(now);
        step(&mut pace);
        let failed = pace.up_to(|| Err::<(), _>(Failure::new("unreadable")));
        assert_eq!(failed.unwrap_err().message(), "unreadable");
        step(&mut pace);
        let stretch = slow_look(&mut pace);
        assert_eq!((stretch.total, stretch.steps), (LONG, 2));
    }
}
