//! The dashboard of a farm: its table at several sizes, keys, the run behind a row, and what other programs get.

use crate::cli::{complaint, scrimp};
use crate::dashboard::{PLAIN, Script, recorded, records, screen_of};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use scrimp::error::{Failure, Result};
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::farm::{
    FORMAT, FarmDirectory, FarmJob, JobKind, JobList, JobReport, JobState, Slots,
};
use scrimp::watch::farm::{FarmFacts, FarmFeed, FarmMessage, FarmSource, run};
use scrimp::watch::state::Presence;
use scrimp::watch::{Message, Source, Theme, text};
use serde_json::json;
use std::collections::VecDeque;
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

const NOW_MS: u64 = 1_760_000_260_000;

fn job(name: &str, kind: JobKind, needs: &[&str]) -> FarmJob {
    let is_training = kind == JobKind::Train;
    FarmJob {
        name: name.to_owned(),
        row: name.split("-fold").next().unwrap().to_owned(),
        kind,
        fold: None,
        seed: None,
        run: is_training.then(|| format!("jobs/{name}")),
        needs: needs.iter().map(ToString::to_string).collect(),
        ranks: 4,
        gpus: 0.0,
        total_steps: is_training.then_some(6000),
    }
}

fn report(state: JobState, attempts: u32, busy_minutes: u64, message: &str) -> JobReport {
    JobReport {
        state,
        attempts,
        started_at_ms: (attempts > 0).then_some(NOW_MS - 120_000),
        exit_code: matches!(state, JobState::Failed | JobState::Done)
            .then(|| i32::from(state == JobState::Failed)),
        busy_ms: busy_minutes * 60_000,
        message: message.to_owned(),
        ..JobReport::waiting()
    }
}

/// The log of a run up to a step, and the last score in it.
fn write_log(run: &RunDirectory, step: u64, dice: f64) {
    fs::create_dir_all(run.events()).unwrap();
    let line = |step: u64| {
        let time_ms = NOW_MS - 100_000 + 10 * step;
        format!(
            "{{\"time_ms\":{time_ms},\"rank\":0,\"event\":\"step\",\"step\":{step},\"epoch\":1,\"loss\":{{}},\
             \"lr\":{{}},\"grad_norm\":{{}},\"step_ms\":1.0,\"images_per_second\":1.0}}\n"
        )
    };
    let scores = format!(
        "{{\"time_ms\":1,\"rank\":0,\"event\":\"evaluated\",\"step\":{step},\"mean_dice\":{dice},\
         \"best_mean_dice\":{},\"best_step\":1,\"cases\":1,\"seconds\":1.0,\"structures\":[]}}\n",
        dice + 0.01
    );
    fs::write(run.rank_events(0), [line(step - 10), scores, line(step)].concat()).unwrap();
}

/// A farm of eight jobs, in all states.
fn farm(folder: &TempDir) -> FarmDirectory {
    let farm = FarmDirectory::new(folder.path().join("acdc"));
    fs::create_dir(farm.root()).unwrap();
    let train = JobKind::Train;
    let jobs = vec![
        job("labels", JobKind::Command, &[]),
        job("partial-ce-fold1", train, &["labels"]),
        job("partial-ce-fold2", train, &["labels"]),
        job("dmpls-fold1", train, &["labels"]),
        job("dmpls-fold2", train, &["labels"]),
        job("ustm-fold1", train, &["labels"]),
        job("ustm-fold2", train, &["ustm-fold1"]),
        job("cyclemix-fold1", train, &["labels"]),
    ];
    let slots = Slots { processes: 8, gpus: 0 };
    let name = "acdc".to_owned();
    farm.write_jobs(&JobList { format: FORMAT, name, slots, jobs }).unwrap();
    for (name, report) in [
        ("labels", report(JobState::Done, 1, 3, "")),
        ("partial-ce-fold1", report(JobState::Done, 2, 90, "all steps are done")),
        ("partial-ce-fold2", report(JobState::Running, 1, 0, "")),
        ("dmpls-fold1", report(JobState::Running, 2, 30, "")),
        ("ustm-fold1", report(JobState::Failed, 3, 12, "rank 1 was lost")),
        ("ustm-fold2", report(JobState::Blocked, 0, 0, "`ustm-fold1` has failed")),
        ("cyclemix-fold1", report(JobState::Stopped, 1, 5, "stopped before the time limit")),
    ] {
        farm.write_report(name, &report).unwrap();
    }
    for (name, step, dice) in [
        ("partial-ce-fold1", 6000, 0.8712),
        ("partial-ce-fold2", 1500, 0.61),
        ("dmpls-fold1", 4200, 0.84),
        ("ustm-fold1", 400, 0.2),
        ("cyclemix-fold1", 700, 0.55),
    ] {
        write_log(&farm.run(name), step, dice);
    }
    farm
}

