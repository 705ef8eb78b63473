//! What each view of the dashboard shows, and how keys change it, from the real loop.

use crate::dashboard::{PLAIN, Script, recorded, records, screen, screen_of};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::preview::{Annotated, MadeSquares, Preview, UNANNOTATED, Values};
use scrimp::runlog::{Health, Level, Record, RunEvent, Telemetry};
use scrimp::watch::state::Presence;
use scrimp::watch::{CasesShown, Feed, Message, Theme, run, text};
use std::collections::VecDeque;
use std::path::Path;

fn letters(keys: &str) -> Vec<KeyCode> {
    keys.chars().map(KeyCode::Char).collect()
}

/// The screen of some runs after their records and some keys.
fn screen_with(
    runs: &[(RunDirectory, Vec<Record>)],
    size: (u16, u16),
    keys: &str,
    theme: Theme,
) -> String {
    screen_of_keys(runs, size, &letters(keys), theme)
}

fn screen_of_keys(
    runs: &[(RunDirectory, Vec<Record>)],
    size: (u16, u16),
    keys: &[KeyCode],
    theme: Theme,
) -> String {
    let mut messages = VecDeque::new();
    for (index, (_, records)) in runs.iter().enumerate() {
        messages.push_back(Message::Records(index, records.clone()));
        messages.push_back(Message::Present(index, Presence::Writing, 1_760_000_260_000));
    }
    messages.extend(keys.iter().map(|key| Message::Key(KeyEvent::from(*key))));
    let directories: Vec<RunDirectory> = runs.iter().map(|(run, _)| run.clone()).collect();
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    run(&directories, &mut terminal, &mut Script(messages), &screen_of(theme)).unwrap_err();
    text(terminal.backend().buffer())
}

#[test]
fn charts_fill_a_grid_or_the_view() {
    insta::assert_snapshot!("charts_120x40", screen("schema-1", (120, 40), &letters("2")));
    insta::assert_snapshot!("charts_80x24", screen("schema-1", (80, 24), &letters("2")));
    let mut focused = letters("2lm");
    focused.insert(1, KeyCode::Enter);
    insta::assert_snapshot!("charts_focus_smooth_log", screen("schema-1", (100, 30), &focused));
}

#[test]
fn a_cursor_reads_values_off_in_every_chart() {
    let mut keys = letters("+<");
    keys.extend([KeyCode::Left, KeyCode::Left, KeyCode::Left]);
    insta::assert_snapshot!("overview_zoomed_with_cursor", screen("schema-1", (100, 24), &keys));
}

/// Records of a few ranks with a GPU each.
fn gpu_records(ranks: u32) -> Vec<Record> {
    let mut records = records("schema-1");
    records.retain(|record| !matches!(record.event, RunEvent::Health(_)));
    for record in &mut records {
        if let RunEvent::RunStarted(started) = &mut record.event {
            started.ranks = ranks;
        }
    }
    for rank in 0..ranks {
        let work = if rank == 5 { 41.0 } else { 30.0 + f64::from(rank % 3) };
        let health = RunEvent::Health(Health {
            step: 6000,
            step_ms: 44.0,
            data_wait_ms: 0.5,
            communication_ms: 44.0 - work,
            memory_bytes: Some(2 << 30),
        });
        let telemetry = RunEvent::Telemetry(Telemetry {
            host: Some(format!("node{}", rank / 4 + 1)),
            gpu: Some("NVIDIA H100".to_owned()),
            gpu_percent: Some(97.0),
            // The driver of the second node gives no such counters.
            sm_percent: (rank < 4).then_some(61.5),
            gpu_memory_bytes: Some(9 << 30),
            gpu_power_watts: Some(480.0 + f64::from(rank)),
            gpu_temperature_celsius: Some(55.0),
            cpu_percent: Some(101.0),
            ..Telemetry::default()
        });
        let time_ms = 1_760_000_200_000;
        records.extend([health, telemetry].map(|event| Record { time_ms, rank, event }));
    }
    records
}

