//! One widget per panel: pure functions of what is known about a run.
//!
//! Where a panel stands and whether there is room for it is decided by `view`.

use super::chart::Chart;
use super::numbers;
use super::state::{Dashboard, Presence};
use super::update::{KEYS, Overlay, Ui};
use crate::runlog::{Health, RunStarted, RunStatus};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, LineGauge, Row, Table, Widget};

/// Which colours there are. Everything can be told apart without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Whether to use any.
    pub has_colour: bool,
}

/// Colours of curves, told apart by most eyes.
const CURVES: [Color; 6] =
    [Color::Cyan, Color::Yellow, Color::Magenta, Color::Green, Color::Blue, Color::LightRed];

/// What stands out without a colour.
pub(super) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// The colour of dots of a curve.
    pub(super) fn dots(self, index: usize) -> Color {
        if self.has_colour { CURVES[index % CURVES.len()] } else { Color::Reset }
    }

    pub(super) fn curve(self, index: usize) -> Style {
        self.colour(CURVES[index % CURVES.len()])
    }

    pub(super) fn faint(self) -> Style {
        self.colour(Color::DarkGray)
    }

    pub(super) fn good(self) -> Style {
        self.colour(Color::Green)
    }

    pub(super) fn alarm(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// A run as the screen knows it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The name of the run directory.
    pub name: &'a str,
    /// What its log says.
    pub dashboard: &'a Dashboard,
    /// Whether a process is writing it.
    pub presence: Presence,
    /// How to colour.
    pub theme: Theme,
}

impl Shown<'_> {
    /// A mark and a word for the state of the run.
    fn state(&self) -> Span<'static> {
        let (word, style) = match self.dashboard.ended {
            Some(RunStatus::Finished) => ("✔ finished", self.theme.good()),
            Some(RunStatus::Stopped) => ("■ stopped", STRONG),
            Some(RunStatus::Failed) => ("✖ failed", self.theme.alarm()),
            None => match self.presence {
                Presence::Absent => ("○ silent", self.theme.alarm()),
                Presence::Writing => ("● running", self.theme.good()),
                Presence::Stopping => ("◐ stopping", STRONG),
            },
        };
        Span::styled(word, style)
    }

    fn subject(&self) -> String {
        let Some((_, started)) = &self.dashboard.started else { return "not started".to_owned() };
        let RunStarted { method, dataset, annotation, fold, .. } = started;
        match fold {
            0 => format!("{method} · {dataset} {annotation}"),
            _ => format!("{method} · {dataset} {annotation} · fold {fold}"),
        }
    }
}

/// Name and state, progress, and the numbers of the run: three rows.
pub(super) fn header(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let row = |index: u16| Rect { y: area.y + index, height: 1, ..area };
    let state = run.state();
    let room = (area.width as usize).saturating_sub(state.width() + 2);
    let name = Span::styled(run.name.to_owned(), STRONG);
    let subject = Span::raw(format!("  {}", run.subject()));
    let title = Rect { width: room as u16, ..row(0) };
    Line::from(vec![name, subject]).render(title, buffer);
    Line::from(state).right_aligned().render(row(0), buffer);
    if area.height > 1 {
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
            .render(row(1), buffer);
    }
    if area.height > 2 {
        fitting(facts(run), area.width).render(row(2), buffer);
    }
}

/// Facts for the header, the most important first.
fn facts(run: &Shown<'_>) -> Vec<String> {
    let dashboard = run.dashboard;
    let mut facts = Vec::new();
    if let Some(remaining_ms) = dashboard.remaining_ms() {
        facts.push(format!("{} left", numbers::duration(remaining_ms)));
    }
    if let Some((_, step)) = &dashboard.step {
        facts.push(format!("{} images/s", numbers::value(step.images_per_second)));
    }
    if let Some(evaluated) = &dashboard.evaluated {
        let (best, step) = (evaluated.best_mean_dice, evaluated.best_step);
        facts.push(format!("best Dice {best:.4} at {step}"));
    }
    facts.push(format!("{} elapsed", numbers::duration(dashboard.elapsed_ms())));
    if let Some((_, step)) = &dashboard.step {
        facts.push(format!("{} ms a step", numbers::milliseconds(step.step_ms)));
        facts.push(format!("epoch {}", step.epoch));
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

/// The loss terms over steps.
pub(super) fn losses(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    let losses = &run.dashboard.losses;
    let learner = |name: &str| name.split_once('/').map(|(learner, _)| learner.to_owned());
    let mut learners: Vec<_> = losses.keys().map(|name| learner(name)).collect();
    learners.dedup();
    let short = |name| if learners.len() == 1 { term(name) } else { name };
    let curves = losses.iter().map(|(name, series)| (short(name.as_str()), series)).collect();
    Chart { curves, log_scale: ui.log_scale, bounds: None, theme: run.theme }.render(area, buffer);
}

fn term(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, term)| term)
}

/// Dice of each structure over steps.
pub(super) fn dice(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let curves = run.dashboard.dice_by_label();
    Chart { curves, log_scale: false, bounds: Some([0.0, 1.0]), theme: run.theme }
        .render(area, buffer);
}