/// What is known of the farm, at a moment of its logs while somebody runs it.
fn facts(farm: &FarmDirectory) -> FarmFacts {
    let facts = FarmFeed::open(farm.clone()).unwrap().facts().clone();
    FarmFacts { now_ms: NOW_MS, is_running: true, ..facts }
}

/// Messages that were written down before, of the farm and of the run that is opened.
struct FarmScript {
    messages: VecDeque<FarmMessage>,
    of_run: Vec<Message>,
    opened: Option<RunDirectory>,
}

impl FarmSource for FarmScript {
    fn next(&mut self, _wait: Option<Duration>) -> Result<Option<FarmMessage>> {
        self.messages.pop_front().map(Some).ok_or_else(|| Failure::new("the script is over"))
    }

    fn of_run(&mut self, run: &RunDirectory) -> Result<Box<dyn Source>> {
        self.opened = Some(run.clone());
        Ok(Box::new(Script(self.of_run.drain(..).collect())))
    }
}

fn key(code: KeyCode) -> FarmMessage {
    FarmMessage::Key(KeyEvent::from(code))
}

/// The screen after these messages, and the run that was opened.
fn screen_after(
    farm: &FarmDirectory,
    (columns, rows): (u16, u16),
    messages: Vec<FarmMessage>,
    of_run: Vec<Message>,
) -> (String, Option<RunDirectory>) {
    let first = FarmMessage::Facts(Box::new(facts(farm)));
    let messages = std::iter::once(first).chain(messages).collect();
    let mut script = FarmScript { messages, of_run, opened: None };
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let failure = run(farm, &mut terminal, &mut script, &screen_of(PLAIN)).unwrap_err();
    assert_eq!(failure.message(), "the script is over");
    (text(terminal.backend().buffer()), script.opened)
}

fn screen(farm: &FarmDirectory, size: (u16, u16), keys: &[KeyCode]) -> String {
    screen_after(farm, size, keys.iter().copied().map(key).collect(), Vec::new()).0
}

fn letters(keys: &str) -> Vec<KeyCode> {
    keys.chars().map(KeyCode::Char).collect()
}

#[test]
fn a_farm_renders_at_every_size() {
    let folder = TempDir::new().unwrap();
    let farm = farm(&folder);
    for size in [(120, 20), (80, 24), (40, 10), (30, 5)] {
        let name = format!("farm_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name, screen(&farm, size, &[]));
    }
}

/// The names in the first column of the table.
fn names(screen: &str) -> Vec<&str> {
    let rows = screen.lines().filter_map(|line| line.strip_prefix('│'));
    rows.skip(1)
        .filter_map(|row| row.split_whitespace().next())
        .filter(|word| *word != "│")
        .collect()
}

#[test]
fn jobs_are_sorted_and_filtered_by_keys_and_by_the_mouse() {
    let folder = TempDir::new().unwrap();
    let farm = farm(&folder);
    let size = (120, 20);
    let sorted = screen(&farm, size, &[vec![KeyCode::Right; 4], letters("o")].concat());
    assert!(sorted.contains("8 jobs · by Dice ▼"), "{sorted}");
    // What has no score comes last in either order.
    let by_dice =
        ["partial-ce-fold1", "dmpls-fold1", "partial-ce-fold2", "cyclemix-fold1", "ustm-fold1"];
    assert_eq!(names(&sorted)[..5], by_dice);
    let sorted = screen(&farm, size, &[KeyCode::Right; 4]);
    assert_eq!(names(&sorted)[..2], ["ustm-fold1", "cyclemix-fold1"]);
    let by_state = screen(&farm, size, &[KeyCode::Right]);
    assert_eq!(names(&by_state)[..3], ["ustm-fold1", "ustm-fold2", "cyclemix-fold1"]);
    let failed = screen(&farm, size, &letters("ff"));
    assert!(failed.contains("1 job · by job ▲ · failed"), "{failed}");
    assert_eq!(names(&failed), ["ustm-fold1"]);
    // The selected job is one that is shown, with what it says.
    assert!(failed.contains(" ustm-fold1 · exit code 1 · rank 1 was lost"), "{failed}");
    let typed = [letters("/fold2"), vec![KeyCode::Enter]].concat();
    assert_eq!(names(&screen(&farm, size, &typed)).len(), 3);
    let none = screen(&farm, size, &letters("/nothing like it"));
    assert!(none.contains("no job passes the filters"), "{none}");
    let at = |column, row| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        FarmMessage::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
    };
    let heads = screen(&farm, size, &[]);
    let head = heads.lines().position(|line| line.contains("tries")).unwrap();
    let line = heads.lines().nth(head).unwrap();
    let column = line[..line.find("core-h").unwrap()].chars().count();
    let (clicked, _) = screen_after(&farm, size, vec![at(column as u16, head as u16)], Vec::new());
    assert!(clicked.contains("by core-h ▲"), "{clicked}");
}

