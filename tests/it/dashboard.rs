//! Recorded runs on screens of several sizes, keys, and logs that nobody would write.

use crate::cli::{complaint, scrimp};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use scrimp::error::{Failure, Result};
use scrimp::runlog::directory::{RunDirectory, host};
use scrimp::runlog::{
    Evaluated, Health, Record, RunEvent, RunStarted, RunStatus, Step, StructureScore,
};
use scrimp::watch::state::{Dashboard, Presence};
use scrimp::watch::update::{Overlay, Ui};
use scrimp::watch::{Feed, Message, Shown, Source, Theme, draw, follow, run, text};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

const PLAIN: Theme = Theme { has_colour: false };

fn recorded(name: &str) -> RunDirectory {
    RunDirectory::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/runs").join(name))
}

fn records(name: &str) -> Vec<Record> {
    Feed::open(recorded(name)).unwrap().read().unwrap()
}

/// Messages that were written down before; ends the loop with a failure if none is left.
struct Script(VecDeque<Message>);

impl Source for Script {
    fn next(&mut self) -> Result<Message> {
        self.0.pop_front().ok_or_else(|| Failure::new("the script is over"))
    }
}

/// The screen after the recorded run and some keys, from the real loop.
fn screen(name: &str, (columns, rows): (u16, u16), keys: &[KeyCode]) -> String {
    let mut messages = VecDeque::from([
        Message::Records(0, records(name)),
        Message::Present(0, Presence::Writing),
    ]);
    messages.extend(keys.iter().map(|key| Message::Key(KeyEvent::from(*key))));
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let failure = run(&[recorded(name)], &mut terminal, &mut Script(messages), PLAIN).unwrap_err();
    assert_eq!(failure.message(), "the script is over");
    text(terminal.backend().buffer())
}

