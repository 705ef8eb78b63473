//! The farm's screen: its head with the summary, the table of jobs, what the selected one says, and the keys.
//!
//! What columns show is theirs.

use super::columns::{COLUMNS, JobRow, arranged, fitting};
use super::facts::FarmFacts;
use super::keys::FARM_KEYS;
use super::ui::{FarmOverlay, FarmTarget, FarmUi};
use crate::runlog::farm::JobState;
use crate::watch::frame::framed;
use crate::watch::numbers;
use crate::watch::plain::to_harmless;
use crate::watch::theme::{STRONG, Theme, to_ascii};
use crate::words::counted;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, LineGauge, Paragraph, Row, Table, Widget};

/// Columns and rows below which nothing readable can be shown.
const SMALLEST: (u16, u16) = (40, 10);
/// Columns of a key and what it does.
const HELP_COLUMNS: u16 = 62;

/// Draws the whole screen at any size; gives what the mouse can point at.
pub(super) fn draw(
    farm: &FarmFacts,
    ui: &mut FarmUi,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) -> Vec<(Rect, FarmTarget)> {
    let [upper, footer] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(area);
    let targets = draw_farm(farm, theme, ui, upper, buffer);
    draw_footer(ui, theme, footer, buffer);
    match ui.overlay {
        FarmOverlay::None => {}
        FarmOverlay::Help => draw_help(theme, area, buffer),
        FarmOverlay::StopQuestion => draw_question(farm, theme, area, buffer),
    }
    to_harmless(buffer);
    if theme.is_ascii {
        to_ascii(buffer);
    }
    targets
}

/// The farm without keys, at any size.
pub(super) fn draw_farm(
    farm: &FarmFacts,
    theme: Theme,
    ui: &mut FarmUi,
    area: Rect,
    buffer: &mut Buffer,
) -> Vec<(Rect, FarmTarget)> {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 - 1 {
        let (columns, rows) = SMALLEST;
        Line::from(format!("needs {columns} x {rows}")).render(area, buffer);
        return Vec::new();
    }
    let [head, table, said] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(3), Constraint::Length(1)])
            .areas(area);
    draw_head(farm, theme, head, buffer);
    let targets = draw_table(farm, theme, ui, table, buffer);
    draw_said(farm, ui, theme, said, buffer);
    targets
}

fn draw_head(farm: &FarmFacts, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let row = |index: u16| Rect { y: area.y + index, height: 1, ..area };
    let (word, style) = match (farm.is_running, farm.is_stopping) {
        (true, true) => ("◐ stopping", STRONG),
        (true, false) => ("● running", theme.good()),
        (false, _) if farm.count(JobState::Done) == farm.jobs.len() => ("✔ done", theme.good()),
        (false, _) => ("○ nobody runs it", theme.alarm()),
    };
    let processes = counted(farm.slots.processes, "process");
    let gpus = match farm.slots.gpus {
        0 => String::new(),
        gpus => format!(" · {}", counted(gpus, "GPU")),
    };
    let jobs = counted(farm.jobs.len(), "job");
    let word = Line::styled(word, style);
    let room = area.width.saturating_sub(word.width() as u16 + 2);
    let title = vec![
        Span::styled(farm.name.clone(), STRONG),
        Span::raw(format!("  {jobs} · {processes}{gpus}")),
    ];
    Line::from(title).render(Rect { width: room, ..row(0) }, buffer);
    word.right_aligned().render(row(0), buffer);
    let share = share_done(farm);
    let label = format!(
        "{}/{} {:>3.0} %",
        farm.count(JobState::Done),
        farm.jobs.len(),
        (share * 100.0).floor()
    );
    LineGauge::default()
        .ratio(share)
        .label(label)
        .filled_symbol("█")
        .unfilled_symbol("░")
        .filled_style(theme.good())
        .unfilled_style(theme.faint())
        .render(row(1), buffer);
    Line::from(summary(farm, usize::from(area.width))).render(row(2), buffer);
}

/// The share of all steps that are done, each job counted alike.
fn share_done(farm: &FarmFacts) -> f64 {
    let shares = farm.jobs.iter().map(|job| job.progress().unwrap_or(0.0));
    if farm.jobs.is_empty() { 0.0 } else { shares.sum::<f64>() / farm.jobs.len() as f64 }
}

