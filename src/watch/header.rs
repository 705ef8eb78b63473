//! The first rows of the screen: which run, its state, how far it is, and what holds it back.

use super::frame::Shown;
use super::numbers;
use super::state::Presence;
use super::targets::{Target, Targets};
use super::theme::STRONG;
use super::ui::{Tab, Ui};
use super::verdict::verdict;
use crate::runlog::{Phase, RunStarted, RunStatus};
use crate::words::counted;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{LineGauge, Widget};

/// A mark and a word for the state of the run.
pub(super) fn state(run: &Shown<'_>) -> (String, Style) {
    let theme = run.theme;
    let dashboard = run.dashboard;
    let fixed = |text: &str, style| (text.to_owned(), style);
    match (dashboard.ended(), run.presence) {
        (Some(RunStatus::Finished), _) => fixed("✔ finished", theme.good()),
        (Some(RunStatus::Stopped), _) => fixed("■ stopped", STRONG),
        (Some(RunStatus::Failed), _) => fixed("✖ failed", theme.alarm()),
        (None, Presence::Gone) => fixed("○ directory gone", theme.alarm()),
        (None, Presence::Absent) => (silence(run), theme.alarm()),
        (None, Presence::Stopping) => fixed("◐ stopping", STRONG),
        (None, Presence::Writing) => match dashboard.phase {
            Some(Phase::Evaluating) => fixed("● evaluating", theme.good()),
            Some(Phase::Saving) => fixed("● saving", theme.good()),
            _ if dashboard.step.is_none() => fixed("● starting", theme.good()),
            _ => fixed("● training", theme.good()),
        },
    }
}

/// Since when nobody writes a run that has not ended.
fn silence(run: &Shown<'_>) -> String {
    let last_ms = run.dashboard.times_ms.map(|times| times[1]);
    match run.now_ms.zip(last_ms) {
        Some((now_ms, last_ms)) => {
            format!("○ silent for {}", numbers::age(now_ms.saturating_sub(last_ms)))
        }
        None => "○ silent".to_owned(),
    }
}

/// Method, data set, annotation, fold and ranks.
pub(super) fn subject(run: &Shown<'_>) -> String {
    let Some((_, started)) = &run.dashboard.started else { return "not started".to_owned() };
    let RunStarted { method, dataset, annotation, fold, ranks, .. } = started;
    let fold = if *fold == 0 { String::new() } else { format!(" · fold {fold}") };
    format!("{method} · {dataset} {annotation}{fold} · {}", counted(*ranks as usize, "rank"))
}

/// Name and state, progress, the numbers of the run, and the verdict: as many rows as there are.
pub(super) fn header(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let row = |index: u16| Rect { y: area.y + index, height: 1, ..area };
    let (word, style) = state(run);
    let word = match run.reading {
        Some(share) => format!("reading {:.0}% · {word}", share * 100.0),
        None => word,
    };
    let word = Line::styled(word, style);
    let room = (area.width as usize).saturating_sub(word.width() + 2);
    let name = Span::styled(run.name.to_owned(), STRONG);
    let subject = Span::raw(format!("  {}", subject(run)));
    let title = Rect { width: room as u16, ..row(0) };
    Line::from(vec![name, subject]).render(title, buffer);
    word.right_aligned().render(row(0), buffer);
    if area.height > 1 {
        gauge(run, row(1), buffer);
    }
    if area.height > 2 {
        fitting(facts(run), area.width).render(row(2), buffer);
    }
    if area.height > 3 {
        draw_verdict(run, row(3), buffer);
    }
}

fn gauge(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let dashboard = run.dashboard;
    let share = format!(" {:>3.0} %", dashboard.progress() * 100.0);
    let steps = format!("{}/{}{share}", dashboard.current_step(), dashboard.total_steps());
    LineGauge::default()
        .ratio(dashboard.progress())
        .label(steps)
        .filled_symbol("█")
        .unfilled_symbol("░")
        .filled_style(run.theme.good())
        .unfilled_style(run.theme.faint())
        .render(area, buffer);
}

