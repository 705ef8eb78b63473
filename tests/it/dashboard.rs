//! Recorded runs on screens of several sizes, keys, and logs that nobody would write.

use crate::cli::{complaint, scrimp};
use crate::dashboard_laws::{at, ended, run_started};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui_image::picker::Picker;
use scrimp::error::{Failure, Result};
use scrimp::runlog::directory::{RunDirectory, host};
use scrimp::runlog::{Record, Requested, RunEvent, RunStatus};
use scrimp::watch::state::{Dashboard, Presence};
use scrimp::watch::ui::{Tab, Ui};
use scrimp::watch::{Feed, Message, Screen, Shown, Source, Theme, draw, follow, once, run, text};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

pub(crate) const PLAIN: Theme = Theme { has_colour: false, is_ascii: false };

pub(crate) fn screen_of(theme: Theme) -> Screen {
    Screen { theme, pause: Duration::ZERO, find_picker: Picker::halfblocks }
}

pub(crate) fn recorded(name: &str) -> RunDirectory {
    RunDirectory::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/runs").join(name))
}

pub(crate) fn records(name: &str) -> Vec<Record> {
    Feed::open(recorded(name)).unwrap().read().unwrap()
}

/// Messages that were written down before; ends the loop with a failure if none is left.
pub(crate) struct Script(pub(crate) VecDeque<Message>);

impl Source for Script {
    fn next(&mut self, _wait: Option<Duration>) -> Result<Option<Message>> {
        self.0.pop_front().map(Some).ok_or_else(|| Failure::new("the script is over"))
    }
}

/// A moment soon after the end of the recorded runs.
const NOW_MS: u64 = 1_760_000_260_000;

/// The screen after the recorded run and some keys, from the real loop.
pub(crate) fn screen(name: &str, (columns, rows): (u16, u16), keys: &[KeyCode]) -> String {
    let mut messages = VecDeque::from([
        Message::Records(0, records(name)),
        Message::Present(0, Presence::Writing, NOW_MS),
    ]);
    messages.extend(keys.iter().map(|key| Message::Key(KeyEvent::from(*key))));
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let failure = run(&[recorded(name)], &mut terminal, &mut Script(messages), &screen_of(PLAIN))
        .unwrap_err();
    assert_eq!(failure.message(), "the script is over");
    text(terminal.backend().buffer())
}

#[test]
fn recorded_runs_render_at_every_size() {
    for size in [(80, 24), (120, 40), (40, 10), (60, 40), (200, 60), (30, 5)] {
        let name = format!("dashboard_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name, screen("schema-1", size, &[]));
    }
    insta::assert_snapshot!("dashboard_failed_80x24", screen("failed", (80, 24), &[]));
}

#[test]
fn keys_change_the_screen() {
    let log = screen("schema-1", (80, 24), &[KeyCode::Char('l')]);
    assert!(log.contains("loss, logarithmic"), "{log}");
    insta::assert_snapshot!("dashboard_help", screen("schema-1", (80, 24), &[KeyCode::Char('?')]));
    insta::assert_snapshot!("dashboard_stop", screen("schema-1", (80, 24), &[KeyCode::Char('s')]));
}

#[test]
fn requests_are_written_to_a_run_that_lives_and_quitting_ends_the_loop() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::new(folder.path());
    let watch = |presence| {
        let keys = "sywyq".chars().map(|key| Message::Key(KeyEvent::from(KeyCode::Char(key))));
        let messages = [Message::Present(0, presence, NOW_MS)].into_iter().chain(keys).collect();
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let runs = std::slice::from_ref(&directory);
        run(runs, &mut terminal, &mut Script(messages), &screen_of(PLAIN)).unwrap();
    };
    watch(Presence::Absent);
    assert!(!directory.stop_request().exists());
    watch(Presence::Writing);
    assert!(directory.stop_request().exists() && directory.checkpoint_request().exists());
}

fn shown(dashboard: &Dashboard, theme: Theme) -> Shown<'_> {
    let (presence, now_ms) = (Presence::Writing, Some(NOW_MS));
    let (cases, settings, reading) = (None, None, None);
    Shown { name: "a", dashboard, presence, now_ms, cases, settings, reading, theme }
}

#[test]
fn colours_change_no_character() {
    let mut dashboard = Dashboard::default();
    for record in records("schema-1") {
        dashboard.apply(record);
    }
    let [plain, coloured] = [false, true].map(|has_colour| {
        let theme = Theme { has_colour, is_ascii: false };
        let shown = shown(&dashboard, theme);
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
        let ui = Ui { runs: 1, ..Ui::default() };
        terminal
            .draw(|frame| {
                draw(&[shown], &ui, frame.area(), frame.buffer_mut());
            })
            .unwrap();
        terminal.backend().buffer().clone()
    });
    assert_eq!(text(&plain), text(&coloured));
    assert_ne!(plain, coloured);
    assert!(plain.content.iter().all(|cell| cell.fg == ratatui::style::Color::Reset));
}