#[test]
fn ranks_are_sorted_and_what_is_not_known_is_not_zero() {
    let run = |ranks| [(recorded("schema-1"), gpu_records(ranks))];
    insta::assert_snapshot!("ranks_120x24", screen_with(&run(8), (120, 24), "3", PLAIN));
    let sorted = screen_with(&run(8), (80, 24), "3o", PLAIN);
    assert!(sorted.contains("by rank ▼"), "{sorted}");
    insta::assert_snapshot!("ranks_heat_map", screen_with(&run(64), (80, 24), "3", PLAIN));
}

/// A run directory with scores and the picture of one case.
fn with_cases(folder: &Path) -> RunDirectory {
    let directory = RunDirectory::new(folder.join("cases"));
    std::fs::create_dir_all(directory.scores()).unwrap();
    let table = "case,structure,dice,hd95,asd\npatient001,RV,0.91,4.2,1.1\npatient001,LV,0.95,2,0.5\n\
                 patient002,RV,0.12,31.5,9.75\npatient002,LV,,,\n";
    std::fs::write(directory.scores().join("step-00006000.csv"), table).unwrap();
    let plane = |value: fn(usize, usize) -> u8| -> Vec<u8> {
        (0..3 * 32 * 32).map(|index| value(index % 32, index / 32 % 32)).collect()
    };
    let preview = Preview {
        size: 32,
        image: plane(|x, _| (x * 8) as u8),
        annotation: plane(|x, y| if y == 16 && (8..24).contains(&x) { 1 } else { UNANNOTATED }),
        annotated: Annotated::Pixels,
        prediction: plane(|x, y| u8::from((8..20).contains(&x) && (8..24).contains(&y))),
        truth: plane(|x, y| u8::from((8..24).contains(&x) && (8..24).contains(&y))),
        made: Vec::new(),
    };
    let pictures = directory.previews().join("step-00006000");
    preview.write(&pictures.join("worst-patient002.png")).unwrap();
    preview.write(&pictures.join("best-patient001.png")).unwrap();
    directory
}

#[test]
fn a_run_with_gpus_says_what_it_does_and_who_asked_for_what() {
    let present = |name: &str, keys: &str| {
        let run = [(recorded(name), records(name))];
        screen_with(&run, (120, 24), keys, PLAIN)
    };
    let overview = present("telemetry", "");
    assert!(overview.contains("● evaluating"), "{overview}");
    insta::assert_snapshot!("telemetry_ranks", present("telemetry", "3"));
    insta::assert_snapshot!("telemetry_messages", present("telemetry", "5"));
}

#[test]
fn cases_stand_worst_first_with_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let run = [(with_cases(folder.path()), records("schema-1"))];
    insta::assert_snapshot!("cases_120x30", screen_with(&run, (120, 30), "4", PLAIN));
    let coloured = Theme { has_colour: true, is_ascii: false };
    let blocks = screen_with(&run, (120, 30), "4", coloured);
    assert!(blocks.contains('▀') && blocks.contains("worst patient002"), "{blocks}");
    let picture = folder.path().join("cases/previews/step-00006000/worst-patient002.png");
    let mut preview = Preview::read(&picture).unwrap();
    let plane: Vec<u8> = preview.image.iter().map(|value| 255 - value).collect();
    // What is mixed is shown as it comes: an image, the classes on it, and a mask.
    let classes = plane.iter().map(|value| if *value < 120 { value / 40 } else { UNANNOTATED });
    let made = |name: &str, values, plane: &[u8]| {
        let (name, plane) = (name.to_owned(), plane.to_vec());
        MadeSquares { name, values, plane }
    };
    preview.made = vec![
        made("mixed", Values::Greys, &plane),
        made("label", Values::Classes, &classes.collect::<Vec<_>>()),
        made("mask", Values::Greys, &plane),
    ];
    preview.write(&picture).unwrap();
    insta::assert_snapshot!("cases_with_made_images", screen_with(&run, (120, 30), "4", PLAIN));
    let damaged = folder.path().join("cases/previews/step-00006000/worst-patient002.png");
    let whole = std::fs::read(&damaged).unwrap();
    std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    let shown = screen_with(&run, (120, 30), "4", PLAIN);
    assert!(shown.contains("cannot read the preview"), "{shown}");
    // One that was being written is read when it is complete.
    let mut cases = CasesShown::read(&run[0].0, 6000);
    cases.open(0);
    assert!(cases.preview().is_none());
    std::fs::write(&damaged, whole).unwrap();
    cases.open(0);
    assert!(cases.preview().is_some());
}

