//! Runs as files of other programs: tables, and TensorBoard's event files byte by byte.

use crate::cli::{complaint, scrimp};
use std::path::Path;

fn export(format: &str, into: &Path) -> String {
    let into = into.to_str().unwrap();
    let output = scrimp(&["export", "tests/it/runs/schema-1", "--to", format, "--into", into]);
    assert_eq!(complaint(&output), "exit code 0\n");
    String::from_utf8(output.stdout).unwrap().replace(into, "DIR")
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