#[test]
fn once_prints_a_frame_of_each_run() {
    let output = scrimp(&["watch", "--once", "tests/it/runs/schema-1", "tests/it/runs/failed"]);
    assert_eq!(complaint(&output), "exit code 0\n");
    insta::with_settings!({filters => vec![
        (r" +○ silent for \d+ d", " ○ silent for AGE"),
        (r", \d+ d ago", ", AGE ago"),
    ]}, {
        insta::assert_snapshot!("watch_once", String::from_utf8(output.stdout).unwrap());
    });
}

#[test]
fn without_a_terminal_lines_follow_the_run_to_its_end() {
    for name in ["failed", "schema-1"] {
        let output = scrimp(&["watch", &format!("tests/it/runs/{name}")]);
        assert_eq!(complaint(&output), "exit code 0\n");
        insta::assert_snapshot!(
            format!("follow_{name}"),
            String::from_utf8(output.stdout).unwrap()
        );
    }
}

#[test]
fn following_does_not_wait_once_the_run_has_ended() {
    let mut lines = Vec::new();
    follow(&recorded("failed"), &mut lines, None, || false).unwrap();
    assert!(String::from_utf8(lines).unwrap().contains("ended after step 3"));
}

fn write_log(directory: &RunDirectory, rank: usize, records: &[Record]) {
    std::fs::create_dir_all(directory.events()).unwrap();
    let lines = records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n");
    std::fs::write(directory.rank_events(rank), lines.collect::<String>()).unwrap();
}

/// What is followed while a process writes the run for so many looks, each with something done before.
fn followed(directory: &RunDirectory, looks: &[&dyn Fn()]) -> String {
    let mut lines = Vec::new();
    let seen = std::cell::Cell::new(0);
    let done = || {
        let look = seen.replace(seen.get() + 1);
        if let Some(act) = looks.get(look) {
            act();
        }
        look >= looks.len()
    };
    follow(directory, &mut lines, None, done).unwrap();
    assert_eq!(seen.get(), looks.len() + 1, "ends before the run does");
    String::from_utf8(lines).unwrap()
}

#[test]
fn lines_go_on_after_an_old_end_and_hold_nothing_that_a_terminal_obeys() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::new(folder.path());
    let request = RunEvent::Requested(Requested {
        request: "stop".to_owned(),
        by: "eve\u{1b}]0;owned\u{7}\nended after step 9: done".to_owned(),
        host: String::new(),
    });
    let own =
        [at(1, 0, run_started("a", 2, 9)), at(7, 0, run_started("a", 2, 9)), at(8, 0, request)];
    write_log(&directory, 0, &own);
    write_log(&directory, 1, &[ended(5, 1, RunStatus::Failed)]);
    let said = followed(&directory, &[&|| (), &|| ()]);
    assert!(said.contains("rank 1 ended after step 1: rank 1 says Failed"), "{said}");
    assert!(said.contains("requested by eve?]0;owned? ended"), "{said}");
    assert_eq!(said.lines().count(), 4, "{said}");
    write_log(&directory, 1, &[ended(9, 1, RunStatus::Failed)]);
    let mut lines = Vec::new();
    follow(&directory, &mut lines, None, || false).unwrap();
}

#[test]
fn lines_tell_a_log_that_was_replaced_anew_and_say_that_the_run_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::new(folder.path().join("a"));
    let warning = |text: &str| at(2, 0, RunEvent::Warning { message: text.to_owned() });
    write_log(&directory, 0, &[warning("one"), warning("two")]);
    let cut = || write_log(&directory, 0, &[warning("three")]);
    let remove = || std::fs::remove_dir_all(directory.root()).unwrap();
    let said = followed(&directory, &[&|| (), &cut, &remove]);
    insta::assert_snapshot!(said, @r"
    warning from rank 0: one
    warning from rank 0: two
    note: the log `rank-0000.jsonl` was replaced and is read anew
    warning from rank 0: three
    note: the run directory is gone
    ");
}

#[test]
fn what_is_no_run_is_refused() {
    let missing = scrimp(&["watch", "--once", "tests/it/runs/absent"]);
    let not_a_run = scrimp(&["watch", "tests/it/invalid"]);
    let several = scrimp(&["watch", "tests/it/runs/failed", "tests/it/runs/schema-1"]);
    insta::assert_snapshot!(
        "watch_refusals",
        [missing, not_a_run, several].map(|o| complaint(&o)).join("\n")
    );
}

#[test]
fn a_run_is_alive_while_its_directory_is_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::new(folder.path());
    let claim = directory.claim().unwrap();
    std::fs::write(directory.config(), "").unwrap();
    let frame = || once(&directory, (80, 24), Tab::Overview, false).unwrap();
    assert!(frame().contains("● starting") && !host().is_empty());
    directory.request_stop().unwrap();
    assert!(frame().contains("◐ stopping"));
    drop(claim);
    assert!(frame().contains("○ silent"));
}