/// Facts for the header, the most important first.
fn facts(run: &Shown<'_>) -> Vec<String> {
    let dashboard = run.dashboard;
    let mut facts = Vec::new();
    // Nobody works on what is left of a silent run.
    let is_written = matches!(run.presence, Presence::Writing | Presence::Stopping);
    if let Some(remaining_ms) = dashboard.remaining_ms().filter(|_| is_written) {
        facts.push(format!("{} left", numbers::duration(remaining_ms)));
    }
    if let Some((_, step)) = &dashboard.step {
        facts.push(format!("{} images/s", numbers::value(step.images_per_second)));
    }
    if let Some(evaluated) = &dashboard.evaluated {
        let (best, step) = (evaluated.best_mean_dice, evaluated.best_step);
        facts.push(format!("best Dice {best:.4} at {step}"));
        facts.push(format!("last {:.4}", evaluated.mean_dice));
    }
    if let Some((time_ms, step, _)) = dashboard.checkpoint {
        let is_live = dashboard.ended().is_none();
        let age = run.now_ms.filter(|_| is_live).map(|now_ms| now_ms.saturating_sub(time_ms));
        let age = age.map_or_else(String::new, |age| format!(", {} ago", numbers::age(age)));
        facts.push(format!("checkpoint {step}{age}"));
    }
    if let Some((_, step)) = &dashboard.step {
        facts.push(format!("epoch {}", step.epoch));
    }
    facts.push(format!("{} elapsed", numbers::duration(dashboard.elapsed_ms())));
    if let Some((_, step)) = &dashboard.step {
        facts.push(format!("{} ms a step", numbers::milliseconds(step.step_ms)));
        facts.extend(step.lr.values().next().map(|lr| format!("lr {}", numbers::value(*lr))));
    }
    facts
}

/// As many facts as fit whole.
fn fitting(facts: Vec<String>, width: u16) -> Line<'static> {
    let mut line = String::new();
    for fact in facts {
        let separator = if line.is_empty() { "" } else { " · " };
        if line.chars().count() + separator.chars().count() + fact.chars().count() <= width as usize
        {
            line = line + separator + &fact;
        }
    }
    Line::from(line)
}

fn draw_verdict(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let Some(verdict) = verdict(run.dashboard) else { return };
    let (sign, style) =
        if verdict.is_bad { ("▲", run.theme.alarm()) } else { ("→", run.theme.good()) };
    let words = Span::styled(format!("{sign} {}", verdict.words), style);
    Line::from(vec![words, Span::raw(format!(": {}", verdict.evidence))]).render(area, buffer);
}

/// The names of the views, the one that is shown marked.
pub(super) fn tabs(
    run: &Shown<'_>,
    ui: &Ui,
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let mut x = area.x;
    for (index, tab) in Tab::ALL.into_iter().enumerate() {
        if tab == Tab::Compare && ui.runs < 2 {
            continue;
        }
        let is_shown = tab == ui.tab;
        let label = format!(" {} {} ", index + 1, tab.name());
        let columns = label.len() as u16;
        if x + columns > area.right() {
            return;
        }
        let place = Rect { x, width: columns, ..area };
        let style = if is_shown { run.theme.selected() } else { run.theme.faint() };
        Line::styled(label, style).render(place, buffer);
        targets.push((place, Target::Tab(tab)));
        x += columns;
    }
    let place = Rect { x, width: area.right() - x, ..area };
    let text = match (&ui.replay, run.dashboard.times_ms) {
        (Some(replay), Some([start_ms, _])) => {
            let sign = if replay.is_playing { "▸" } else { "■" };
            let time = numbers::duration(replay.at_ms.saturating_sub(start_ms));
            Line::styled(format!("{sign} replay at {time} "), run.theme.alarm())
        }
        _ if ui.runs > 1 => Line::from(format!("run {} of {} ", ui.selected + 1, ui.runs)),
        _ => return,
    };
    if text.width() <= usize::from(place.width) {
        text.right_aligned().render(place, buffer);
    }
}
