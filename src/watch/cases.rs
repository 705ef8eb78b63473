//! Held-out cases: the table of scores, worst first, and pictures of a few.
//!
//! Reads `RUN/scores` and `RUN/previews` when it is told that there is something new; the panel
//! itself draws what was read.

use super::frame::{Shown, framed};
use super::numbers;
use super::picture::{self, Legend};
use super::theme::STRONG;
use super::ui::Ui;
use crate::files;
use crate::runlog::directory::RunDirectory;
use crate::runlog::preview::Preview;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, Widget};
use ratatui_image::protocol::Protocol;
use std::path::PathBuf;

/// The scores of one structure in one case; NaN where undefined.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseRow {
    /// The name of the case.
    pub case: String,
    /// The name of the structure.
    pub structure: String,
    /// In `[0, 1]`.
    pub dice: f64,
    /// 95th percentile of surface distances.
    pub hd95: f64,
    /// Mean surface distance.
    pub asd: f64,
}

/// What is on disk about the held-out cases of an evaluation.
#[derive(Default)]
pub struct CasesShown {
    /// The step after which it was evaluated.
    pub step: u64,
    /// Scores, the worst Dice first, undefined ones before all.
    pub rows: Vec<CaseRow>,
    /// Pictures: which case, and where; the worst first.
    pub pictures: Vec<(String, PathBuf)>,
    /// The picture that was opened last, its place among them, or why it could not be.
    pub opened: Option<(usize, Result<Preview, String>)>,
    /// The slice as the terminal draws it, with what it was made from.
    pub protocol: Option<(picture::Made, Protocol)>,
}

impl std::fmt::Debug for CasesShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CasesShown of step {}", self.step)
    }
}

impl CasesShown {
    /// Reads what there is about the evaluation after `step`. What is missing or no table is empty.
    pub fn read(directory: &RunDirectory, step: u64) -> Self {
        let table = directory.scores().join(format!("step-{step:08}.csv"));
        let mut rows = parse(&files::read_text(&table, files::SMALL_BYTES).unwrap_or_default());
        rows.sort_by(|a, b| {
            let key = |row: &CaseRow| if row.dice.is_nan() { -1.0 } else { row.dice };
            key(a).total_cmp(&key(b))
        });
        let folder = directory.previews().join(format!("step-{step:08}"));
        let entries = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
        let name = |path: &PathBuf| Some(path.file_stem()?.to_str()?.replacen('-', " ", 1));
        let pictures = entries.filter(|path| path.extension().is_some_and(|kind| kind == "png"));
        let mut pictures: Vec<(String, PathBuf)> =
            pictures.filter_map(|path| Some((name(&path)?, path))).collect();
        pictures.sort_by(|a, b| b.cmp(a));
        Self { step, rows, pictures, opened: None, protocol: None }
    }

    /// The opened picture.
    pub fn preview(&self) -> Option<&Preview> {
        self.opened.as_ref().and_then(|(_, preview)| preview.as_ref().ok())
    }

    /// Opens the picture at `index`, unless it is open. One that could not be read is tried again: it
    /// may have been looked at while it was written.
    pub fn open(&mut self, index: usize) {
        let Some(index) = index.checked_rem(self.pictures.len()) else { return };
        let is_open = |(opened, preview): &(usize, Result<Preview, String>)| {
            *opened == index && preview.is_ok()
        };
        if !self.opened.as_ref().is_some_and(is_open) {
            let preview = Preview::read(&self.pictures[index].1);
            self.opened = Some((index, preview.map_err(|failure| failure.message().to_owned())));
        }
    }
}