/// Times of each rank, with the rank that keeps the others waiting marked.
pub(super) fn ranks(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let ranks = &run.dashboard.ranks;
    if ranks.is_empty() {
        Line::from("nothing yet").style(run.theme.faint()).render(area, buffer);
        return;
    }
    // The bar says at a glance what the numbers say exactly; memory is what can be missed.
    let has_memory = area.width >= 44;
    let bar_columns = area.width.saturating_sub(if has_memory { 37 } else { 28 }).min(30);
    let slowest_ms = ranks.values().map(|health| health.step_ms).fold(0.0, f64::max);
    let straggler = straggler(run.dashboard);
    let room = usize::from(area.height.saturating_sub(1));
    let shown = if ranks.len() > room { room.saturating_sub(1) } else { room };
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (&rank, health) in ranks.iter().take(shown) {
        let is_straggler = straggler == Some(rank);
        let style = if is_straggler { run.theme.alarm() } else { Style::new() };
        let mark = if is_straggler { format!("▸{rank:>3}") } else { format!("{rank:>4}") };
        let memory = health.memory_bytes.map_or_else(|| "–".to_owned(), numbers::bytes);
        let times = [health.step_ms, health.data_wait_ms, health.communication_ms];
        let mut cells = vec![Cell::from(mark)];
        let number = |text| Cell::from(Line::from(text).right_aligned());
        cells.extend(times.map(numbers::milliseconds).map(number));
        cells.push(Cell::from(bar(health, slowest_ms, bar_columns)));
        cells.push(number(memory));
        rows.push(Row::new(cells).style(style));
    }
    if shown < ranks.len() {
        rows.push(Row::new([
            Cell::from("   …"),
            Cell::from(format!("{} more", ranks.len() - shown)),
        ]));
    }
    let memory_columns = if has_memory { 8 } else { 0 };
    let widths = [4, 7, 6, 6, bar_columns, memory_columns].map(Constraint::Length);
    let titles = ["rank", "step ms", "data", "waits", "", if has_memory { "memory" } else { "" }];
    let titles = titles.map(|title| Line::from(title).right_aligned());
    Table::new(rows, widths)
        .column_spacing(1)
        .header(Row::new(titles).style(run.theme.faint()))
        .render(area, buffer);
}

/// The rank that works longest, if it works a tenth longer than the middle one.
fn straggler(dashboard: &Dashboard) -> Option<u32> {
    let works = |health: &Health| health.step_ms - health.communication_ms;
    let mut times: Vec<_> =
        dashboard.ranks.iter().map(|(rank, health)| (works(health), *rank)).collect();
    times.retain(|(time_ms, _)| time_ms.is_finite());
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (longest_ms, rank) = *times.last()?;
    let middle_ms = times[(times.len() - 1) / 2].0;
    (longest_ms > 1.1 * middle_ms).then_some(rank)
}

/// The step of a rank, as wide as the longest step of all ranks: work, data, waiting.
fn bar(health: &Health, longest_ms: f64, columns: u16) -> String {
    let columns_of = |ms: f64| match (ms / longest_ms * f64::from(columns)).round() {
        count if count.is_finite() => count.clamp(0.0, f64::from(columns)) as usize,
        _ => 0,
    };
    let (data, waits) = (columns_of(health.data_wait_ms), columns_of(health.communication_ms));
    let works = columns_of(health.step_ms).saturating_sub(data + waits);
    "█".repeat(works) + &"▒".repeat(data) + &"░".repeat(waits)
}

/// The last messages, the newest at the bottom.
pub(super) fn messages(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let notes = &run.dashboard.messages;
    let start_ms = notes.first().map_or(0, |note| note.time_ms);
    let mut bottom = area.bottom();
    for note in notes.iter().rev() {
        let time = format!("{} ", numbers::duration(note.time_ms - start_ms));
        let style = if note.is_warning { run.theme.alarm() } else { Style::new() };
        let text = if note.is_warning { format!("! {}", note.text) } else { note.text.clone() };
        let indent = time.len() as u16;
        let lines = broken(&text, usize::from(area.width.saturating_sub(indent)));
        let top = bottom.saturating_sub(lines.len() as u16);
        if top < area.y {
            return;
        }
        Line::styled(time, run.theme.faint()).render(Rect { y: top, height: 1, ..area }, buffer);
        for (row, line) in (top..bottom).zip(lines) {
            let place = Rect::new(area.x + indent, row, area.width.saturating_sub(indent), 1);
            Line::styled(line, style).render(place, buffer);
        }
        bottom = top;
    }
}

/// `text` in lines of at most `columns` where its words allow it.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if length == 0 {
            lines[last].push_str(word);
        } else if length + 1 + word.chars().count() <= columns {
            lines[last] = format!("{} {word}", lines[last]);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The keys in one row.
pub(super) fn footer(ui: &Ui, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let useful = KEYS.iter().filter(|binding| binding.word != "next run" || ui.runs > 1);
    let spans = useful.flat_map(|binding| {
        let name = Span::styled(format!(" {} ", binding.name), STRONG);
        [name, Span::styled(format!("{}  ", binding.word), theme.faint())]
    });
    let keys = Line::from(spans.collect::<Vec<_>>());
    let place = Line::from(format!("run {} of {}", ui.selected + 1, ui.runs));
    if ui.runs > 1 && keys.width() + place.width() <= usize::from(area.width) {
        place.right_aligned().render(area, buffer);
    }
    keys.render(area, buffer);
}

/// What lies on top: its title and its lines.
pub(super) fn overlay(ui: &Ui, run: &Shown<'_>) -> Option<(&'static str, Vec<Line<'static>>)> {
    match ui.overlay {
        Overlay::None => None,
        Overlay::Help => {
            let keys =
                KEYS.iter().map(|key| Line::from(format!("{:>3}  {:<29}", key.name, key.help)));
            Some((" keys ", keys.collect()))
        }
        Overlay::StopQuestion => {
            let name = Span::styled(run.name.to_owned(), STRONG);
            let question = Line::from("Ask this run to save and end?");
            Some((
                " stop ",
                vec![Line::from(name), question, Line::from("y yes · any other key no")],
            ))
        }
    }
}