#[test]
fn messages_are_filtered_by_level_rank_and_pattern() {
    let mut records = gpu_records(2);
    let message = |rank, level, text: &str| Record {
        time_ms: 1_760_000_201_000,
        rank,
        event: RunEvent::Log { level, message: text.to_owned() },
    };
    records.extend([
        message(1, Level::Info, "read 12 slices"),
        message(1, Level::Warning, "disk at 97 %"),
        message(0, Level::Debug, "chose bucket 3"),
    ]);
    let run = [(recorded("schema-1"), records)];
    let shown = |keys: &str| screen_with(&run, (80, 24), keys, PLAIN);
    insta::assert_snapshot!("messages_of_rank_1", shown("5aa"));
    let found = shown("5/slices$");
    assert!(found.contains("1 message ") && found.contains("read 12 slices"), "{found}");
    assert!(shown("5/(").contains("no regular expression"));
    assert!(!shown("5").contains("chose bucket") && shown("5vvv").contains("chose bucket"));
}

#[test]
fn runs_are_compared_by_a_curve_their_scores_and_configurations() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, config: &str, records| {
        let directory = RunDirectory::new(folder.path().join(name));
        std::fs::create_dir_all(directory.root()).unwrap();
        std::fs::write(directory.config(), config).unwrap();
        (directory, records)
    };
    let runs = [
        run("first", "[train]\ntotal_steps = 12000\nseed = 1", records("schema-1")),
        run("second", "[train]\ntotal_steps = 12000\nseed = 2", records("failed")),
    ];
    insta::assert_snapshot!("compare_100x30", screen_with(&runs, (100, 30), "6", PLAIN));
    let filtered = screen_with(&runs, (100, 30), "6/second", PLAIN);
    assert!(filtered.contains("1 run ") && !filtered.contains("● first"), "{filtered}");
}

#[test]
fn a_run_is_told_up_to_a_moment() {
    let mut feed = Feed::open(recorded("schema-1")).unwrap();
    let middle_ms = 1_760_000_100_000;
    let before = feed.read_until(middle_ms).unwrap();
    assert!(before.iter().all(|record| record.time_ms <= middle_ms) && !before.is_empty());
    assert!(feed.read_until(middle_ms).unwrap().is_empty());
    let after = feed.read().unwrap();
    assert!(after.iter().all(|record| record.time_ms > middle_ms));
    assert_eq!(before.len() + after.len(), records("schema-1").len());
}

#[test]
fn a_log_that_becomes_another_one_is_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::new(folder.path());
    std::fs::create_dir_all(directory.events()).unwrap();
    let log = directory.rank_events(0);
    let write = |text: &str| {
        let event = RunEvent::Warning { message: text.to_owned() };
        let line = serde_json::to_string(&Record { time_ms: 1, rank: 0, event }).unwrap();
        std::fs::write(&log, line + "\n").unwrap();
    };
    write("the first of all logs");
    // Beside the log lies what is none.
    std::fs::create_dir(directory.events().join("old.jsonl")).unwrap();
    let mut feed = Feed::open(directory.clone()).unwrap();
    let mut look = || {
        let records = feed.read().unwrap().len();
        let said = feed.notices().into_iter().map(|n| format!("{} {}", n.is_void, n.sentence));
        (records, said.collect::<Vec<_>>().join(", "))
    };
    assert_eq!(look(), (1, "false `old.jsonl` is no file and is passed over".to_owned()));
    assert_eq!(look(), (0, String::new()));
    let anew = "true the log `rank-0000.jsonl` was replaced and is read anew".to_owned();
    // Cut in place.
    write("shorter");
    assert_eq!(look(), (1, anew.clone()));
    // Another file of the same name, and as long.
    std::fs::rename(&log, directory.events().join("rank-0000.old")).unwrap();
    write("rotated");
    assert_eq!(look(), (1, anew.clone()));
    std::fs::remove_file(&log).unwrap();
    assert_eq!(look(), (0, "false the log `rank-0000.jsonl` is gone".to_owned()));
    assert_eq!(look(), (0, String::new()));
    std::fs::create_dir(&log).unwrap();
    assert_eq!(look(), (0, String::new()));
    std::fs::remove_dir(&log).unwrap();
    write("back");
    assert_eq!(look(), (1, anew));
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert_eq!(look(), (0, "false the run directory is gone".to_owned()));
    assert_eq!(look(), (0, String::new()));
    assert_eq!(feed.presence(), Presence::Gone);
}

