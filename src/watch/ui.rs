//! The state of the screen that is not about a run: which view, which part of it, how; and what it
//! asks of the loop.
//!
//! Changed by `update` alone, read by the panels.

use crate::runlog::Level;

/// What fills the screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tab {
    /// Everything in short.
    #[default]
    Overview,
    /// All curves.
    Charts,
    /// One row for each rank.
    Ranks,
    /// Scores and pictures of held-out cases.
    Cases,
    /// What was said.
    Messages,
    /// All watched runs side by side.
    Compare,
}

impl Tab {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Overview, Self::Charts, Self::Ranks, Self::Cases, Self::Messages, Self::Compare];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Charts => "charts",
            Self::Ranks => "ranks",
            Self::Cases => "cases",
            Self::Messages => "messages",
            Self::Compare => "compare",
        }
    }
}

/// The state of the screen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ui {
    /// How many runs there are, at least 1.
    pub runs: usize,
    /// The run that is shown.
    pub selected: usize,
    /// What fills the screen.
    pub tab: Tab,
    /// What lies on top.
    pub overlay: Overlay,
    /// Which part of the curves is shown, and how.
    pub curves: CurvesUi,
    /// The table of ranks.
    pub ranks: RanksUi,
    /// The held-out cases.
    pub cases: CasesUi,
    /// The messages.
    pub messages: MessagesUi,
    /// The comparison of runs.
    pub compare: CompareUi,
    /// Whether a line is being typed: the pattern of the view.
    pub is_typing: bool,
    /// Time travel; `None` shows the present.
    pub replay: Option<Replay>,
    /// What the last request came to.
    pub notice: Option<String>,
}

/// What lies on top of the panels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The list of keys.
    Help,
    /// The question whether the run is to end.
    StopQuestion,
    /// The question whether the run is to save.
    CheckpointQuestion,
}

/// How curves are drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CurvesUi {
    /// Whether values are on a logarithmic scale.
    pub log_scale: bool,
    /// How much curves are smoothed, an index into [`CurvesUi::HALF_LIVES`].
    pub smoothing: usize,
    /// How many steps are shown; all where this is `None`.
    pub span: Option<u64>,
    /// The last step that is shown; `None` follows the run.
    pub end: Option<u64>,
    /// The step whose values are read off.
    pub cursor: Option<u64>,
    /// The chart that is selected.
    pub selected: usize,
    /// Whether the selected chart fills the view.
    pub is_focused: bool,
    /// Columns of charts; 0 as many as fit.
    pub columns: usize,
}

impl CurvesUi {
    /// Half-lives of smoothing, in logged steps; 0 draws the curve as it is.
    pub const HALF_LIVES: [f64; 6] = [0.0, 2.0, 5.0, 12.0, 30.0, 80.0];

    /// The steps that are shown of a run with steps in `extent`.
    pub fn window(&self, extent: [u64; 2]) -> [u64; 2] {
        let whole = extent[1].saturating_sub(extent[0]).max(1);
        let span = self.span.unwrap_or(whole).clamp(1, whole);
        let end = self.end.unwrap_or(extent[1]).min(extent[1]).max(extent[0].saturating_add(span));
        [end.saturating_sub(span), end]
    }

    /// The half-life of smoothing in logged steps, 0 for none.
    pub fn half_life(&self) -> f64 {
        Self::HALF_LIVES[self.smoothing % Self::HALF_LIVES.len()]
    }
}

/// How ranks are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RanksUi {
    /// The column that decides the order.
    pub sort: usize,
    /// Whether the largest comes first.
    pub is_descending: bool,
    /// The first row that is shown.
    pub top: usize,
    /// Whether a heat map takes the place of the table.
    pub is_heat_map: bool,
}

/// Which case is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CasesUi {
    /// The first row of the table that is shown.
    pub top: usize,
    /// Which of the pictures.
    pub picture: usize,
    /// Which slice of it; `None` the middle one.
    pub slice: Option<usize>,
}

/// Which messages are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagesUi {
    /// Those that matter at least this much.
    pub level: Level,
    /// Those of one rank, or of all.
    pub rank: Option<u32>,
    /// Those that match this regular expression.
    pub pattern: String,
    /// How many of the newest are passed over.
    pub back: usize,
}

impl Default for MessagesUi {
    fn default() -> Self {
        Self { level: Level::Info, rank: None, pattern: String::new(), back: 0 }
    }
}

/// How runs are compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompareUi {
    /// Which curve is drawn of all runs.
    pub metric: usize,
    /// Runs whose name or method contains this.
    pub pattern: String,
}

/// A moment of the past that the screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// Milliseconds since 1970 (UTC).
    pub at_ms: u64,
    /// Whether time goes on.
    pub is_playing: bool,
}

/// What `update` has to know of the run that is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// First and last step.
    pub extent: [u64; 2],
    /// Times of the first and last record, the whole run's also during a replay.
    pub times_ms: [u64; 2],
    /// How many charts there are.
    pub charts: usize,
    /// How many ranks.
    pub ranks: u32,
    /// How many columns the table of ranks has.
    pub rank_columns: usize,
    /// How many rows the list of the view has: cases or messages.
    pub rows: usize,
    /// How many pictures.
    pub pictures: usize,
    /// How many slices the picture has that is shown.
    pub slices: usize,
}

/// What the loop has to do for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Leave the dashboard; runs go on.
    Quit,
    /// Ask the selected run to save and end.
    WriteStop,
    /// Ask the selected run to save and go on.
    WriteCheckpoint,
    /// Show a run as it was at a time, or as it is.
    Travel {
        /// Its position among the watched ones; another one may be selected by now.
        run: usize,
        /// Milliseconds since 1970 (UTC); `None` is the present.
        until_ms: Option<u64>,
    },
}
