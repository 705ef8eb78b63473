//! What 3D Slicer adds to an NRRD header to make a segmentation of it: names, labels, layers and colours.
//!
//! Knows Slicer's keys and what they mean where they are missing. Extents of segments say nothing that the labels
//! do not say, and are not looked at.

use super::fields::Fields;
use crate::error::{Failure, Result};
use crate::limits::SEGMENTS;
use crate::scan::segments::StoredSegment;
use std::collections::BTreeSet;

/// What every key of a segmentation begins with, but for those of its segments.
const SEGMENTATION: &str = "Segmentation_";

/// The segments in the order of their numbers, of which there may be none; nothing if it is no segmentation.
pub(super) fn parse(fields: &Fields) -> Result<Option<Vec<StoredSegment>>> {
    let number = |key: &String| key.strip_prefix("Segment")?.split_once('_')?.0.parse().ok();
    let numbers: BTreeSet<u32> = fields.added.keys().filter_map(number).collect();
    if numbers.is_empty() && !fields.added.keys().any(|key| key.starts_with(SEGMENTATION)) {
        return Ok(None);
    }
    if numbers.len() > SEGMENTS {
        return Err(Failure::new(format!(
            "{} has {} segments, expected at most {SEGMENTS}",
            fields.name,
            numbers.len()
        )));
    }
    let segments = numbers.into_iter().enumerate().map(|(index, number)| {
        let get = |key: &str| fields.added.get(&format!("Segment{number}_{key}"));
        let whole = |key: &str, missing: i64| match get(key) {
            None => Ok(missing),
            Some(value) => value.trim().parse::<i64>().map_err(|_error| {
                Failure::new(format!(
                    "{} has `Segment{number}_{key}:={value}`, expected a whole number",
                    fields.name
                ))
            }),
        };
        // Older files have a layer of zeros and ones for each segment, and do not say so.
        let label = whole("LabelValue", 1)?;
        let missing = if get("LabelValue").is_none() { index as i64 } else { 0 };
        let words = get("Color").map(|value| value.split_whitespace().map(str::parse::<f32>));
        let parts: Option<Vec<f32>> =
            words.and_then(|words| words.map(std::result::Result::ok).collect());
        let colour: Option<[f32; 3]> = parts.and_then(|parts| parts.try_into().ok());
        Ok(StoredSegment {
            name: get("Name")
                .map_or_else(|| format!("Segment {number}"), |name| name.trim().to_owned()),
            colour: colour.filter(|parts| parts.iter().all(|part| (0.0..=1.0).contains(part))),
            layer: usize::try_from(whole("Layer", missing)?).unwrap_or(usize::MAX),
            label,
        })
    });
    segments.collect::<Result<Vec<_>>>().map(Some)
}
