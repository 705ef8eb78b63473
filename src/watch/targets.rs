//! Areas of the screen that mean something to the mouse: panels say them, `update` looks them up.
//!
//! Knows neither what a panel shows nor what a click does.

use super::ui::Tab;
use ratatui::layout::Rect;

/// What lies at a place of the screen, for the mouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The name of a view.
    Tab(Tab),
    /// The plot of a chart: its number, and the steps from its left to its right edge.
    Plot(usize, [u64; 2]),
    /// The head of a column of the ranks.
    RankColumn(usize),
    /// The row of a run.
    Run(usize),
}

/// Places that mean something to the mouse.
pub type Targets = Vec<(Rect, Target)>;