/// `case,structure,dice,hd95,asd` with empty values where undefined.
fn parse(text: &str) -> Vec<CaseRow> {
    let number = |text: &str| text.parse().unwrap_or(f64::NAN);
    let row = |line: &str| {
        // From the right: only the name of a case may hold a comma.
        let mut fields = line.rsplitn(5, ',');
        let [asd, hd95, dice] = [fields.next()?, fields.next()?, fields.next()?].map(number);
        let (structure, case) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some(CaseRow { case, structure, dice, hd95, asd })
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// Where the table and the picture stand.
pub(super) fn split(area: Rect) -> [Rect; 2] {
    if area.width >= 100 {
        Layout::horizontal([Constraint::Length(58), Constraint::Min(0)]).areas(area)
    } else if area.height >= 16 {
        Layout::vertical([Constraint::Percentage(40), Constraint::Min(0)]).areas(area)
    } else {
        [area, Rect::default()]
    }
}

/// The room for the picture itself, inside frame and legend.
pub(super) fn picture_area(area: Rect) -> Rect {
    let [_, right] = split(area);
    let inside = right.inner(ratatui::layout::Margin::new(1, 1));
    Rect { y: inside.y + 1, height: inside.height.saturating_sub(2), ..inside }
}

/// The whole view.
pub(super) fn panel(run: &Shown<'_>, ui: &Ui, area: Rect, buffer: &mut Buffer) {
    let [left, right] = split(area);
    let Some(cases) = run.cases.filter(|cases| !cases.rows.is_empty()) else {
        let inside = framed(run.theme, "held-out cases", area, buffer);
        let text = "no case is scored yet";
        Line::from(text).style(run.theme.faint()).render(inside, buffer);
        return;
    };
    table(run, (cases, ui.cases.top), left, buffer);
    if right.is_empty() {
        return;
    }
    let slices = cases.preview().map_or(0, Preview::slices);
    let slice = ui.cases.slice.unwrap_or(slices / 2).min(slices.saturating_sub(1));
    let title = match &cases.opened {
        Some((index, Ok(_))) => {
            let (name, _) = &cases.pictures[*index];
            format!("{name} · slice {} of {slices}", slice + 1)
        }
        _ => "picture".to_owned(),
    };
    let inside = framed(run.theme, &title, right, buffer);
    let problem = match &cases.opened {
        Some((_, Err(problem))) => Some(problem.as_str()),
        None => Some("no pictures were written at this step"),
        Some((_, Ok(_))) => None,
    };
    if let Some(problem) = problem {
        Line::from(problem).style(run.theme.faint()).render(inside, buffer);
        return;
    }
    let classes = run.dashboard.started.as_ref().map(|(_, started)| started.classes.as_slice());
    let made = cases.preview().map(|preview| preview.made.iter().map(|(name, _)| name.as_str()));
    let made = made.into_iter().flatten().collect();
    let classes = classes.unwrap_or_default();
    Legend { classes, made, theme: run.theme }.render(inside, buffer);
    picture::render(run, (cases, slice), picture_area(area), buffer);
}

fn table(run: &Shown<'_>, (cases, top): (&CasesShown, usize), area: Rect, buffer: &mut Buffer) {
    let title =
        format!("step {} · {}, worst first", cases.step, numbers::count(cases.rows.len(), "score"));
    let inside = framed(run.theme, &title, area, buffer);
    let number = |value: f64| {
        let text = if value.is_nan() { numbers::absent() } else { numbers::value(value) };
        Cell::from(Line::from(text).right_aligned())
    };
    let rows = cases.rows.iter().skip(top.min(cases.rows.len().saturating_sub(1)));
    let rows = rows.take(usize::from(inside.height)).map(|row| {
        let style = if row.dice < 0.5 { run.theme.alarm() } else { STRONG };
        let dice = number(row.dice).style(style);
        let names = [row.case.clone(), row.structure.clone()].map(Cell::from);
        Row::new(names.into_iter().chain([dice, number(row.hd95), number(row.asd)]))
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    let titles = ["case", "structure", "Dice", "HD95", "ASD"].map(|title| {
        let line = Line::styled(title, run.theme.faint());
        Cell::from(if title.len() == 4 && title != "case" || title == "ASD" {
            line.right_aligned()
        } else {
            line
        })
    });
    Table::new(rows, widths).column_spacing(1).header(Row::new(titles)).render(inside, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_comes_first_and_undefined_scores_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::new(folder.path());
        std::fs::create_dir_all(directory.scores()).unwrap();
        let text = "case,structure,dice,hd95,asd\na,LV,0.9,2,1\nb,x,LV,0.4,20.5,7\nc,RV,,,\nbad\n";
        std::fs::write(directory.scores().join("step-00000007.csv"), text).unwrap();
        let shown = CasesShown::read(&directory, 7);
        let cases: Vec<&str> = shown.rows.iter().map(|row| row.case.as_str()).collect();
        assert_eq!(cases, ["c", "b,x", "a"]);
        assert!(shown.rows[0].dice.is_nan() && shown.rows[1].hd95 > 20.0);
        assert!(CasesShown::read(&directory, 8).rows.is_empty());
    }
}
