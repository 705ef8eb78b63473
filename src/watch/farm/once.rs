//! A farm as text: one frame, or a line for everything that happens.

use super::facts::{FarmFacts, JobFacts};
use super::feed::FarmFeed;
use super::ui::FarmUi;
use super::view::{draw_farm, summary};
use crate::error::{Context, Result};
use crate::runlog::farm::{FarmDirectory, JobState};
use crate::watch::numbers;
use crate::watch::plain::{harmless, to_harmless};
use crate::watch::text;
use crate::watch::theme::{Theme, to_ascii};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

/// How often to look at the farm.
const POLL: Duration = Duration::from_secs(1);
/// Time between two lines about all jobs.
const SUMMARY: Duration = Duration::from_mins(1);

/// One frame about a farm as plain text, of `size` columns and rows at most.
pub fn once(farm: &FarmDirectory, size: (u16, u16), is_ascii: bool) -> Result<String> {
    let feed = FarmFeed::open(farm.clone())?;
    let area = Rect::new(0, 0, size.0, size.1);
    let mut buffer = Buffer::empty(area);
    let theme = Theme { has_colour: false, is_ascii };
    // Nothing is selected on paper.
    let mut ui = FarmUi { selected: usize::MAX, ..FarmUi::default() };
    draw_farm(feed.facts(), theme, &mut ui, area, &mut buffer);
    to_harmless(&mut buffer);
    if is_ascii {
        to_ascii(&mut buffer);
    }
    Ok(text(&buffer))
}

/// Writes what happens in a farm until nothing is left to do or nobody runs it: a line for each job that changes its
/// state, and one about all jobs at the start, at the end, and every `interval` between.
///
/// A reader of `out` that goes away ends it without an error.
pub fn follow(farm: &FarmDirectory, out: &mut dyn Write, interval: Option<Duration>) -> Result<()> {
    let mut feed = FarmFeed::open(farm.clone())?;
    let interval = interval.unwrap_or(SUMMARY);
    let mut known: Vec<(String, JobState, u32)> = states(feed.facts());
    let mut last = summary(feed.facts(), usize::MAX);
    let mut lines = vec![last.clone()];
    let mut told = Instant::now();
    loop {
        let is_over = feed.facts().is_over();
        let now = summary(feed.facts(), usize::MAX);
        if now != last && (is_over || told.elapsed() >= interval) {
            lines.push(now.clone());
            (last, told) = (now, Instant::now());
        }
        for line in lines.drain(..) {
            match writeln!(out, "{}", harmless(&line)).and_then(|()| out.flush()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                written => written.context(|| "cannot write to stdout")?,
            }
        }
        if is_over {
            return Ok(());
        }
        std::thread::sleep(POLL);
        feed.look()?;
        let states = states(feed.facts());
        let jobs = feed.facts().jobs.iter().zip(&states);
        let changed = jobs.filter(|(_, state)| !known.contains(state));
        lines.extend(changed.map(|(job, _)| line(feed.facts(), job)));
        known = states;
    }
}

fn states(farm: &FarmFacts) -> Vec<(String, JobState, u32)> {
    let of = |job: &JobFacts| (job.job.name.clone(), job.report.state, job.report.attempts);
    farm.jobs.iter().map(of).collect()
}

/// What became of a job.
fn line(farm: &FarmFacts, job: &JobFacts) -> String {
    let JobFacts { job: of, report, course, .. } = job;
    let mut facts = vec![report.state.name().to_owned()];
    match report.state {
        JobState::Running if report.attempts > 1 => {
            facts.push(format!("attempt {}", report.attempts));
        }
        JobState::Done | JobState::Failed | JobState::Stopped => {
            if let Some(dice) = course.mean_dice {
                facts.push(format!("mean Dice {dice:.4}"));
            }
            facts.push(numbers::duration(job.busy_ms(farm.until_ms(job))));
            facts.extend(
                report.exit_code.filter(|code| *code != 0).map(|code| format!("exit code {code}")),
            );
        }
        _ => {}
    }
    let said =
        if report.message.is_empty() { String::new() } else { format!(": {}", report.message) };
    format!("{} {}{said}", of.name, facts.join(", "))
}