/// How many jobs are in which state, what is left, and what was used, in a line of at most so many columns: where there
/// is little room, what matters least is left out.
pub(super) fn summary(farm: &FarmFacts, columns: usize) -> String {
    let states = [
        (JobState::Done, 0),
        (JobState::Running, 1),
        (JobState::Failed, 2),
        (JobState::Waiting, 4),
        (JobState::Blocked, 6),
        (JobState::Stopped, 6),
    ];
    let counted = states.into_iter().map(|(state, leaves)| (leaves, farm.count(state), state));
    let counted = counted.filter(|(leaves, count, _)| *count > 0 || *leaves == 0);
    let mut facts: Vec<(usize, String)> = counted
        .map(|(leaves, count, state)| (leaves, format!("{count} {}", state.name())))
        .collect();
    if let Some(left) = farm.left_ms() {
        facts.push((3, format!("about {} left", numbers::duration(left))));
    }
    let hours = if farm.has_gpus() {
        format!("{:.1} GPU-hours", farm.gpu_hours())
    } else {
        format!("{:.1} core-hours", farm.core_hours())
    };
    facts.push((5, hours));
    let line = |facts: &[(usize, String)]| {
        facts.iter().map(|(_, fact)| fact.as_str()).collect::<Vec<_>>().join(" · ")
    };
    while facts.len() > 1 && line(&facts).chars().count() > columns {
        let leaving = facts.iter().enumerate().max_by_key(|(_, (leaves, _))| *leaves);
        if let Some((index, _)) = leaving {
            facts.remove(index);
        }
    }
    line(&facts)
}

fn title(farm: &FarmFacts, ui: &FarmUi, shown: usize, pages: [usize; 2]) -> String {
    let order = if ui.is_descending { "▼" } else { "▲" };
    let by = COLUMNS[ui.sort % COLUMNS.len()].title(farm);
    let mut facts = vec![counted(shown, "job"), format!("by {by} {order}")];
    facts.extend(ui.state.map(|state| state.name().to_owned()));
    if ui.is_typing || !ui.pattern.is_empty() {
        let typed = if ui.is_typing { "▏" } else { "" };
        facts.push(format!("/{}{typed}/", ui.pattern));
    }
    if pages[1] > 1 {
        facts.push(format!("page {} of {}", pages[0], pages[1]));
    }
    facts.join(" · ")
}