#[test]
fn a_page_follows_the_selected_job() {
    let folder = TempDir::new().unwrap();
    let farm = farm(&folder);
    let last = screen(&farm, (80, 12), &[KeyCode::End]);
    assert!(last.contains("page 3 of 3") || last.contains("page 2 of 2"), "{last}");
    assert!(last.contains("cyclemix-fold1"), "{last}");
    let first = screen(&farm, (80, 12), &[KeyCode::End, KeyCode::Home]);
    assert!(first.contains("page 1 of") && first.contains("labels"), "{first}");
}

#[test]
fn enter_shows_the_run_of_a_job_and_q_comes_back() {
    let folder = TempDir::new().unwrap();
    let farm = farm(&folder);
    let of_run = || {
        vec![
            Message::Records(0, records("schema-1")),
            Message::Present(0, Presence::Writing, NOW_MS),
        ]
    };
    let open = || vec![key(KeyCode::Down), key(KeyCode::Down), key(KeyCode::Enter)];
    let (inside, opened) = screen_after(&farm, (100, 24), open(), of_run());
    assert_eq!(opened, Some(farm.run("partial-ce-fold2")));
    assert!(inside.contains("q goes back to the farm, from `partial-ce-fold2`"), "{inside}");
    assert!(inside.starts_with("partial-ce-fold2  "), "{inside}");
    let leave = Message::Key(KeyEvent::from(KeyCode::Char('q')));
    let (back, _) = screen_after(&farm, (100, 24), open(), [of_run(), vec![leave]].concat());
    assert!(back.contains("8 jobs · by job"), "{back}");
    // A command has no run, and neither has a job that waits.
    let (command, opened) = screen_after(&farm, (100, 24), vec![key(KeyCode::Enter)], Vec::new());
    assert!(opened.is_none() && command.contains("`labels` is a command"), "{command}");
    let waiting = [vec![KeyCode::Down; 4], vec![KeyCode::Enter]].concat();
    let waiting = screen(&farm, (100, 24), &waiting);
    assert!(waiting.contains("`dmpls-fold2` has no run yet"), "{waiting}");
}

#[test]
fn help_and_the_question_lie_on_top_and_a_farm_that_lives_is_asked_to_stop() {
    let folder = TempDir::new().unwrap();
    let farm = farm(&folder);
    insta::assert_snapshot!("farm_help", screen(&farm, (80, 24), &letters("?")));
    insta::assert_snapshot!("farm_stop", screen(&farm, (80, 24), &letters("s")));
    let stop = farm.as_run().stop_request();
    fs::create_dir_all(farm.as_run().control()).unwrap();
    screen(&farm, (80, 24), &letters("sn"));
    assert!(!stop.exists());
    let asked = screen(&farm, (80, 24), &letters("sy"));
    assert!(stop.exists() && asked.contains("asked the farm to stop"), "{asked}");
}

