//! Where patches lie: around annotated voxels, or anywhere in what an image shows, as a function of a key.
//!
//! Where annotation is sparse, a patch anywhere would mostly show nothing to learn from; centres are drawn as
//! nnU-Net draws them beside an ignore label. Knows labels and shapes, of intensities whether they are 0, and no steps.

use super::item::Item;
use super::{Case, Dataset, IGNORE};
use crate::random::Key;
use crate::scan::Scan;
use std::borrow::Cow;

/// Voxels of one class of one case that are kept, drawn evenly from all: 256 KiB.
const KEPT_VOXELS: usize = 1 << 16;

/// The patches of an epoch: so many of each case that has annotated voxels.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// Slices, rows, columns of each.
    pub extent: [usize; 3],
    /// Patches of each case.
    pub per_case: usize,
    /// The share of patches, in `[0, 1]`, around a voxel of a structure that is drawn among those annotated in
    /// the case; the others lie around any annotated voxel, background included.
    pub foreground_share: f64,
    cases: Vec<AnnotatedCase>,
}

/// Where a case is annotated.
#[derive(Debug, Clone, PartialEq)]
struct AnnotatedCase {
    case: usize,
    shape: [usize; 3],
    /// By class; background first.
    classes: Vec<ClassVoxels>,
}

/// The voxels of one class, at least one.
#[derive(Debug, Clone, PartialEq)]
struct ClassVoxels {
    class: usize,
    count: usize,
    /// Positions in the volume, row-major; all or [`KEPT_VOXELS`] of them.
    voxels: Vec<u32>,
}

impl Patches {
    /// Patches without cases yet.
    pub fn new(extent: [usize; 3], per_case: usize, foreground_share: f64) -> Self {
        Self { extent, per_case, foreground_share, cases: Vec::new() }
    }

    /// The same of the cases with these indices that show annotated voxels; the others are left out. `key`
    /// says which voxels are kept of a class that has too many.
    #[must_use]
    pub fn of(self, dataset: &Dataset, cases: &[usize], annotation: &str, key: Key) -> Self {
        self.around(dataset, (cases, key), |case| {
            case.annotations.get(annotation).map(|labels| Cow::from(&labels[..]))
        })
    }

    /// The same around voxels of which a channel is not 0, whatever they show.
    #[must_use]
    pub fn of_images(self, dataset: &Dataset, cases: &[usize], key: Key) -> Self {
        self.around(dataset, (cases, key), |case| Some(Cow::from(shown(&case.scan))))
    }

    fn around(
        self,
        dataset: &Dataset,
        (cases, key): (&[usize], Key),
        labels: impl for<'a> Fn(&'a Case) -> Option<Cow<'a, [u8]>>,
    ) -> Self {
        let cases = cases.iter().filter_map(|&index| {
            let case = &dataset.cases[index];
            let classes = annotated(&labels(case)?, key.purpose(&case.name));
            let shape = case.scan.grid.shape;
            (!classes.is_empty()).then_some(AnnotatedCase { case: index, shape, classes })
        });
        Self { cases: cases.collect(), ..self }
    }

    /// How many there are in one epoch.
    pub fn count(&self) -> usize {
        self.cases.len() * self.per_case
    }

    /// How many cases they are of.
    pub fn case_count(&self) -> usize {
        self.cases.len()
    }

    /// Patch `number`, less than [`Patches::count`], whose place `key` draws.
    pub fn item(&self, number: usize, key: Key) -> Item {
        let case = &self.cases[number / self.per_case];
        let [_, rows, columns] = case.shape;
        let voxel = case.centre(self.foreground_share, key);
        let centre = [voxel / (rows * columns), voxel / columns % rows, voxel % columns];
        let mut first = [0; 3];
        for (axis, first) in first.iter_mut().enumerate() {
            *first = start(centre[axis], self.extent[axis], case.shape[axis]);
        }
        Item { case: case.case, first, extent: self.extent }
    }
}

/// Where a patch begins along an axis: its middle at `centre`, but within the scan; a scan that is shorter lies in
/// the middle of it, as it does where a network meets a whole scan.
fn start(centre: usize, extent: usize, shape: usize) -> i64 {
    let (centre, extent, shape) = (centre as i64, extent as i64, shape as i64);
    if extent >= shape {
        return -((extent - shape) / 2);
    }
    (centre - extent / 2).clamp(0, shape - extent)
}

