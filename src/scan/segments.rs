//! Structures that somebody drew and named, and how they become one number for each voxel.
//!
//! Knows names, colours and layers; not how files say so.

use crate::error::{Failure, Result};
use std::collections::BTreeMap;

/// What stands for a segment that shares its label with another one, above any label that means something.
const UNSHARED: i64 = 1 << 40;

/// A structure that somebody drew and named.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// What it is called.
    pub name: String,
    /// The number of its voxels in [`Numbers`](super::Numbers): its label in the file, unless another segment in
    /// another layer has the same.
    pub value: i64,
    /// Red, green and blue, each in `[0, 1]`.
    pub colour: Option<[f32; 3]>,
}

/// A segment as a file has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredSegment {
    pub(super) name: String,
    pub(super) colour: Option<[f32; 3]>,
    /// In which layer it lies, counted from 0.
    pub(super) layer: usize,
    /// The number of its voxels there.
    pub(super) label: i64,
}

/// One number for each voxel, of several that lie over each other.
pub(super) struct Flattened {
    pub(super) segments: Vec<Segment>,
    /// The number of a segment, or 0 where there is none.
    pub(super) values: Vec<f64>,
    /// Voxels that several segments share; the last of these has them.
    pub(super) shared: usize,
}

/// Lays the layers of `[layers, voxels]` over each other. Where segments share a voxel, the last of them has it, as
/// where Slicer exports label maps. `name` is what the file is called.
///
/// Refuses labels that no segment has.
pub(super) fn flatten(
    stored: &[StoredSegment],
    layers: &[Vec<f64>],
    name: &str,
) -> Result<Flattened> {
    let is_shared = |label: i64| stored.iter().filter(|other| other.label == label).count() > 1;
    let segments = stored.iter().enumerate().map(|(index, segment)| Segment {
        name: segment.name.clone(),
        value: if is_shared(segment.label) { UNSHARED + index as i64 } else { segment.label },
        colour: segment.colour,
    });
    let segments: Vec<Segment> = segments.collect();
    let voxels = layers.first().map_or(0, Vec::len);
    // Segments are counted from 1 here, so that the largest number is the last of them.
    let (mut last, mut shared) = (vec![0u32; voxels], vec![false; voxels]);
    for (layer, numbers) in layers.iter().enumerate() {
        let own = stored.iter().enumerate().filter(|(_, segment)| segment.layer == layer);
        let own: BTreeMap<i64, u32> =
            own.map(|(index, segment)| (segment.label, index as u32 + 1)).collect();
        for (voxel, &number) in numbers.iter().enumerate() {
            if number == 0.0 {
                continue;
            }
            let segment = own.get(&(number as i64)).filter(|_| number.fract() == 0.0);
            let Some(&segment) = segment else {
                return Err(Failure::new(format!(
                    "{name} holds label {number} in layer {layer}, which is that of no segment"
                ))
                .hint("save the segmentation again with the program that it comes from"));
            };
            shared[voxel] |= last[voxel] > 0;
            last[voxel] = last[voxel].max(segment);
        }
    }
    let value = |&segment: &u32| match segment.checked_sub(1) {
        Some(index) => segments[index as usize].value as f64,
        None => 0.0,
    };
    let values = last.iter().map(value).collect();
    let shared = shared.iter().filter(|&&is_shared| is_shared).count();
    Ok(Flattened { segments, values, shared })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(layer: usize, label: i64) -> StoredSegment {
        StoredSegment { name: format!("{layer}-{label}"), colour: None, layer, label }
    }

    #[test]
    fn the_last_segment_has_what_several_share() {
        let segments = [stored(0, 1), stored(1, 2), stored(0, 3)];
        let layers = [vec![1.0, 1.0, 3.0, 0.0], vec![0.0, 2.0, 2.0, 2.0]];
        let flat = flatten(&segments, &layers, "`a`").unwrap();
        assert_eq!((flat.values, flat.shared), (vec![1.0, 2.0, 3.0, 2.0], 2));
        let failure = flatten(&segments, &[vec![2.0]], "`a`").err().unwrap();
        assert_eq!(failure.message(), "`a` holds label 2 in layer 0, which is that of no segment");
        assert!(flatten(&segments, &[vec![0.5]], "`a`").is_err());
    }

    #[test]
    fn segments_with_one_label_in_two_layers_are_told_apart() {
        let flat = flatten(&[stored(0, 1), stored(1, 1)], &[vec![1.0, 0.0], vec![0.0, 1.0]], "`a`")
            .unwrap();
        assert_eq!(flat.values, [UNSHARED as f64, (UNSHARED + 1) as f64]);
        assert_eq!(flat.segments[1].value, UNSHARED + 1);
    }
}
