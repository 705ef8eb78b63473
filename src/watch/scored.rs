//! What a run directory holds about its held-out cases: scores, and pictures of a few.
//!
//! Reads `RUN/scores` and `RUN/previews` when it is told that there is something new, and does not know
//! how they are drawn.

use crate::files;
use crate::runlog::directory::RunDirectory;
use crate::runlog::preview::Preview;
use crate::runlog::scores::{CaseRow, from_csv};
use ratatui_image::protocol::Protocol;
use std::path::PathBuf;

/// What a drawn slice was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    pub(super) picture: usize,
    pub(super) slice: usize,
    pub(super) size: (u16, u16),
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
    pub protocol: Option<(Made, Protocol)>,
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
        let mut rows = from_csv(&files::read_text(&table, files::SMALL_BYTES).unwrap_or_default());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_comes_first_and_undefined_scores_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::new(folder.path());
        std::fs::create_dir_all(directory.scores()).unwrap();
        let text =
            "case,structure,dice,hd95,asd\na,LV,0.9,2,1\n\"b,x\",LV,0.4,20.5,7\nc,RV,,,\nbad\n";
        std::fs::write(directory.scores().join("step-00000007.csv"), text).unwrap();
        let shown = CasesShown::read(&directory, 7);
        let cases: Vec<&str> = shown.rows.iter().map(|row| row.case.as_str()).collect();
        assert_eq!(cases, ["c", "b,x", "a"]);
        assert!(shown.rows[0].dice.is_nan() && shown.rows[1].hd95 > 20.0);
        assert!(CasesShown::read(&directory, 8).rows.is_empty());
    }
}
