//! What the names of channels mean for their intensities, as nnU-Net has it, and how channels are called here.
//!
//! Follows `preprocessing/normalization` of `MIC-DKFZ/nnUNet` at 2.8. Knows names and scans; no files.

use super::description::Description;
use crate::preparation::{Intensities, Over, Scaling};
use crate::scan::Scan;

/// Below which share of its voxels, the median of all scans, a box around everything that is not 0 has the z-score taken
/// within it.
const MASKED_SHARE: f64 = 0.75;

/// What nnU-Net does to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// Cut and scored by numbers of the foreground of the whole data set.
    Foreground,
    Nothing,
    /// From the smallest to the largest intensity.
    Rescaled,
    /// By 255.
    EightBit,
    ZScore,
}

/// Names that say nothing of what a channel shows.
const SCHEMES: [(&str, Scheme); 4] = [
    ("nonorm", Scheme::Nothing),
    ("zscore", Scheme::ZScore),
    ("rescale_to_0_1", Scheme::Rescaled),
    ("rgb_to_0_1", Scheme::EightBit),
];

impl Scheme {
    fn of(name: &str) -> Self {
        let name = name.to_lowercase();
        let known = SCHEMES.iter().find(|(scheme, _)| *scheme == name).map(|&(_, scheme)| scheme);
        known.unwrap_or(if name == "ct" { Self::Foreground } else { Self::ZScore })
    }
}

/// Whether some channel is scored by each scan itself, so that [`kept_share`] of all scans decides over which voxels.
pub(super) fn needs_shares(description: &Description) -> bool {
    description.channels.iter().any(|name| Scheme::of(name) == Scheme::ZScore)
}

/// The share of a scan's voxels within the smallest box outside of which every channel is 0.
pub(super) fn kept_share(scan: &Scan) -> f64 {
    let [slices, rows, columns] = scan.grid.shape;
    let mut bounds: Option<[[usize; 2]; 3]> = None;
    for (line, values) in scan.voxels.chunks_exact(columns.max(1)).enumerate() {
        let is_there = |value: &f32| value.abs() > 0.0;
        let Some(first) = values.iter().position(is_there) else { continue };
        let last = values.iter().rposition(is_there).unwrap_or(first);
        let (plane, row) = (line / rows, line % rows);
        let found = [[plane / scan.channels; 2], [row; 2], [first, last]];
        let known = bounds.unwrap_or(found);
        bounds =
            Some([0, 1, 2].map(|axis| {
                [known[axis][0].min(found[axis][0]), known[axis][1].max(found[axis][1])]
            }));
    }
    let kept: usize =
        bounds.map_or(0, |bounds| bounds.iter().map(|[first, last]| last - first + 1).product());
    kept as f64 / (slices * rows * columns).max(1) as f64
}

/// How each channel is scaled, and why in a sentence; `shares` are those of the scans to train on, see [`kept_share`].
pub(super) fn scaling(description: &Description, shares: &[f64]) -> (Vec<Scaling>, Vec<String>) {
    let share = median(shares);
    let over = if share < MASKED_SHARE { Over::Nonzero } else { Over::All };
    let of = |name: &String| {
        match Scheme::of(name) {
        Scheme::Foreground => (
            Scaling::ByForeground,
            "cut at the shares 0.005 and 0.995 of the annotated foreground of all cases, then scored by its mean and \
             deviation"
                .to_owned(),
        ),
        Scheme::Nothing => (Scaling::By(Intensities::AsStored), "as stored".to_owned()),
        Scheme::Rescaled => (
            Scaling::By(Intensities::Robust),
            "scaled to 0 to 1 between the shares 0.005 and 0.99 of each scan, where nnU-Net takes its smallest and largest \
             intensity"
                .to_owned(),
        ),
        Scheme::EightBit => (Scaling::By(Intensities::EightBit), "divided by 255".to_owned()),
        Scheme::ZScore => {
            let voxels = if over == Over::All { "all voxels" } else { "the voxels that are not 0" };
            let why = format!(
                "scored by mean and deviation of {voxels} of each scan: the box of what is not 0 has {:.0} % of the \
                 median scan, and below {:.0} % only that would count",
                100.0 * share,
                100.0 * MASKED_SHARE
            );
            (Scaling::By(Intensities::ZScore { over }), why)
        }
    }
    };
    let said = |name: &String| {
        let (scaling, why) = of(name);
        (scaling, format!("Channel `{name}` is {why}."))
    };
    description.channels.iter().map(said).unzip()
}