impl AnnotatedCase {
    fn centre(&self, foreground_share: f64, key: Key) -> usize {
        let mut draws = key.draws();
        let background = self.classes.iter().take_while(|found| found.class == 0).count();
        let structures = &self.classes[background..];
        let wants_structure = draws.uniform() < foreground_share;
        let class = if wants_structure && !structures.is_empty() {
            &structures[draws.below(structures.len() as u64) as usize]
        } else {
            let all: usize = self.classes.iter().map(|found| found.count).sum();
            let mut left = draws.below(all as u64) as usize;
            let mut chosen = &self.classes[0];
            for found in &self.classes {
                chosen = found;
                if left < found.count {
                    break;
                }
                left -= found.count;
            }
            chosen
        };
        class.voxels[draws.below(class.voxels.len() as u64) as usize] as usize
    }
}

/// 1 where a channel of a scan is not 0, nobody knows what elsewhere: `[slices, rows, columns]`.
fn shown(scan: &Scan) -> Vec<u8> {
    let pixels = scan.grid.pixels();
    let mut labels = vec![IGNORE; scan.grid.voxels()];
    for (slice, labels) in labels.chunks_exact_mut(pixels).enumerate() {
        for channel in scan.slice(slice).chunks_exact(pixels) {
            let seen = labels.iter_mut().zip(channel).filter(|(_, value)| value.abs() > 0.0);
            seen.for_each(|(label, _)| *label = 1);
        }
    }
    labels
}

/// The voxels of each class in `labels` that is there.
fn annotated(labels: &[u8], key: Key) -> Vec<ClassVoxels> {
    let mut counts = [0usize; 256];
    for &label in labels {
        counts[usize::from(label)] += 1;
    }
    counts[usize::from(IGNORE)] = 0;
    let wanted = |class: usize| Wanted::new(counts[class], key.number(class as u64));
    let mut wanted: Vec<Wanted> = (0..256).map(wanted).collect();
    for (voxel, &label) in labels.iter().enumerate() {
        wanted[usize::from(label)].take(voxel as u32);
    }
    let found = wanted.into_iter().zip(counts).enumerate();
    let found = found.filter(|(_, (_, count))| *count > 0);
    found
        .map(|(class, (wanted, count))| ClassVoxels { class, count, voxels: wanted.voxels })
        .collect()
}

/// Which of the voxels of a class are kept: one of each of [`KEPT_VOXELS`] parts of equal length.
struct Wanted {
    key: Key,
    count: usize,
    seen: usize,
    /// The number of the next one that is kept.
    next: usize,
    voxels: Vec<u32>,
}

impl Wanted {
    fn new(count: usize, key: Key) -> Self {
        let mut wanted = Self { key, count, seen: 0, next: 0, voxels: Vec::new() };
        wanted.next = wanted.place(0);
        wanted
    }

    /// The voxel that is kept of part `part`.
    fn place(&self, part: usize) -> usize {
        if self.count <= KEPT_VOXELS {
            return part;
        }
        let edge = |part: usize| (part as u64 * self.count as u64 / KEPT_VOXELS as u64) as usize;
        let (begin, end) = (edge(part), edge(part + 1));
        begin + self.key.number(part as u64).draws().below((end - begin) as u64) as usize
    }

    fn take(&mut self, voxel: u32) {
        if self.seen == self.next && self.voxels.len() < self.count.min(KEPT_VOXELS) {
            self.voxels.push(voxel);
            self.next = self.place(self.voxels.len());
        }
        self.seen += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_lies_within_the_scan_and_a_short_scan_in_its_middle() {
        assert_eq!([0, 3, 10, 19].map(|centre| start(centre, 8, 20)), [0, 0, 6, 12]);
        assert_eq!([0, 4].map(|centre| start(centre, 8, 5)), [-1, -1]);
        assert_eq!(start(2, 8, 8), 0);
        assert_eq!(start(0, 8, 1), -3);
    }

    #[test]
    fn of_a_class_with_many_voxels_some_of_everywhere_are_kept() {
        let mut labels = vec![0u8; 5 * KEPT_VOXELS + 7];
        labels[3] = 2;
        labels[9] = IGNORE;
        let classes = annotated(&labels, Key::new(1));
        assert_eq!(classes.iter().map(|found| found.class).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((classes[1].count, &*classes[1].voxels), (1, &[3][..]));
        let (all, kept) = (classes[0].count, &classes[0].voxels);
        assert_eq!((all, kept.len()), (labels.len() - 2, KEPT_VOXELS));
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] <= 12), "one of every 5 or 6");
        assert!(kept.iter().any(|voxel| voxel % 5 == 1) && kept.iter().any(|voxel| voxel % 5 == 2));
        let few = annotated(&[1, IGNORE, 1, 0], Key::new(1));
        assert_eq!(few[1].voxels, [0, 2]);
    }
}
