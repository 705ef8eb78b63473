//! The state of the farm's screen that is not about the farm: which jobs, in which order, and what lies on top.
//!
//! Changed by keys alone, read by what draws.

use crate::runlog::farm::JobState;

/// The state of the farm's screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FarmUi {
    /// The selected job, by its place in the list.
    pub selected: usize,
    /// The column that decides the order.
    pub sort: usize,
    /// Whether the largest comes first.
    pub is_descending: bool,
    /// Jobs in this state alone; none: all.
    pub state: Option<JobState>,
    /// Jobs whose name, row or message match this regular expression.
    pub pattern: String,
    /// Whether the pattern is being typed.
    pub is_typing: bool,
    /// What lies on top.
    pub overlay: FarmOverlay,
    /// What the last request came to.
    pub notice: Option<String>,
    /// How many rows of the table fitted when it was drawn last.
    pub rows: usize,
}

/// What lies on top of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FarmOverlay {
    /// Nothing.
    #[default]
    None,
    /// The list of keys.
    Help,
    /// The question whether the farm is to stop.
    StopQuestion,
}

/// What the loop has to do for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FarmRequest {
    /// Leave the dashboard; the farm goes on.
    Quit,
    /// Show the run of the selected job.
    Open,
    /// Ask the farm to stop.
    WriteStop,
}

/// What lies at a place of the screen, for the mouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FarmTarget {
    /// The row of a job, by its place in the list.
    Job(usize),
    /// The head of a column.
    Column(usize),
}
