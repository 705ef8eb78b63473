//! A run on the screen: what is known about it, and what was read from its directory.

use super::cases::picture_area;
use super::feed::Feed;
use super::frame::Shown;
use super::plain::harmless;
use super::scored::CasesShown;
use super::settings::{Settings, settings};
use super::state::{Dashboard, Presence};
use super::theme::Theme;
use super::ui::{Known, Tab, Ui};
use super::{charts, messages, picture, ranks};
use crate::error::Result;
use crate::files;
use crate::runlog::directory::RunDirectory;
use crate::runlog::preview::Preview;
use crate::runlog::{Record, now_ms};
use ratatui::layout::Rect;
use ratatui_image::picker::Picker;

/// A run on the screen.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) directory: RunDirectory,
    name: String,
    settings: Settings,
    dashboard: Dashboard,
    /// What the newest records say, while the log is still being read; and how much of it is.
    preview: Option<(Dashboard, f64)>,
    presence: Presence,
    now_ms: Option<u64>,
    cases: CasesShown,
    /// Times of the first and last record of the whole log, also while an earlier time is shown.
    times_ms: [u64; 2],
}

impl Watched {
    pub(super) fn new(directory: &RunDirectory) -> Self {
        // `runs/a` and `runs/a/.` are called `a`; what has no last name is called as it was typed.
        let root = directory.root();
        let name = root.file_name().unwrap_or(root.as_os_str());
        let config = files::read_text(&directory.config(), files::SMALL_BYTES).unwrap_or_default();
        Self {
            directory: directory.clone(),
            name: name.to_string_lossy().into_owned(),
            settings: settings(&config),
            dashboard: Dashboard::default(),
            preview: None,
            presence: Presence::default(),
            now_ms: None,
            cases: CasesShown::default(),
            times_ms: [0, 0],
        }
    }

    /// All that its log says by now.
    pub(super) fn read(feed: &mut Feed, directory: &RunDirectory) -> Result<Self> {
        let mut watched = Self::new(directory);
        watched.present(feed.presence(), now_ms());
        loop {
            let records = feed.read()?;
            for notice in feed.notices() {
                tracing::warn!("{}", harmless(&notice.sentence));
                if notice.is_void {
                    watched.forget();
                }
            }
            if records.is_empty() {
                return Ok(watched);
            }
            watched.apply(records);
        }
    }

    fn known_dashboard(&self) -> &Dashboard {
        self.preview.as_ref().map_or(&self.dashboard, |(dashboard, _)| dashboard)
    }

    pub(super) fn shown(&self, theme: Theme) -> Shown<'_> {
        Shown {
            name: &self.name,
            dashboard: self.known_dashboard(),
            presence: self.presence,
            now_ms: self.now_ms,
            cases: Some(&self.cases),
            settings: Some(&self.settings),
            reading: self.preview.as_ref().map(|(_, share)| *share),
            theme,
        }
    }

    /// What the run is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a process is writing the run.
    pub(super) fn presence(&self) -> Presence {
        self.presence
    }

    pub(super) fn apply(&mut self, records: Vec<Record>) {
        for record in records {
            self.dashboard.apply(record);
        }
        if self.preview.is_none() {
            self.look_around();
        }
    }

    pub(super) fn preview(&mut self, records: Vec<Record>, share: f64) {
        let (dashboard, read) = self.preview.get_or_insert_default();
        *read = share;
        for record in records {
            dashboard.apply(record);
        }
        self.look_around();
    }

    pub(super) fn caught_up(&mut self) {
        self.preview = None;
        self.look_around();
    }

    pub(super) fn forget(&mut self) {
        self.dashboard = Dashboard::default();
        self.preview = None;
        self.cases = CasesShown::default();
    }

    /// Takes note of times, and of scores of an evaluation that was not seen before.
    fn look_around(&mut self) {
        let dashboard = self.known_dashboard();
        let evaluated = dashboard.evaluated.as_ref().map(|scores| scores.step);
        if let Some([first, last]) = dashboard.times_ms {
            let known = if self.times_ms == [0, 0] { [first, last] } else { self.times_ms };
            self.times_ms = [known[0].min(first), known[1].max(last)];
        }
        if let Some(step) = evaluated
            && (self.cases.step != step || self.cases.rows.is_empty())
        {
            self.cases = CasesShown::read(&self.directory, step);
        }
    }

    /// Whether this changes what is shown.
    pub(super) fn present(&mut self, presence: Presence, now_ms: u64) -> bool {
        // Ages are shown by the second where something may still come.
        let is_over = self.known_dashboard().ended().is_some();
        let is_new = self.presence != presence
            || (!is_over && self.now_ms.is_none_or(|before| before / 1000 != now_ms / 1000));
        self.presence = presence;
        self.now_ms = Some(now_ms);
        is_new
    }

    pub(super) fn known(&self, ui: &Ui, theme: Theme) -> Known {
        let dashboard = self.known_dashboard();
        let rows = match ui.tab {
            Tab::Cases => self.cases.rows.len(),
            Tab::Messages => messages::count(&self.shown(theme), ui),
            _ => 0,
        };
        Known {
            extent: dashboard.extent(),
            times_ms: self.times_ms,
            charts: charts::all(dashboard).len(),
            ranks: dashboard.ranks().count() as u32,
            rank_columns: ranks::COLUMNS.len(),
            rows,
            pictures: self.cases.pictures.len(),
            slices: self.cases.preview().map_or(0, Preview::slices),
        }
    }

    /// Makes the picture that the view of cases shows.
    pub(super) fn open_picture(&mut self, ui: &Ui, area: Rect, picker: &Picker) {
        self.cases.open(ui.cases.picture);
        let slices = self.cases.preview().map_or(0, Preview::slices);
        let slice = ui.cases.slice.unwrap_or(slices / 2).min(slices.saturating_sub(1));
        picture::prepare(&mut self.cases, slice, picture_area(area), picker);
    }
}