/// The middle one, or the mean of the two in the middle; 1 of none.
fn median(shares: &[f64]) -> f64 {
    let mut sorted = shares.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    match count {
        0 => 1.0,
        _ => f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
    }
}

/// What the channels are called: as `scrimp export` wrote it down, the colours where `is_picture`, as
/// nnU-Net calls them, or by their numbers where that says nothing of what they show.
pub(super) fn names(description: &Description, is_picture: bool) -> Vec<String> {
    if let Some(shown) = &description.shown {
        return shown.clone();
    }
    let channels = &description.channels;
    if is_picture && channels.len() == 3 {
        return ["red", "green", "blue"].map(String::from).to_vec();
    }
    let says_nothing = |name: &String| {
        let is_scheme = SCHEMES.iter().any(|(scheme, _)| *scheme == name.to_lowercase());
        is_scheme || name.is_empty() || channels.iter().filter(|other| *other == name).count() > 1
    };
    let name = |(number, name): (usize, &String)| match says_nothing(name) {
        true if channels.len() == 1 => "image".to_owned(),
        true => format!("{number:04}"),
        false => name.clone(),
    };
    channels.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Grid;

    fn described(channels: &[&str]) -> Description {
        Description {
            path: "dataset.json".into(),
            name: None,
            channels: channels.iter().map(|name| (*name).to_owned()).collect(),
            shown: None,
            classes: Vec::new(),
            ignore: None,
            training_count: 1,
            ending: ".nii.gz",
            listed: None,
        }
    }

    #[test]
    fn names_say_how_intensities_are_scaled() {
        let all = described(&["CT", "noNorm", "zscore", "rescale_to_0_1", "rgb_to_0_1", "MRI"]);
        let by = Scaling::By;
        let z_score = |over| by(Intensities::ZScore { over });
        let expected = |over| {
            let eight_bit = by(Intensities::EightBit);
            let as_stored = by(Intensities::AsStored);
            let robust = by(Intensities::Robust);
            vec![Scaling::ByForeground, as_stored, z_score(over), robust, eight_bit, z_score(over)]
        };
        let (found, words) = scaling(&all, &[0.2, 0.9, 0.8]);
        assert_eq!(found, expected(Over::All));
        assert_eq!(
            words[5],
            "Channel `MRI` is scored by mean and deviation of all voxels of each scan: the box of what is not 0 has 80 % \
             of the median scan, and below 75 % only that would count."
        );
        // Of two the mean.
        assert_eq!(scaling(&all, &[0.5, 0.9]).0, expected(Over::Nonzero));
        assert!(needs_shares(&all) && !needs_shares(&described(&["ct", "NoNorm"])));
    }

    #[test]
    fn channels_are_called_by_what_they_show() {
        let called = |names: &[&str]| super::names(&described(names), false);
        assert_eq!(called(&["T1", "noNorm"]), ["T1", "0001"]);
        assert_eq!(called(&["T1", "T1"]), ["0000", "0001"]);
        assert_eq!(called(&["zScore"]), ["image"]);
        assert_eq!(names(&described(&["R", "G", "B"]), true), ["red", "green", "blue"]);
        let shown = Some(vec!["pet".to_owned()]);
        assert_eq!(names(&Description { shown, ..described(&["noNorm"]) }, false), ["pet"]);
    }

    #[test]
    fn the_box_is_that_of_all_channels() {
        let grid = Grid::unplaced([2, 3, 4], None);
        let mut scan = Scan { grid, channels: 2, voxels: vec![0.0; 48] };
        assert!(kept_share(&scan).abs() < 1e-12);
        // Slice 0, channel 1, row 1, column 1; slice 1, channel 0, row 2, column 3.
        scan.voxels[12 + 5] = -1.0;
        scan.voxels[24 + 11] = 2.0;
        assert!((kept_share(&scan) - 12.0 / 24.0).abs() < 1e-12);
    }
}