#[test]
fn recorded_runs_render_at_every_size() {
    for size in [(80, 24), (120, 40), (40, 10), (60, 40), (30, 5)] {
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
fn stopping_writes_the_request_and_quitting_ends_the_loop() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::new(folder.path());
    let keys = ['s', 'y', 'q'].map(|key| Message::Key(KeyEvent::from(KeyCode::Char(key))));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    run(std::slice::from_ref(&directory), &mut terminal, &mut Script(keys.into()), PLAIN).unwrap();
    assert!(directory.stop_request().exists());
}

#[test]
fn colours_change_no_character() {
    let mut dashboard = Dashboard::default();
    for record in records("schema-1") {
        dashboard.apply(record);
    }
    let [plain, coloured] = [false, true].map(|has_colour| {
        let theme = Theme { has_colour };
        let shown = Shown { name: "a", dashboard: &dashboard, presence: Presence::Writing, theme };
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
        let ui = Ui { runs: 1, ..Ui::default() };
        terminal.draw(|frame| draw(&shown, &ui, frame.area(), frame.buffer_mut())).unwrap();
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
    insta::assert_snapshot!("watch_once", String::from_utf8(output.stdout).unwrap());
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
    follow(&recorded("failed"), &mut lines, || false).unwrap();
    assert!(String::from_utf8(lines).unwrap().contains("ended after step 3"));
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
    let frame = || scrimp::watch::once(&directory, 80, 24).unwrap();
    assert!(frame().contains("● running") && !host().is_empty());
    directory.request_stop().unwrap();
    assert!(frame().contains("◐ stopping"));
    drop(claim);
    assert!(frame().contains("○ silent"));
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![4 => 0.0..1.0, 1 => any::<f64>(), 1 => Just(f64::NAN)]
}

fn step_number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..10_000, 1 => any::<u64>()]
}

fn losses() -> impl Strategy<Value = BTreeMap<String, f64>> {
    prop::collection::btree_map("segmenter/[a-z]{0,3}", number(), 0..4)
}

fn started() -> impl Strategy<Value = RunEvent> {
    ("[a-zü]{0,60}", any::<u32>(), step_number()).prop_map(|(name, ranks, total_steps)| {
        RunEvent::RunStarted(RunStarted {
            schema: 1,
            run: name.clone(),
            method: name.clone(),
            dataset: name,
            classes: Vec::new(),
            fold: ranks,
            annotation: String::new(),
            ranks,
            hosts: Vec::new(),
            batch_size: 1,
            total_steps,
            train_slices: 1,
            seed: 1,
            precision: String::new(),
            device: String::new(),
            code_version: String::new(),
            config_digest: String::new(),
        })
    })
}

fn step() -> impl Strategy<Value = RunEvent> {
    (step_number(), losses(), number()).prop_map(|(step, loss, ms)| {
        let (lr, grad_norm) = (loss.clone(), loss.clone());
        RunEvent::Step(Step {
            step,
            epoch: 1,
            observed: loss.clone(),
            loss,
            lr,
            grad_norm,
            step_ms: ms,
            images_per_second: ms,
        })
    })
}

fn evaluated() -> impl Strategy<Value = RunEvent> {
    (step_number(), prop::collection::vec(("[a-z]{0,9}", number()), 0..5)).prop_map(
        |(step, scores)| {
            let score = |(name, dice)| StructureScore { name, dice, hd95: dice, asd: dice };
            RunEvent::Evaluated(Evaluated {
                step,
                mean_dice: 0.5,
                best_mean_dice: 0.5,
                best_step: step,
                cases: 1,
                seconds: 1.0,
                structures: scores.into_iter().map(score).collect(),
            })
        },
    )
}

fn event() -> impl Strategy<Value = RunEvent> {
    prop_oneof![
        started(),
        step(),
        evaluated(),
        (number(), number()).prop_map(|(step_ms, wait_ms)| RunEvent::Health(Health {
            step: 1,
            step_ms,
            data_wait_ms: wait_ms,
            communication_ms: wait_ms,
            memory_bytes: Some(1),
        })),
        step_number().prop_map(|step| RunEvent::Resumed { step, checkpoint: String::new() }),
        "[ a-zß☃]{0,90}".prop_map(|message| RunEvent::Warning { message }),
        step_number().prop_map(|step| RunEvent::RunEnded {
            status: RunStatus::Stopped,
            step,
            message: String::new(),
        }),
        Just(RunEvent::Unknown),
    ]
}

/// Records of a few ranks, in the order in which each of them wrote.
fn log() -> impl Strategy<Value = Vec<Record>> {
    let record = (any::<u64>(), 0u32..40, event());
    prop::collection::vec(
        record.prop_map(|(time_ms, rank, event)| Record { time_ms, rank, event }),
        0..30,
    )
}

fn fold(records: &[Record]) -> Dashboard {
    let mut dashboard = Dashboard::default();
    for record in records {
        dashboard.apply(record.clone());
    }
    dashboard
}

proptest! {
    #[test]
    fn any_records_at_any_size_draw_without_a_panic(
        records in log(),
        columns in 1u16..130,
        rows in 1u16..50,
        log_scale in any::<bool>(),
        overlay in prop::sample::select(vec![Overlay::None, Overlay::Help, Overlay::StopQuestion]),
    ) {
        let dashboard = fold(&records);
        let shown = Shown { name: "run", dashboard: &dashboard, presence: Presence::Absent, theme: PLAIN };
        let ui = Ui { selected: 0, runs: 2, log_scale, overlay };
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(&shown, &ui, frame.area(), frame.buffer_mut())).unwrap();
    }

    #[test]
    fn reading_a_log_again_changes_nothing(records in log()) {
        let twice = [records.clone(), records.clone()].concat();
        prop_assert_eq!(format!("{:?}", fold(&twice)), format!("{:?}", fold(&records)));
    }

    #[test]
    fn ranks_may_come_in_any_order(records in log()) {
        let mut by_rank = records.clone();
        by_rank.sort_by_key(|record| std::cmp::Reverse(record.rank));
        prop_assert_eq!(format!("{:?}", fold(&by_rank)), format!("{:?}", fold(&records)));
    }
}