#[test]
fn what_changes_is_read_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let farm = farm(&folder);
    let mut feed = FarmFeed::open(farm.clone()).unwrap();
    assert!(!feed.look().unwrap());
    let state = |feed: &FarmFeed, at: usize| feed.facts().jobs[at].report.state;
    assert_eq!((state(&feed, 4), feed.facts().is_running), (JobState::Waiting, false));
    farm.write_report("dmpls-fold2", &report(JobState::Running, 1, 0, "")).unwrap();
    write_log(&farm.run("dmpls-fold2"), 20, 0.5);
    assert!(feed.look().unwrap() && !feed.look().unwrap());
    assert_eq!((state(&feed, 4), feed.facts().jobs[4].course.step), (JobState::Running, 20));
    fs::write(farm.state("dmpls-fold2"), "{").unwrap();
    assert!(feed.look().unwrap());
    let job = &feed.facts().jobs[4];
    assert!(job.problem.as_ref().unwrap().contains("dmpls-fold2"), "{job:?}");
    assert_eq!(job.report.state, JobState::Running);
    let claim = farm.as_run().claim().unwrap();
    assert!(feed.look().unwrap() && feed.facts().is_running);
    farm.as_run().request_stop().unwrap();
    assert!(feed.look().unwrap() && feed.facts().is_stopping);
    drop(claim);
    // Another list is another farm; one that cannot be read leaves the old one.
    let mut list = farm.read_jobs().unwrap();
    list.jobs.truncate(2);
    farm.write_jobs(&list).unwrap();
    assert!(feed.look().unwrap() && feed.facts().jobs.len() == 2);
    fs::write(farm.jobs(), "{").unwrap();
    assert!(feed.look().is_err() && feed.facts().jobs.len() == 2);
}

#[test]
fn a_farm_is_told_as_a_frame_as_lines_and_as_json() {
    let folder = TempDir::new().unwrap();
    let farm = farm(&folder);
    let path = farm.root().to_str().unwrap();
    let frame = scrimp(&["watch", "--once", "--size", "100x16", "--ascii", path]);
    assert_eq!(complaint(&frame), "exit code 0\n");
    insta::assert_snapshot!("farm_once", String::from_utf8(frame.stdout).unwrap());
    // Nobody runs it, so that there is nothing to wait for.
    let lines = scrimp(&["watch", "--plain", path]);
    assert_eq!(complaint(&lines), "exit code 0\n");
    let lines = String::from_utf8(lines.stdout).unwrap();
    assert!(lines.starts_with("2 done · 2 running · 1 failed · 1 waiting · 1 blocked · 1 stopped"));
    let output = scrimp(&["watch", "--json", path]);
    assert_eq!(complaint(&output), "exit code 0\n");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["name"], &told["jobs_in_all"]), (&"acdc".into(), &8.into()));
    assert_eq!(told["jobs_by_state"]["running"], 2);
    let job = &told["jobs"][1];
    assert_eq!((&job["state"], &job["mean_dice"]), (&"done".into(), &0.8712.into()));
    assert_eq!((job["step"].as_u64(), job["attempts"].as_u64()), (Some(6000), Some(2)));
    assert_eq!(job["core_hours"].as_f64(), Some(6.0));
    assert_eq!((&job["needs"], &job["hosts"]), (&json!(["labels"]), &json!([])));
    assert_eq!(
        (&job["ranks"], &job["gpus"], &job["ended_at_ms"]),
        (&json!(4), &json!(0.0), &json!(null))
    );
    let both = scrimp(&["watch", "--once", path, recorded("failed").root().to_str().unwrap()]);
    let said = complaint(&both);
    assert!(said.contains("exit code 2") && said.contains("is a farm, which is watched by itself"));
}

#[test]
fn colours_and_letters_of_others_change_no_row() {
    let folder = TempDir::new().unwrap();
    let farm = farm(&folder);
    let message = "\u{1b}[2Jgone\u{202e}";
    farm.write_report("ustm-fold1", &report(JobState::Failed, 1, 1, message)).unwrap();
    let theme = Theme { has_colour: true, is_ascii: true };
    let facts = FarmMessage::Facts(Box::new(facts(&farm)));
    let messages = [vec![facts], letters("ff").into_iter().map(key).collect()].concat();
    let mut script = FarmScript { messages: messages.into(), of_run: Vec::new(), opened: None };
    let mut terminal = Terminal::new(TestBackend::new(80, 12)).unwrap();
    run(&farm, &mut terminal, &mut script, &screen_of(theme)).unwrap_err();
    let shown = text(terminal.backend().buffer());
    assert!(shown.is_ascii() && shown.contains("gone") && !shown.contains('\u{1b}'), "{shown}");
}
