//! The ranks: a table sorted by any column, a heat map where there are many, and a short table.

use super::frame::{Shown, framed};
use super::numbers;
use super::rank::RankState;
use super::targets::{Target, Targets};
use super::theme::STRONG;
use super::ui::Ui;
use super::verdict::straggler;
use crate::words::counted;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table, Widget};

/// One rank, and how many images of a step are its own.
#[derive(Clone, Copy)]
pub(super) struct RankRow<'a> {
    rank: u32,
    state: &'a RankState,
    images: Option<f64>,
}

/// A column of the table.
pub(super) struct Column {
    title: &'static str,
    width: u16,
    /// The value that decides the order; `None` comes last.
    value: fn(&RankRow<'_>) -> Option<f64>,
    text: fn(f64) -> String,
    /// Whether it says something of GPUs only.
    is_of_gpus: bool,
}

const fn column(
    (title, width): (&'static str, u16),
    value: fn(&RankRow<'_>) -> Option<f64>,
    text: fn(f64) -> String,
) -> Column {
    Column { title, width, value, text, is_of_gpus: false }
}

const fn gpu_column(
    head: (&'static str, u16),
    value: fn(&RankRow<'_>) -> Option<f64>,
    text: fn(f64) -> String,
) -> Column {
    Column { is_of_gpus: true, ..column(head, value, text) }
}

fn health(row: &RankRow<'_>, pick: fn(&crate::runlog::Health) -> f64) -> Option<f64> {
    row.state.health.as_ref().map(|(_, health)| pick(health)).filter(|value| value.is_finite())
}

fn bytes(value: f64) -> String {
    numbers::bytes(value as u64)
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn percent(value: f64) -> String {
    numbers::percent(Some(value))
}

/// All columns, in the order of the table.
pub(super) const COLUMNS: &[Column] = &[
    column(("rank", 4), |row| Some(f64::from(row.rank)), whole),
    column(("step ms", 7), |row| health(row, |h| h.step_ms), numbers::milliseconds),
    column(("work", 6), |row| row.state.work_ms(), numbers::milliseconds),
    column(("data", 6), |row| health(row, |h| h.data_wait_ms), numbers::milliseconds),
    column(("waits", 6), |row| health(row, |h| h.communication_ms), numbers::milliseconds),
    column(
        ("img/s", 6),
        |row| row.images.zip(health(row, |h| h.step_ms)).map(|(images, ms)| images / ms * 1e3),
        numbers::value,
    ),
    gpu_column(("GPU", 4), |row| row.state.sampled(|t| t.gpu_percent), percent),
    gpu_column(("SM", 4), |row| row.state.sampled(|t| t.sm_percent), percent),
    gpu_column(("tensor", 6), |row| row.state.sampled(|t| t.tensor_percent), percent),
    gpu_column(
        ("GPU mem", 9),
        |row| row.state.sampled(|t| t.gpu_memory_bytes).map(|bytes| bytes as f64),
        bytes,
    ),
    gpu_column(("watts", 5), |row| row.state.sampled(|t| t.gpu_power_watts), whole),
    gpu_column(("°C", 4), |row| row.state.sampled(|t| t.gpu_temperature_celsius), whole),
    column(("CPU", 5), |row| row.state.sampled(|t| t.cpu_percent), percent),
    column(("memory", 9), memory, bytes),
    column(
        ("net in/s", 9),
        |row| row.state.sampled(|t| t.network_received_bytes_per_second),
        bytes,
    ),
];

/// The place of the column that says how long a rank works.
const WORK: usize = 2;

fn memory(row: &RankRow<'_>) -> Option<f64> {
    let sampled = row.state.sampled(|telemetry| telemetry.memory_bytes);
    let logged = || row.state.health.as_ref().and_then(|(_, health)| health.memory_bytes);
    sampled.or_else(logged).map(|bytes| bytes as f64)
}

fn rows<'a>(run: &Shown<'a>) -> Vec<RankRow<'a>> {
    let started = run.dashboard.started.as_ref().map(|(_, started)| started);
    let images = started.map(|started| started.batch_size as f64 / f64::from(started.ranks.max(1)));
    let ranks = run.dashboard.ranks();
    ranks.map(|(rank, state)| RankRow { rank, state, images }).collect()
}

/// The whole view.
pub(super) fn panel(
    run: &Shown<'_>,
    ui: &Ui,
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let mut rows = rows(run);
    let column = &COLUMNS[ui.ranks.sort % COLUMNS.len()];
    rows.sort_by(|a, b| {
        let [a, b] = [(column.value)(a), (column.value)(b)];
        match (a, b) {
            (Some(a), Some(b)) if ui.ranks.is_descending => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        }
    });
    let arrow = if ui.ranks.is_descending { "▼" } else { "▲" };
    let title = format!("{} · by {} {arrow}", counted(rows.len(), "rank"), column.title);
    let inside = framed(run.theme, &title, area, buffer);
    if rows.is_empty() {
        Line::from("nothing yet").style(run.theme.faint()).render(inside, buffer);
        return;
    }
    let fits = rows.len() < usize::from(inside.height);
    if ui.ranks.is_heat_map == fits {
        // The order of ranks is no heat: work is what a map without a choice shows.
        let column = if ui.ranks.sort == 0 { &COLUMNS[WORK] } else { column };
        heat_map(run, (&rows, column), inside, buffer);
    } else {
        let top = ui.ranks.top.min(rows.len() - 1);
        table(run, (&rows[top..], ui.ranks.sort), inside, buffer, targets);
    }
}

fn table(
    run: &Shown<'_>,
    (rows, sort): (&[RankRow<'_>], usize),
    area: Rect,
    buffer: &mut Buffer,
    targets: &mut Targets,
) {
    let has_gpus = rows.iter().any(|row| row.state.sampled(|t| t.gpu.clone()).is_some());
    let mut columns: Vec<(usize, &Column)> =
        COLUMNS.iter().enumerate().filter(|(_, c)| has_gpus || !c.is_of_gpus).collect();
    let width = |columns: &[(usize, &Column)]| -> u16 {
        columns.iter().map(|(_, column)| column.width + 1).sum()
    };
    // The rightmost columns give way, never the one that is sorted by.
    while width(&columns) > area.width && columns.len() > 1 {
        let last = columns.iter().rposition(|(index, _)| *index != sort).unwrap_or(0);
        columns.remove(last);
    }
    let mut x = area.x;
    for (index, column) in &columns {
        targets.push((Rect::new(x, area.y, column.width, 1), Target::RankColumn(*index)));
        x += column.width + 1;
    }
    let slow = straggler(run.dashboard).map(|(rank, _, _)| rank);
    let mut lines = Vec::new();
    for row in rows.iter().take(usize::from(area.height)) {
        let is_slow = slow == Some(row.rank);
        let style = if is_slow { run.theme.alarm() } else { Style::new() };
        let cells = columns.iter().map(|(index, column)| {
            let text = (column.value)(row).map_or_else(numbers::absent, column.text);
            let text = if *index == 0 && is_slow { format!("▸{text}") } else { text };
            Cell::from(Line::from(text).right_aligned())
        });
        lines.push(Row::new(cells.chain([Cell::from(place(row))])).style(style));
    }
    let titles = columns.iter().map(|(index, column)| {
        let style = if *index == sort { STRONG } else { run.theme.faint() };
        Cell::from(Line::styled(column.title, style).right_aligned())
    });
    let titles = titles.chain([Cell::from(Line::styled("host", run.theme.faint()))]);
    let widths = columns.iter().map(|(_, column)| Constraint::Length(column.width));
    Table::new(lines, widths.chain([Constraint::Min(0)]))
        .column_spacing(1)
        .header(Row::new(titles))
        .render(area, buffer);
}

/// Host and GPU of a rank.
fn place(row: &RankRow<'_>) -> String {
    let host = row.state.sampled(|t| t.host.clone()).unwrap_or_default();
    match row.state.sampled(|t| t.gpu.clone()) {
        Some(gpu) => format!("{host} {gpu}"),
        None => host,
    }
}

/// Two characters for each rank, darker to brighter from the lowest to the highest value.
fn heat_map(
    run: &Shown<'_>,
    (rows, column): (&[RankRow<'_>], &Column),
    area: Rect,
    buffer: &mut Buffer,
) {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.rank);
    let values = rows.iter().filter_map(column.value);
    let [low, high] =
        values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)]);
    let per_line = usize::from(area.width.saturating_sub(6) / 2).max(1);
    let room = usize::from(area.height.saturating_sub(1));
    for (line, ranks) in rows.chunks(per_line).take(room).enumerate() {
        let mut spans = vec![Span::styled(format!("{:>5} ", ranks[0].rank), run.theme.faint())];
        for row in ranks {
            let (sign, style) = match (column.value)(row) {
                Some(value) if high > low => run.theme.heat((value - low) / (high - low)),
                Some(_) => run.theme.heat(0.5),
                None => ('?', run.theme.faint()),
            };
            spans.push(Span::styled(format!("{sign}{sign}"), style));
        }
        let place = Rect { y: area.y + line as u16, height: 1, ..area };
        Line::from(spans).render(place, buffer);
    }
    let text = |value: f64| {
        if value.is_finite() { (column.text)(value) } else { numbers::absent() }
    };
    let scale = format!("{} from {} ░▒▓█ to {}", column.title, text(low), text(high));
    let place = Rect { y: area.bottom().saturating_sub(1), height: area.height.min(1), ..area };
    Line::from(scale).style(run.theme.faint()).render(place, buffer);
}

/// Times of each rank in few columns, with a bar that says at a glance what the numbers say exactly.
pub(super) fn short_table(run: &Shown<'_>, area: Rect, buffer: &mut Buffer) {
    let rows = rows(run);
    if rows.is_empty() {
        Line::from("nothing yet").style(run.theme.faint()).render(area, buffer);
        return;
    }
    let has_memory = area.width >= 44;
    let bar_columns = area.width.saturating_sub(if has_memory { 37 } else { 28 }).min(30);
    let slowest_ms = rows.iter().filter_map(|row| health(row, |h| h.step_ms)).fold(0.0, f64::max);
    let slow = straggler(run.dashboard).map(|(rank, _, _)| rank);
    let room = usize::from(area.height.saturating_sub(1));
    let shown = if rows.len() > room { room.saturating_sub(1) } else { room };
    let mut lines = Vec::new();
    for row in rows.iter().take(shown) {
        let is_slow = slow == Some(row.rank);
        let style = if is_slow { run.theme.alarm() } else { Style::new() };
        let mark = if is_slow { format!("▸{:>3}", row.rank) } else { format!("{:>4}", row.rank) };
        let number = |text| Cell::from(Line::from(text).right_aligned());
        let time = |index: usize| {
            (COLUMNS[index].value)(row).map_or_else(numbers::absent, numbers::milliseconds)
        };
        let mut cells = vec![Cell::from(mark)];
        cells.extend([1, 3, 4].map(|index| number(time(index))));
        cells.push(Cell::from(bar(row, slowest_ms, bar_columns)));
        cells.push(number(memory(row).map_or_else(numbers::absent, bytes)));
        lines.push(Row::new(cells).style(style));
    }
    if shown < rows.len() {
        let more = Cell::from(format!("{} more", rows.len() - shown));
        lines.push(Row::new([Cell::from("   …"), more]));
    }
    let memory_columns = if has_memory { 8 } else { 0 };
    let widths = [4, 7, 6, 6, bar_columns, memory_columns].map(Constraint::Length);
    let titles = ["rank", "step ms", "data", "waits", "", if has_memory { "memory" } else { "" }];
    let titles = titles.map(|title| Line::from(title).right_aligned());
    Table::new(lines, widths)
        .column_spacing(1)
        .header(Row::new(titles).style(run.theme.faint()))
        .render(area, buffer);
}

/// The step of a rank, as wide as the longest step of all ranks: work, data, waiting.
fn bar(row: &RankRow<'_>, longest_ms: f64, columns: u16) -> String {
    let columns_of =
        |ms: Option<f64>| match (ms.unwrap_or(0.0) / longest_ms * f64::from(columns)).round() {
            count if count.is_finite() => count.clamp(0.0, f64::from(columns)) as usize,
            _ => 0,
        };
    let data = columns_of(health(row, |h| h.data_wait_ms));
    let waits = columns_of(health(row, |h| h.communication_ms));
    let works = columns_of(health(row, |h| h.step_ms)).saturating_sub(data + waits);
    "█".repeat(works) + &"▒".repeat(data) + &"░".repeat(waits)
}