fn draw_table(
    farm: &FarmFacts,
    theme: Theme,
    ui: &mut FarmUi,
    area: Rect,
    buffer: &mut Buffer,
) -> Vec<(Rect, FarmTarget)> {
    let jobs = arranged(farm, ui);
    let room = usize::from(area.height.saturating_sub(3)).max(1);
    ui.rows = room;
    let at = jobs.iter().position(|place| *place == ui.selected).unwrap_or(0);
    let (page, pages) = (at / room, jobs.len().div_ceil(room));
    let inside = framed(theme, &title(farm, ui, jobs.len(), [page + 1, pages]), area, buffer);
    if jobs.is_empty() {
        Line::from("no job passes the filters").render(inside, buffer);
        return Vec::new();
    }
    let shown = fitting(inside.width);
    let mut targets = Vec::new();
    let rows = jobs.iter().skip(page * room).take(room).enumerate().map(|(index, place)| {
        let y = inside.y + 1 + index as u16;
        targets.push((Rect { y, height: 1, ..inside }, FarmTarget::Job(*place)));
        let row = JobRow { farm, job: &farm.jobs[*place], theme };
        let cells = shown.iter().map(|column| Cell::from(COLUMNS[*column].text(&row)));
        let style = if *place == ui.selected { theme.selected() } else { Style::new() };
        Row::new(cells.collect::<Vec<_>>()).style(style)
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let widths: Vec<Constraint> = shown
        .iter()
        .map(|column| match column {
            0 => Constraint::Fill(1),
            other => Constraint::Length(COLUMNS[*other].width),
        })
        .collect();
    let places = Layout::horizontal(widths.clone()).spacing(1).split(Rect { height: 1, ..inside });
    targets
        .extend(shown.iter().zip(places.iter()).map(|(c, place)| (*place, FarmTarget::Column(*c))));
    let heads = shown.iter().map(|column| {
        let style = if *column == ui.sort % COLUMNS.len() { STRONG } else { theme.faint() };
        Cell::from(Span::styled(COLUMNS[*column].title(farm), style))
    });
    Table::new(rows, widths)
        .header(Row::new(heads.collect::<Vec<_>>()))
        .column_spacing(1)
        .render(inside, buffer);
    targets
}

/// What is said of the selected job.
fn draw_said(farm: &FarmFacts, ui: &FarmUi, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let Some(job) = farm.jobs.get(ui.selected) else { return };
    let (is_bad, said) = match &job.problem {
        Some(problem) => (true, problem.as_str()),
        None => (job.report.state == JobState::Failed, job.report.message.as_str()),
    };
    let exit = match job.report.exit_code {
        Some(code) if code != 0 => format!(" · exit code {code}"),
        _ => String::new(),
    };
    let style = if is_bad { theme.alarm() } else { Style::new() };
    let needs = match job.report.state {
        JobState::Waiting | JobState::Blocked if !job.job.needs.is_empty() => {
            format!(" · needs {}", job.job.needs.join(", "))
        }
        _ => String::new(),
    };
    let hosts: Vec<&str> = job.report.hosts.iter().map(|host| host.host.as_str()).collect();
    let on = if hosts.is_empty() { String::new() } else { format!(" · {}", hosts.join(", ")) };
    let name = Span::styled(format!(" {}", job.job.name), STRONG);
    let said = if said.is_empty() { String::new() } else { format!(" · {said}") };
    Line::from(vec![name, Span::styled(format!("{on}{exit}{said}{needs}"), style)])
        .render(area, buffer);
}

fn draw_footer(ui: &FarmUi, theme: Theme, area: Rect, buffer: &mut Buffer) {
    if let Some(notice) = &ui.notice {
        Line::styled(format!(" {notice}"), STRONG).render(area, buffer);
        return;
    }
    if ui.is_typing {
        let text = " type a regular expression · enter keeps it · esc clears it";
        Line::from(text).render(area, buffer);
        return;
    }
    let mut line = Line::default();
    for key in FARM_KEYS.iter().filter(|key| !key.word.is_empty()) {
        let name = Span::styled(format!(" {} ", in_ascii(key.name, theme)), STRONG);
        let word = Span::styled(format!("{}  ", key.word), theme.faint());
        if line.width() + name.width() + word.width() <= usize::from(area.width) + 2 {
            line.extend([name, word]);
        }
    }
    line.render(area, buffer);
}

/// How a key is written: arrows by their names where they would become other keys.
fn in_ascii(name: &'static str, theme: Theme) -> &'static str {
    match name {
        "←" if theme.is_ascii => "left",
        "→" if theme.is_ascii => "right",
        "↑" if theme.is_ascii => "up",
        "↓" if theme.is_ascii => "down",
        name => name,
    }
}

fn draw_question(farm: &FarmFacts, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let lines = vec![
        Line::from(Span::styled(farm.name.clone(), STRONG)),
        Line::from("Ask this farm to stop its jobs and end?"),
        Line::from("y yes · any other key no"),
    ];
    let columns = lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 4;
    let place = area.centered(Constraint::Max(columns), Constraint::Max(lines.len() as u16 + 2));
    Clear.render(place, buffer);
    let inside = framed(theme, "stop", place, buffer);
    Paragraph::new(lines).centered().render(inside, buffer);
}

fn draw_help(theme: Theme, area: Rect, buffer: &mut Buffer) {
    let rows = FARM_KEYS.len() as u16;
    let place = area.centered(Constraint::Max(HELP_COLUMNS), Constraint::Max(rows + 2));
    Clear.render(place, buffer);
    let inside = framed(theme, "keys · any key goes back", place, buffer);
    for (key, y) in FARM_KEYS.iter().zip(inside.y..inside.bottom()) {
        let name = Span::styled(format!(" {:>9}  ", in_ascii(key.name, theme)), STRONG);
        let line = Line::from(vec![name, Span::raw(key.help)]);
        line.render(Rect { y, height: 1, ..inside }, buffer);
    }
}
