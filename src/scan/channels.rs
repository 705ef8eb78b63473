//! Several files of one patient, each with a modality, as one scan.
//!
//! Knows nothing of names of files and of modalities.

use super::Scan;
use super::alignment::{AxisOrder, FileGrid};
use super::formats::{read, read_grid};
use super::notes::Notes;
use crate::error::{Failure, Result};
use std::path::PathBuf;

/// Puts scans of one grid over each other: the channels of the first come first.
///
/// Refuses scans that do not lie on each other, and none at all.
fn stack(mut scans: Vec<Scan>) -> Result<Scan> {
    let alone = if scans.len() == 1 { scans.pop() } else { None };
    if let Some(scan) = alone {
        return Ok(scan);
    }
    let Some(first) = scans.first() else {
        return Err(Failure::new("there are no scans, expected one for each channel"));
    };
    let (grid, own) = (first.grid.clone(), FileGrid::from(&first.grid));
    for (index, other) in scans.iter().map(|scan| FileGrid::from(&scan.grid)).enumerate() {
        if own.order_of(&other) != Some(AxisOrder::SAME) {
            let difference = own.difference(&other);
            return Err(Failure::new(format!("scan {index} of {} {difference}", scans.len())));
        }
    }
    let mut voxels = Vec::with_capacity(scans.iter().map(|scan| scan.voxels.len()).sum());
    for slice in 0..grid.shape[0] {
        for scan in &scans {
            voxels.extend_from_slice(scan.slice(slice));
        }
    }
    Ok(Scan { grid, channels: scans.iter().map(|scan| scan.channels).sum(), voxels })
}

/// Reads the channels of one scan, each from a file, on the grid of the first.
///
/// Files whose axes are stored in another order or direction are turned. Refuses files that lie elsewhere.
pub fn read_channels(paths: &[PathBuf], notes: &Notes) -> Result<Scan> {
    let [first, others @ ..] = paths else { return stack(Vec::new()) };
    let own = read_grid(first, notes)?;
    let mut scans = vec![read(first, notes)?];
    for path in others {
        let other = read_grid(path, notes)?;
        let Some(order) = own.order_of(&other) else {
            return Err(Failure::new(format!("{} {}", other.name, own.difference(&other)))
                .during(format!("cannot take {} as a channel beside {}", other.name, own.name))
                .hint("resample it onto the grid of the other channel"));
        };
        let scan = read(path, notes)?;
        scans.push(if order == AxisOrder::SAME {
            Scan { grid: own.grid.clone(), ..scan }
        } else {
            let sentence =
                "channels that are stored with other axes than the first were turned to lie on it";
            notes.add(sentence, &other.name);
            turned(&scan, order, &own)
        });
    }
    stack(scans)
}

/// A scan on the grid of another that it lies on in this order.
fn turned(scan: &Scan, order: AxisOrder, onto: &FileGrid) -> Scan {
    let channel = |channel: usize| {
        let pixels = scan.grid.pixels();
        let slices = (0..scan.grid.shape[0])
            .flat_map(|slice| &scan.slice(slice)[channel * pixels..][..pixels]);
        let voxels = order.carry(&slices.copied().collect::<Vec<f32>>(), scan.grid.shape);
        Scan { grid: onto.grid.clone(), channels: 1, voxels }
    };
    let grid = onto.grid.clone();
    let planes: Vec<Scan> = (0..scan.channels).map(channel).collect();
    let slices = (0..grid.shape[0])
        .flat_map(|slice| planes.iter().flat_map(move |plane| plane.slice(slice)));
    Scan { voxels: slices.copied().collect(), channels: scan.channels, grid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Grid;

    fn grey(first: u8, shape: [usize; 3]) -> Scan {
        let voxels = (0..shape.iter().product()).map(|index| f32::from(first + index as u8));
        Scan { grid: Grid::unplaced(shape, None), channels: 1, voxels: voxels.collect() }
    }

    #[test]
    fn channels_alternate_in_every_slice() {
        let stacked = stack(vec![grey(0, [2, 1, 2]), grey(10, [2, 1, 2])]).unwrap();
        assert_eq!((stacked.channels, stacked.grid.shape), (2, [2, 1, 2]));
        assert_eq!(stacked.voxels, [0.0, 1.0, 10.0, 11.0, 2.0, 3.0, 12.0, 13.0]);
        assert_eq!(grey(0, [2, 1, 2]).into_colours().slice(1), [2.0, 3.0, 2.0, 3.0, 2.0, 3.0]);
        let failure = stack(vec![grey(0, [2, 1, 2]), grey(0, [2, 2, 1])]).unwrap_err();
        assert_eq!(
            failure.message(),
            "scan 1 of 2 has shape [2, 2, 1], expected [2, 1, 2] as its image has"
        );
        assert!(stack(Vec::new()).is_err());
    }
}