#[test]
fn a_replaced_log_and_a_directory_that_is_gone_are_said_and_asked_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::new(folder.path().join("lost"));
    let key = |letter| Message::Key(KeyEvent::from(KeyCode::Char(letter)));
    let shown = |presence, keys: &str| {
        let mut messages = VecDeque::from([
            Message::Records(0, records("schema-1")),
            Message::Forget(0),
            Message::Records(0, records("failed")[..1].to_vec()),
            Message::Notice(0, "the log was replaced".to_owned()),
            Message::Present(0, presence, 1_760_000_260_000),
        ]);
        messages.extend(keys.chars().map(key));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let runs = std::slice::from_ref(&directory);
        run(runs, &mut terminal, &mut Script(messages), &screen_of(PLAIN)).unwrap_err();
        text(terminal.backend().buffer())
    };
    let replaced = shown(Presence::Writing, "");
    assert!(replaced.contains("lost: the log was replaced"), "{replaced}");
    assert!(replaced.contains("● starting") && !replaced.contains("6000/12000"), "{replaced}");
    let gone = shown(Presence::Gone, "sy");
    assert!(gone.contains("○ directory gone") && gone.contains("nobody to ask"), "{gone}");
    assert!(!directory.root().exists());
}

#[test]
fn keys_have_names_where_there_are_no_arrows() {
    let ascii = Theme { has_colour: false, is_ascii: true };
    let run = [(recorded("schema-1"), records("schema-1"))];
    let shown = screen_with(&run, (80, 24), "3", ascii);
    assert!(shown.contains("right sort") && shown.is_ascii(), "{shown}");
}

#[test]
fn curves_are_named_by_their_ranks() {
    let mut records = gpu_records(4);
    records.retain(|record| record.rank != 1);
    let run = [(recorded("schema-1"), records)];
    let focused = |chart: usize| {
        let mut keys = vec![KeyCode::Char('2'), KeyCode::Enter];
        keys.extend(vec![KeyCode::Down; chart]);
        screen_of_keys(&run, (80, 24), &keys, PLAIN)
    };
    let shown = (0..20).map(focused).find(|shown| shown.contains("work of each rank")).unwrap();
    assert!(
        shown.contains("0 30.00") && shown.contains("2 32.00") && shown.contains("3 30.00"),
        "{shown}"
    );
}

#[test]
fn a_preview_gives_way_to_the_whole_log() {
    let all = records("schema-1");
    let newest = all[all.len() - 3..].to_vec();
    let messages = |is_caught_up: bool| {
        let mut messages = VecDeque::from([
            Message::Preview(0, newest.clone(), 0.25),
            Message::Records(0, all.clone()),
        ]);
        messages.extend(is_caught_up.then_some(Message::CaughtUp(0)));
        messages
    };
    let shown = |messages| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let runs = [recorded("schema-1")];
        run(&runs, &mut terminal, &mut Script(messages), &screen_of(PLAIN)).unwrap_err();
        text(terminal.backend().buffer())
    };
    assert!(shown(messages(false)).contains("reading 25%"));
    assert!(shown(messages(true)).contains("acdc scribble"));
}
