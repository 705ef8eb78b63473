//! Runs as files of other programs: tables, and TensorBoard's event files byte by byte.

use crate::cli::{complaint, scrimp};
use crate::dashboard_laws::{at, run_started};
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::preview::{Annotated, Preview, UNANNOTATED};
use scrimp::runlog::{Evaluated, Health, RunEvent, StructureScore};
use std::path::Path;

fn export(format: &str, into: &Path) -> String {
    let (said, complaint) = export_of("tests/it/runs/schema-1", format, into);
    assert_eq!(complaint, "exit code 0\n");
    said
}

/// What is said on stdout, then the exit code with what stands on stderr.
fn export_of(run: &str, format: &str, into: &Path) -> (String, String) {
    let into = into.to_str().unwrap();
    let output = scrimp(&["export", run, "--to", format, "--into", into]);
    let said = String::from_utf8(output.stdout.clone()).unwrap().replace(into, "DIR");
    (said, complaint(&output))
}

#[test]
fn tables_have_a_row_for_each_record_and_nothing_for_what_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let said = export("csv", folder.path());
    let head = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        format!("{name}, {} lines\n{}\n", lines.len(), lines[..3].join("\n"))
    };
    let tables = ["steps.csv", "scores.csv", "health.csv"].map(head);
    insta::assert_snapshot!("export_csv", format!("{said}\n{}", tables.concat()));
}

/// The bytes of each record, after their length and checksums were found right.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let (mut rest, mut records) = (&bytes[..], Vec::new());
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(word(&rest[8..12]), masked(&rest[..8]));
        let record = rest[12..12 + length].to_vec();
        assert_eq!(word(&rest[12 + length..16 + length]), masked(&record));
        records.push(record);
        rest = &rest[16 + length..];
    }
    records
}

/// CRC-32C bit by bit, masked.
fn masked(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[test]
fn event_files_are_framed_as_tensorboard_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let said = export("tensorboard", folder.path());
    insta::assert_snapshot!("export_tensorboard", said);
    let own = records(&folder.path().join("events.out.tfevents.0.scrimp"));
    assert_eq!(own[0], b"\x1a\x0dbrain.Event:2");
    // Steps and evaluations of the recorded run, and the head.
    assert_eq!(own.len(), 1 + 60 + 12);
    // Time as a double, the step, a summary whose first value is tagged.
    let first = &own[1];
    assert_eq!(first[..9], [[9].as_slice(), &1_760_000_005.3f64.to_le_bytes()].concat());
    assert_eq!(first[9..11], [16, 100]);
    let text = String::from_utf8_lossy(first);
    assert!(text.contains("loss/segmenter/partial_ce") && text.contains("speed/step_ms"));
    let value = 1.13089f32.to_le_bytes();
    assert!(first.windows(4).any(|bytes| bytes == value));
    assert!(folder.path().join("rank-0002/events.out.tfevents.0.scrimp").exists());
}

fn health(time_ms: u64, rank: u32, step: u64) -> scrimp::runlog::Record {
    let health =
        Health { step, step_ms: 1.0, data_wait_ms: 0.0, communication_ms: 0.0, memory_bytes: None };
    at(time_ms, rank, RunEvent::Health(health))
}

/// A run of two ranks that trains 30 steps, goes on from step 20 with one rank, and has a picture that
/// was not written to its end.
fn resumed_run(folder: &Path) {
    let directory = RunDirectory::new(folder);
    std::fs::create_dir_all(directory.events()).unwrap();
    let scores = |time_ms, step| {
        let name = "LV\u{1b}[2J".to_owned();
        let structures = vec![StructureScore {
            name,
            dice: 0.5,
            hd95: 1.0,
            asd: 1.0,
            undefined: None,
            cases: None,
            unit: None,
        }];
        let event = RunEvent::Evaluated(Evaluated {
            step,
            mean_dice: 0.5,
            best_mean_dice: 0.5,
            best_step: 20,
            cases: 1,
            seconds: 1.0,
            structures,
        });
        at(time_ms, 0, event)
    };
    let resumed =
        RunEvent::Resumed { step: 20, checkpoint: "checkpoints/step-00000020".to_owned() };
    let own = [
        at(1, 0, run_started("a", 2, 40)),
        health(10, 0, 10),
        health(20, 0, 20),
        scores(21, 20),
        health(30, 0, 30),
        scores(31, 30),
        at(40, 0, run_started("a", 1, 40)),
        at(41, 0, resumed),
        health(50, 0, 30),
    ];
    let other = [health(10, 1, 10), health(20, 1, 20), health(30, 1, 30)];
    for (rank, records) in [own.as_slice(), &other].into_iter().enumerate() {
        let lines = records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n");
        std::fs::write(directory.rank_events(rank), lines.collect::<String>()).unwrap();
    }
    std::fs::create_dir(directory.events().join("old.jsonl")).unwrap();
    let plane = |value: u8| vec![value; 32 * 32];
    let preview = Preview {
        size: 32,
        image: plane(100),
        annotation: plane(UNANNOTATED),
        annotated: Annotated::Pixels,
        prediction: plane(0),
        truth: plane(1),
        made: Vec::new(),
    };
    let pictures = directory.previews().join("step-00000020");
    preview.write(&pictures.join("best-a.png")).unwrap();
    let whole = std::fs::read(pictures.join("best-a.png")).unwrap();
    std::fs::write(pictures.join("worst-b.png"), &whole[..whole.len() / 2]).unwrap();
}

#[test]
fn steps_that_were_undone_are_marked_in_tables_and_left_out_of_event_files() {
    let folder = tempfile::tempdir().unwrap();
    let [run, tables, events] = ["run", "tables", "events"].map(|name| folder.path().join(name));
    resumed_run(&run);
    let run = run.to_str().unwrap();
    let (_, complaint) = export_of(run, "csv", &tables);
    assert!(complaint.contains("old.jsonl` is no file and is left out"), "{complaint}");
    let table = std::fs::read_to_string(tables.join("health.csv")).unwrap();
    let rows = table.lines().map(|row| row.split(',').collect::<Vec<_>>());
    let rows: Vec<String> =
        rows.map(|row| format!("{} {} {}", row[1], row[2], row[row.len() - 1])).collect();
    insta::assert_snapshot!(rows.join("\n"), @r"
    rank step undone
    0 10 false
    0 20 false
    0 30 true
    0 30 false
    1 10 false
    1 20 false
    1 30 true
    ");
    let scores = std::fs::read_to_string(tables.join("scores.csv")).unwrap();
    assert!(scores.lines().nth(1).unwrap().ends_with("false"), "{scores}");
    assert!(
        scores.contains("LV?[2J") && scores.lines().nth(2).unwrap().ends_with("true"),
        "{scores}"
    );

    let (_, complaint) = export_of(run, "tensorboard", &events);
    assert!(complaint.starts_with("exit code 0"), "{complaint}");
    assert!(complaint.contains("worst-b.png") && complaint.contains("left out"), "{complaint}");
    let name = "events.out.tfevents.0.scrimp";
    // The head, the evaluation after step 20, and its picture that is whole.
    let own = records(&events.join(name));
    assert_eq!(own.len(), 3);
    let own = own.iter().map(|record| String::from_utf8_lossy(record)).collect::<String>();
    assert!(own.contains("dice/LV?[2J") && own.contains("previews/best"), "{own}");
    assert!(!own.contains("previews/worst"));
    assert_eq!(records(&events.join("rank-0000").join(name)).len(), 1 + 3);
    assert_eq!(records(&events.join("rank-0001").join(name)).len(), 1 + 2);
}
