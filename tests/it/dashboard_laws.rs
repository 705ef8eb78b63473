//! Whatever a log holds, in whatever order its pieces come: no panic, and the same state.

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyEvent;
use scrimp::runlog::{
    Evaluated, Health, Level, Phase, Record, Requested, RunEvent, RunStarted, RunStatus, Step,
    StructureScore, Telemetry,
};
use scrimp::watch::state::{Dashboard, Presence};
use scrimp::watch::ui::{Known, Overlay, Tab, Ui};
use scrimp::watch::update::{KEYS, update};
use scrimp::watch::{Shown, Theme, draw, harmless};
use std::collections::BTreeMap;

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
    ("[a-zü]{0,60}", prop_oneof![any::<u32>(), 0u32..40], step_number())
        .prop_map(|(name, ranks, total_steps)| run_started(&name, ranks, total_steps))
}

/// A start of so many ranks.
pub(crate) fn run_started(name: &str, ranks: u32, total_steps: u64) -> RunEvent {
    RunEvent::RunStarted(RunStarted {
        schema: 1,
        run: name.to_owned(),
        method: name.to_owned(),
        dataset: name.to_owned(),
        data_digest: String::new(),
        classes: Vec::new(),
        fold: 1,
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
            let score = |(name, dice)| StructureScore {
                name,
                dice,
                hd95: dice,
                asd: dice,
                unit: None,
                undefined: None,
                cases: None,
            };
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
        "[ a-zß☃\u{1b}\u{9b}\u{202e}\n\r]{0,90}".prop_map(|message| RunEvent::Warning { message }),
        step_number().prop_map(|step| RunEvent::RunEnded {
            status: RunStatus::Stopped,
            step,
            message: String::new(),
        }),
        (number(), any::<u64>()).prop_map(|(percent, bytes)| RunEvent::Telemetry(Telemetry {
            host: Some("node1".to_owned()),
            cpu_percent: Some(percent),
            memory_bytes: Some(bytes),
            gpu: Some("GPU".to_owned()),
            gpu_percent: Some(percent),
            network_received_bytes_per_second: Some(percent),
            ..Telemetry::default()
        })),
        (
            step_number(),
            prop::sample::select(vec![Phase::Evaluating, Phase::Saving, Phase::Unknown])
        )
            .prop_map(|(step, phase)| RunEvent::Phase { step, phase }),
        "[a-z(]{0,9}".prop_map(|message| RunEvent::Log { level: Level::Debug, message }),
        "[a-z]{0,9}".prop_map(|by| RunEvent::Requested(Requested {
            request: "stop".to_owned(),
            by,
            host: String::new(),
        })),
        (step_number(), any::<u64>()).prop_map(|(step, bytes)| RunEvent::CheckpointSaved {
            step,
            path: String::new(),
            bytes,
            seconds: 1.0,
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

pub(crate) fn at(time_ms: u64, rank: u32, event: RunEvent) -> Record {
    Record { time_ms, rank, event }
}

pub(crate) fn ended(time_ms: u64, rank: u32, status: RunStatus) -> Record {
    let message = format!("rank {rank} says {status:?}");
    at(time_ms, rank, RunEvent::RunEnded { status, step: 1, message })
}

/// Health of a rank that works so long.
fn worked(time_ms: u64, rank: u32, step_ms: f64) -> Record {
    let health = Health {
        step: 1,
        step_ms,
        data_wait_ms: 0.0,
        communication_ms: 0.0,
        memory_bytes: Some(1),
    };
    at(time_ms, rank, RunEvent::Health(health))
}

#[test]
fn what_any_rank_said_last_is_the_end_until_the_run_is_started_again() {
    let start = |time_ms| at(time_ms, 0, run_started("a", 2, 9));
    let [finished, failed] = [RunStatus::Finished, RunStatus::Failed];
    let known = |records: &[Record]| {
        let mut turned = records.to_vec();
        // As if the files had been read in another order.
        turned.sort_by_key(|record| std::cmp::Reverse(record.rank));
        assert_eq!(fold(&turned).ended(), fold(records).ended());
        fold(records).ended()
    };
    assert_eq!(known(&[start(1), ended(5, 1, failed)]), Some(failed));
    assert_eq!(known(&[start(1), start(7), ended(5, 1, failed)]), None);
    let all = [start(1), ended(4, 0, failed), start(7), ended(9, 0, finished), ended(5, 1, failed)];
    assert_eq!(known(&all), Some(finished));
    assert_eq!(known(&[start(1), ended(8, 0, finished), ended(9, 1, failed)]), Some(failed));
    // Rank 0 is known by the order in its file, whatever its clock did.
    assert_eq!(known(&[start(10), ended(20, 0, failed), start(15)]), None);
}

#[test]
fn ranks_of_an_earlier_start_with_more_of_them_are_left_out() {
    let start = |time_ms, ranks| at(time_ms, 0, run_started("a", ranks, 9));
    let mut records = vec![start(1, 4), start(5, 2), worked(6, 0, 9.0)];
    records.extend([worked(6, 1, 10.0), worked(2, 2, 1.0), worked(2, 3, 99.0)]);
    let dashboard = fold(&records);
    assert_eq!(dashboard.ranks().map(|(rank, _)| rank).collect::<Vec<_>>(), [0, 1]);
    let verdict = scrimp::watch::verdict::verdict(&dashboard).unwrap();
    assert_eq!(verdict.words, "one slow rank");
    assert!(verdict.evidence.starts_with("rank 1 works 10.0 ms"), "{}", verdict.evidence);
    records.push(start(9, 4));
    assert_eq!(fold(&records).ranks().count(), 4);
}

proptest! {
    #[test]
    fn any_records_at_any_size_draw_without_a_panic(
        records in log(),
        columns in 1u16..130,
        rows in 1u16..50,
        tab in prop::sample::select(Tab::ALL.to_vec()),
        overlay in prop::sample::select(vec![Overlay::None, Overlay::Help, Overlay::StopQuestion]),
        keys in prop::collection::vec(0..KEYS.len(), 0..20),
        (has_colour, is_ascii) in any::<(bool, bool)>(),
    ) {
        let dashboard = fold(&records);
        let theme = Theme { has_colour, is_ascii };
        let (presence, now_ms) = (Presence::Absent, Some(1));
        let (cases, settings, reading) = (None, None, None);
        let shown =
            Shown { name: "run", dashboard: &dashboard, presence, now_ms, cases, settings, reading, theme };
        let mut ui = Ui { runs: 2, tab, ..Ui::default() };
        let known = Known {
            extent: dashboard.extent(),
            times_ms: dashboard.times_ms.unwrap_or_default(),
            charts: 9,
            ranks: dashboard.ranks().count() as u32,
            rank_columns: 13,
            rows: 3,
            pictures: 0,
            slices: 0,
        };
        for key in keys {
            update(&mut ui, KeyEvent::from(KEYS[key].key), &known);
        }
        ui.overlay = overlay;
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        let draw = |frame: &mut ratatui::Frame<'_>| {
            draw(&[shown, shown], &ui, frame.area(), frame.buffer_mut());
        };
        terminal.draw(draw).unwrap();
        let cells = &terminal.backend().buffer().content;
        prop_assert!(cells.iter().all(|cell| harmless(cell.symbol()) == cell.symbol()));
        if is_ascii {
            let cells = &terminal.backend().buffer().content;
            prop_assert!(cells.iter().all(|cell| cell.symbol().is_ascii()));
        }
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
