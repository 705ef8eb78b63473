//! From a prepared scan to class probabilities: the only place where a network meets a whole volume.
//!
//! Slices are resized to a square, or seen at the scan's own scale: a square about their middle, or windows that
//! cover the scan. Results come slab by slab, so that
//! the probabilities of a whole volume are never held. Knows no file, no truth and no score.

use super::blend::{Blend, within_padding};
use super::cut::Cut;
use super::method::{Drawing, Method};
use super::windows::{Group, Lattice};
use crate::comm::{Ranks, agree};
use crate::config::sampling::Sampling;
use crate::data::resized_slice;
use crate::error::{Context, Failure, Result};
use crate::panics;
use crate::scan::Scan;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Slices that go through a network together where it sees each by itself, unless somebody says otherwise.
pub const SLICES_AT_ONCE: usize = 8;
/// Voxels that go through a network together on a GPU, or those of one window where that has more.
const VOXELS_AT_ONCE: usize = 1 << 21;
/// Overlap of neighbouring windows unless somebody says otherwise, as in nnU-Net.
pub const OVERLAP: f64 = 0.5;

/// Precision and place of the tensors that networks are given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// f32 or f64.
    pub kind: Kind,
    /// Where networks compute.
    pub device: Device,
}

impl Target {
    /// The same numbers there.
    pub fn place(self, tensor: &Tensor) -> Tensor {
        tensor.to_kind(self.kind).to_device(self.device)
    }

    /// Bytes of a number.
    pub fn bytes(self) -> u64 {
        if self.kind == Kind::Double { 8 } else { 4 }
    }
}

/// Who of a network with several decoders answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answering {
    /// The one that predicts.
    Main,
    /// All of them; the answer is the mean.
    EveryDecoder,
}

/// Makes a map `[N, 1, ...]` of the probabilities `[N, classes, ...]` of windows.
pub type Beside<'t> = &'t dyn Fn(&Tensor) -> Result<Tensor>;

/// Networks that answer together, and how a volume is cut for them.
#[derive(Clone)]
pub struct Inference<'a> {
    /// At least one: folds, seeds, checkpoints. The answer is the mean of their probabilities.
    pub members: Vec<&'a dyn Method>,
    /// Slices that are each resized to a square, the middle of slices at the scan's own scale, around which
    /// everything is background, or windows at that scale; windows one slice deep are slices to the network.
    pub sampling: Sampling,
    /// Whether channels are colours of 8 bits, which are resized as such.
    pub is_in_colour: bool,
    /// Overlap of neighbouring windows along each axis, in [0, 1).
    pub overlap: f64,
    /// Whether networks also see what they see mirrored along every subset of its axes; the answer is the
    /// mean.
    pub mirrors: bool,
    /// Who of a network answers.
    pub answering: Answering,
    /// What is made of each window and blended like one more class, behind the others.
    pub beside: Option<Beside<'a>>,
    /// Precision and place of the networks.
    pub target: Target,
    /// Slices that go through a network together where it sees each by itself, at least 1.
    pub slices_at_once: usize,
    /// Whether each volume is normalised by its own statistics, which then stay those of the last one.
    pub volume_statistics: bool,
    /// Ranks that all call this for the same scan and share out its windows. The numbers are those of one rank,
    /// bit by bit where ranks compute alike.
    pub share: Option<&'a Ranks>,
    /// Called now and then by work that takes long.
    pub on_progress: Option<&'a dyn Fn()>,
}

/// Neighbouring slices of a prediction.
#[derive(Debug)]
pub struct Slab {
    /// The first one, counted from 0.
    pub first: usize,
    /// Class probabilities `[classes, slices, rows, columns]`, f32 on the CPU.
    pub probabilities: Tensor,
}

/// Takes class probabilities `[classes, slices, rows, columns]` on the device, from the given slice on.
pub type Taker<'t> = &'t mut dyn FnMut(usize, &Tensor) -> Result<()>;
/// Takes what was made of neighbouring slices, by name.
pub type PicturesTaker<'t> = &'t mut dyn FnMut(Vec<(&'static str, Drawing)>) -> Result<()>;

impl<'a> Inference<'a> {
    /// Networks that see every window once, overlapping by half, on this rank.
    pub fn new(members: Vec<&'a dyn Method>, sampling: Sampling, target: Target) -> Self {
        Self {
            members,
            sampling,
            is_in_colour: false,
            overlap: OVERLAP,
            mirrors: false,
            answering: Answering::Main,
            beside: None,
            target,
            slices_at_once: SLICES_AT_ONCE,
            volume_statistics: false,
            share: None,
            on_progress: None,
        }
    }

    /// Slices, rows, columns of the grid on which predictions lie: that of the scan, or where slices are
    /// resized, the resized ones.
    pub fn shape(&self, scan: &Scan) -> [usize; 3] {
        match self.sampling {
            Sampling::Slices { size } => [scan.grid.shape[0], size, size],
            Sampling::Cropped { .. } | Sampling::Patches { .. } => scan.grid.shape,
        }
    }

    /// Class probabilities of a prepared scan, slab by slab from the first slice on, each slice once.
    pub fn each_slab(&self, scan: &Scan, take: &mut dyn FnMut(Slab) -> Result<()>) -> Result<()> {
        self.each_finished(scan, &mut |first, probabilities| {
            (0..probabilities.size()[1]).try_for_each(|slice| {
                let found = probabilities.narrow(1, slice, 1);
                let mut probabilities = Tensor::empty(found.size(), (Kind::Float, Device::Cpu));
                probabilities.copy_(&found);
                take(Slab { first: first + slice as usize, probabilities })
            })
        })
    }

    /// The class of every pixel on the grid of predictions, in row-major order.
    pub fn labels(&self, scan: &Scan) -> Result<Vec<u8>> {
        let mut labels = Vec::with_capacity(self.shape(scan).iter().product());
        self.each_finished(scan, &mut |_, probabilities| {
            labels.extend(most_likely(probabilities)?);
            Ok(())
        })?;
        Ok(labels)
    }

    /// Bytes that [`Inference::each_finished`] holds at most on the host beside the scan, for so many classes,
    /// without what networks themselves take where they compute on the host, their answer included.
    pub fn bytes(&self, scan: &Scan, classes: usize) -> u64 {
        let lattice = self.lattice(scan);
        let product =
            |extents: [usize; 3]| extents.iter().map(|&extent| extent as u64).product::<u64>();
        let [_, rows, columns] = lattice.padded;
        let layer = product([lattice.depth(), rows, columns]);
        let classes = classes + usize::from(self.beside.is_some());
        let (channels, classes) = (scan.channels as u64, classes as u64);
        let on_device = if self.target.device == Device::Cpu {
            let windows = self.windows_at_once().min(lattice.corners.len());
            let [_, rows, columns] = lattice.window;
            let group = product([lattice.depth(), rows, columns]) * windows as u64;
            // Of several answers the sum so far, the next one as it lies and the new sum; what another rank found;
            // and one more, for the holes that those leave which come and go.
            let is_mean =
                self.members.len() > 1 || self.mirrors || self.answering == Answering::EveryDecoder;
            let sums = if is_mean { 3 } else { 0 };
            let answers = 1 + sums + u64::from(self.share.is_some());
            let totals = u64::from(lattice.overlaps());
            (classes + totals) * layer + (2 * channels + answers * classes) * group
        } else {
            0
        };
        // Slices are gathered, then laid out as networks take them.
        self.target.bytes() * (2 * channels * layer + on_device)
    }

    /// Slices that [`Inference::each_finished`] hands on together at the most.
    pub fn slices_handed_on(&self, scan: &Scan) -> usize {
        self.lattice(scan).depth().min(self.shape(scan)[0])
    }

    /// What the member makes of slices beside its predictions, some slices at a time; nothing where it sees
    /// windows, or where there are several. `annotation` holds a class or [`crate::data::IGNORE`] for every pixel of the grid
    /// of predictions.
    pub fn each_pictures(
        &self,
        scan: &Scan,
        annotation: &[u8],
        take: PicturesTaker<'_>,
    ) -> Result<()> {
        let [member] = &*self.members else { return Ok(()) };
        if let Sampling::Patches { .. } = self.sampling {
            return Ok(());
        }
        let (cut, mut held) = (self.cut(scan), None);
        let extents = self.shape(scan).map(|extent| extent as i64);
        let known = cut.padded(&Tensor::from_slice(annotation).view(extents));
        for group in &cut.groups {
            let known = cut.only_window(&known, group).to_device(self.target.device);
            let drawings = member.pictures(&self.windows(&cut, group, &mut held), &known)?;
            let drawings = drawings.into_iter();
            take(drawings.map(|(name, drawing)| (name, cut.put_back(&drawing))).collect())?;
        }
        Ok(())
    }

    /// Slices of a scan on the grid of predictions: `[slices, C, rows, columns]` f32.
    pub fn image(&self, scan: &Scan, slices: Range<usize>) -> Tensor {
        let [_, rows, columns] = self.shape(scan);
        let extents = [slices.len(), scan.channels, rows, columns].map(|extent| extent as i64);
        match self.sampling {
            Sampling::Slices { size } => {
                let resized =
                    slices.flat_map(|slice| resized_slice(scan, slice, size, self.is_in_colour));
                Tensor::from_slice(&resized.collect::<Vec<f32>>()).view(extents)
            }
            Sampling::Cropped { .. } | Sampling::Patches { .. } => {
                let of_slice = scan.channels * scan.grid.pixels();
                let voxels = &scan.voxels[slices.start * of_slice..slices.end * of_slice];
                Tensor::from_slice(voxels).view(extents)
            }
        }
    }

    /// Slices, rows, columns of a window, or of the slices that come together where a network sees each by itself.
    pub fn extent_at_once(&self) -> [usize; 3] {
        let [depth, rows, columns] = self.sampling.extent();
        [if depth == 1 { self.slices_at_once } else { depth }, rows, columns]
    }

    fn lattice(&self, scan: &Scan) -> Lattice {
        let (shape, together) = (self.shape(scan), self.slices_at_once);
        match self.sampling {
            Sampling::Cropped { size } => Lattice::central(shape, size, together),
            _ => Lattice::new(shape, self.sampling.extent(), self.overlap, together),
        }
    }

    fn windows_at_once(&self) -> usize {
        let voxels = self.extent_at_once().iter().product::<usize>().max(1);
        if self.target.device == Device::Cpu { 1 } else { (VOXELS_AT_ONCE / voxels).max(1) }
    }

    /// [`Inference::each_slab`] that leaves probabilities in their precision where they were computed, as many
    /// slices as a window is deep; `take` gets the first slice and `[classes, slices, rows, columns]`, which are
    /// written over when it returns.
    pub fn each_finished(&self, scan: &Scan, take: Taker<'_>) -> Result<()> {
        let cut = self.cut(scan);
        if self.volume_statistics {
            self.adapt_statistics(&cut)?;
        }
        let (rank, ranks) = self.share.map_or((0, 1), |ranks| (ranks.rank(), ranks.ranks()));
        let mut classes = None;
        let mut blend = None;
        let mut held = None;
        for round in cut.groups.chunks(ranks) {
            let own = self.agreed(panics::caught(|| {
                let predict = |own: &Group| self.predict(&self.windows(&cut, own, &mut held));
                round.get(rank).map(predict).transpose()
            }))?;
            let classes = match classes {
                Some(classes) => classes,
                None => *classes.insert(self.classes(own.as_ref())?),
            };
            for (root, group) in round.iter().enumerate() {
                let found = self.found_by(root, own.as_ref(), &cut.extents(group, classes))?;
                let blend = blend.get_or_insert_with(|| Blend::new(&cut.lattice, &found));
                blend.add(group, &found);
                if cut.is_last_of_layer(group) {
                    self.agreed(blend.finish(group.layer, take))?;
                }
            }
            if let Some(on_progress) = self.on_progress {
                on_progress();
            }
        }
        Ok(())
    }

    /// Fails on all ranks that share the work where one failed.
    fn agreed<T>(&self, result: Result<T>) -> Result<T> {
        match self.share {
            Some(ranks) => agree(&**ranks.control(), result),
            None => result,
        }
    }

    /// How many classes this rank has found, or where it has had nothing to do, others.
    fn classes(&self, own: Option<&Tensor>) -> Result<i64> {
        let found = own.map_or(0, |own| own.size()[1]);
        self.share.map_or(Ok(found), |ranks| ranks.max(found))
    }

    /// What rank `root` has found, of the shape `extents`.
    fn found_by(&self, root: usize, own: Option<&Tensor>, extents: &[i64]) -> Result<Tensor> {
        let is_own = self.share.is_none_or(|ranks| ranks.rank() == root);
        let found = match own.filter(|_| is_own) {
            Some(own) => own.contiguous(),
            None => Tensor::zeros(extents, (self.target.kind, self.target.device)),
        };
        if let Some(ranks) = self.share {
            ranks.tensors().broadcast(root, &found)?;
        }
        Ok(found)
    }

    /// Makes the running statistics of every member those of a volume.
    fn adapt_statistics(&self, cut: &Cut<'_>) -> Result<()> {
        if let Sampling::Slices { .. } = self.sampling {
            let slices = self.target.place(&self.image(cut.scan, 0..cut.scan.grid.shape[0]));
            return self.members.iter().try_for_each(|m| m.adapt_statistics(&slices, 1.0));
        }
        let mut held = None;
        for (seen, group) in cut.groups.iter().enumerate() {
            let windows = self.windows(cut, group, &mut held);
            let share = 1.0 / (seen as f64 + 1.0);
            self.members.iter().try_for_each(|m| m.adapt_statistics(&windows, share))?;
        }
        Ok(())
    }

    /// The mean of the probabilities of all members, as they see windows as they are and mirrored, and what is
    /// blended beside them: `[N, classes, ...]` for windows `[N, C, ...]`.
    fn predict(&self, windows: &Tensor) -> Result<Tensor> {
        let mirrors = self.mirrors.then(|| subsets(&spatial_axes(windows)));
        let mirrors = mirrors.unwrap_or_else(|| vec![Vec::new()]);
        let (mut sum, mut passes): (Option<Tensor>, usize) = (None, 0);
        for member in &self.members {
            for axes in &mirrors {
                let mirrored = |tensor: Tensor| {
                    if axes.is_empty() { tensor } else { tensor.flip(axes.as_slice()) }
                };
                for found in self.opinions(*member, &mirrored(windows.shallow_clone()))? {
                    refuse_other_extents(&found, windows, sum.as_ref())?;
                    let found = mirrored(found.to_kind(self.target.kind));
                    sum = Some(sum.map_or_else(|| found.shallow_clone(), |sum| sum + &found));
                    passes += 1;
                }
            }
        }
        let sum = sum.ok_or_else(|| Failure::new("no network was given to predict with"))?;
        let mean = if passes == 1 { sum } else { sum / passes as f64 };
        match self.beside {
            Some(of) => Ok(Tensor::cat(&[&mean, &of(&mean)?], 1)),
            None => Ok(mean),
        }
    }

    /// What a network says of windows: once, or by each of its decoders.
    fn opinions(&self, member: &dyn Method, windows: &Tensor) -> Result<Vec<Tensor>> {
        match self.answering {
            Answering::Main => Ok(vec![member.predict(windows)?]),
            Answering::EveryDecoder => tch::no_grad(|| member.opinions(windows)),
        }
    }

    fn cut<'s>(&self, scan: &'s Scan) -> Cut<'s> {
        let lattice = self.lattice(scan);
        let groups = lattice.groups(self.windows_at_once());
        Cut { scan, lattice, groups }
    }

    /// The windows of a group as networks take them; `held` keeps the layer that they were cut from.
    fn windows(&self, cut: &Cut<'_>, group: &Group, held: &mut Option<(usize, Tensor)>) -> Tensor {
        let known = held.take().filter(|(layer, _)| *layer == group.layer);
        let (_, layer) =
            held.insert(known.unwrap_or_else(|| (group.layer, self.layer(cut, group.layer))));
        let corners = cut.lattice.corners[group.windows.clone()].iter();
        let windows = corners.map(|&corner| cut.window(layer, corner));
        let windows: Vec<Tensor> = windows.collect();
        if let [window] = &*windows { window.contiguous() } else { Tensor::cat(&windows, 0) }
    }

    /// The slices of a layer with their padding: `[slices, C, rows, columns]`, or where windows are deeper
    /// than a slice `[1, C, slices, rows, columns]`.
    fn layer(&self, cut: &Cut<'_>, layer: usize) -> Tensor {
        let Cut { scan, lattice, .. } = cut;
        let (slices, [inside, ..]) = (&lattice.layers[layer], &lattice.inside);
        let first = slices.start.max(inside.start);
        let known = first - inside.start..slices.end.min(inside.end) - inside.start;
        let image = self.image(scan, known.clone());
        let image = if lattice.is_padded() {
            let [_, rows, columns] = lattice.padded;
            let extents = [slices.len(), scan.channels, rows, columns].map(|extent| extent as i64);
            let padded = Tensor::zeros(extents, (Kind::Float, Device::Cpu));
            let inner = padded.narrow(0, (first - slices.start) as i64, known.len() as i64);
            within_padding(&inner, lattice).copy_(&image);
            padded
        } else {
            image
        };
        let is_deep = lattice.window[0] > 1;
        self.target.place(&if is_deep { image.transpose(0, 1).unsqueeze(0) } else { image })
    }
}

/// The class of largest probability, of equal ones the first, of each voxel in row-major order:
/// `probabilities` is `[classes, ...]`.
///
/// Class by class over whole maps, which on a CPU is several times as fast as `argmax` over distant numbers.
pub fn most_likely(probabilities: &Tensor) -> Result<Vec<u8>> {
    let mut largest = probabilities.get(0);
    let mut labels = largest.zeros_like().to_kind(Kind::Uint8);
    for class in 1..probabilities.size()[0] {
        let map = probabilities.get(class);
        let _ = labels.masked_fill_(&map.gt_tensor(&largest), class);
        largest = largest.maximum(&map);
    }
    let labels = labels.to_device(Device::Cpu).contiguous().view([-1]);
    Vec::try_from(labels).context(|| "cannot fetch a prediction")
}

/// The axes of `[N, C, ...]` behind the channels.
fn spatial_axes(windows: &Tensor) -> Vec<i64> {
    (2..windows.dim() as i64).collect()
}

/// All subsets, beginning with the empty one.
fn subsets(axes: &[i64]) -> Vec<Vec<i64>> {
    let of_bits = |bits: usize| {
        let chosen = axes.iter().enumerate().filter(move |(place, _)| bits >> place & 1 == 1);
        chosen.map(|(_, &axis)| axis).collect()
    };
    (0..1 << axes.len()).map(of_bits).collect()
}

/// Refuses probabilities that are not one for each class and voxel of the windows, or of other classes than
/// those `before`.
fn refuse_other_extents(found: &Tensor, windows: &Tensor, before: Option<&Tensor>) -> Result<()> {
    let (found, mut expected) = (found.size(), windows.size());
    let classes = before.map_or_else(|| found.get(1).copied(), |before| Some(before.size()[1]));
    if let (Some(classes), Some(channels)) = (classes, expected.get_mut(1)) {
        *channels = classes;
    }
    if found == expected {
        return Ok(());
    }
    let message = format!(
        "a network answers with a tensor of {found:?}, expected {expected:?} for its windows"
    );
    Err(Failure::new(message))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::comm::{Communicator, TensorSums};
    use crate::data::augment::Centred;
    use crate::data::batch::Batch;
    use crate::error::Exit;
    use crate::native::GroupSum;
    use crate::random::Key;
    use crate::scan::Grid;
    use crate::train::learner::Learner;
    use crate::train::{ForwardMode, StepContext};
    use std::cell::Cell;
    use std::sync::{Arc, Barrier, Mutex};

    pub(in crate::train) const HERE: Target = Target { kind: Kind::Float, device: Device::Cpu };

    /// A method that answers with a function of what it sees.
    pub(in crate::train) struct Answers<F>(pub(in crate::train) F);

    impl<F: Fn(&Tensor) -> Tensor> Method for Answers<F> {
        fn step(&mut self, _batch: &Batch, _cx: &mut StepContext<'_>) -> Result<()> {
            Ok(())
        }
        fn forward(&self, image: &Tensor, _mode: ForwardMode) -> Result<Tensor> {
            Ok((self.0)(image))
        }
        fn learners(&self) -> Vec<&Learner> {
            Vec::new()
        }
        fn pictures(
            &self,
            image: &Tensor,
            annotation: &Tensor,
        ) -> Result<Vec<(&'static str, Drawing)>> {
            Ok(vec![
                ("opposite", Drawing::Intensities(1.0 - image)),
                ("known", Drawing::Classes(annotation.shallow_clone())),
            ])
        }
    }

    /// Numbers in [0, 1).
    pub(in crate::train) fn scan(shape: [usize; 3]) -> Scan {
        let mut draws = Key::new(5).draws();
        let grid = Grid::unplaced(shape, None);
        let voxels = (0..grid.voxels()).map(|_| draws.uniform() as f32).collect();
        Scan { grid, channels: 1, voxels }
    }

    pub(in crate::train) fn patches(extent: [usize; 3]) -> Sampling {
        Sampling::Patches { extent, per_case: 1, foreground_share: 0.0 }
    }

    /// The image and its opposite as two classes.
    pub(in crate::train) fn echo(image: &Tensor) -> Tensor {
        Tensor::cat(&[image, &(1.0 - image)], 1)
    }

    /// A sum over each window that no mirror image has.
    fn lopsided(image: &Tensor) -> Tensor {
        let columns = image.cumsum(-1, Kind::Float).cumsum(-2, Kind::Float);
        let all = if image.dim() == 5 { columns.cumsum(2, Kind::Float) } else { columns };
        Tensor::cat(&[&all.sin(), &all.cos(), image], 1)
    }

    /// All slabs as one, after a look at their order.
    fn whole(inference: &Inference<'_>, scan: &Scan) -> Tensor {
        let mut slabs = Vec::new();
        let mut next = 0;
        inference
            .each_slab(scan, &mut |slab| {
                assert_eq!(slab.first, next, "each slice once, in order");
                next += slab.probabilities.size()[1] as usize;
                slabs.push(slab.probabilities);
                Ok(())
            })
            .unwrap();
        assert_eq!(next, scan.grid.shape[0]);
        Tensor::cat(&slabs, 1)
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    /// Shapes and windows: deep and flat, larger and smaller than the scan along every axis.
    const CASES: [([usize; 3], [usize; 3]); 6] = [
        ([11, 13, 17], [4, 6, 8]),
        ([11, 13, 17], [1, 6, 8]),
        ([3, 5, 9], [4, 6, 8]),
        ([9, 5, 20], [3, 8, 8]),
        ([2, 4, 4], [1, 8, 8]),
        ([7, 6, 8], [2, 6, 8]),
    ];

    #[test]
    fn what_a_network_returns_is_what_comes_out_of_all_windows() {
        let echo = Answers(echo);
        for (shape, window) in CASES {
            let scan = scan(shape);
            for mirrors in [false, true] {
                let mut inference = Inference::new(vec![&echo], patches(window), HERE);
                inference.mirrors = mirrors;
                let found = whole(&inference, &scan);
                let image =
                    Tensor::from_slice(&scan.voxels).view(shape.map(|extent| extent as i64));
                let expected = Tensor::stack(&[&image, &(1.0 - &image)], 0);
                let difference = largest_difference(&found, &expected);
                assert!(difference < 1e-6, "{shape:?} {window:?} {mirrors}: {difference:e}");
                let labels: Vec<u8> = scan.voxels.iter().map(|&x| u8::from(x < 0.5)).collect();
                assert!(inference.labels(&scan).unwrap() == labels, "{shape:?} {window:?}");
            }
        }
    }

    #[test]
    fn constants_stay_exactly_what_they_are() {
        let shares = [0.25f32, 0.5, 0.125, 0.125];
        let constant = Answers(|image: &Tensor| {
            let mut extents = image.size();
            extents[1] = 1;
            let class =
                |share: &f32| Tensor::full(&extents, f64::from(*share), (Kind::Float, Device::Cpu));
            Tensor::cat(&shares.iter().map(class).collect::<Vec<_>>(), 1)
        });
        for (shape, window) in CASES {
            let scan = scan(shape);
            let inference = Inference::new(vec![&constant, &constant], patches(window), HERE);
            let found = whole(&inference, &scan);
            for (class, share) in shares.iter().enumerate() {
                let class = found.get(class as i64);
                assert!(class.eq(f64::from(*share)).all().int64_value(&[]) == 1, "{shape:?}");
            }
        }
    }

    #[test]
    fn mirrors_and_members_are_means() {
        let (lopsided, echo) = (Answers(lopsided), Answers(|x: &Tensor| x.repeat([1, 3, 1, 1, 1])));
        let (scan, window) = (scan([4, 6, 8]), patches([4, 6, 8]));
        let mut inference = Inference::new(vec![&lopsided, &echo], window, HERE);
        inference.mirrors = true;
        let image = Tensor::from_slice(&scan.voxels).view([1, 1, 4, 6, 8]);
        let mut expected = Tensor::zeros([3, 4, 6, 8], (Kind::Float, Device::Cpu));
        for axes in [&[][..], &[2], &[3], &[4], &[2, 3], &[2, 4], &[3, 4], &[2, 3, 4]] {
            for member in inference.members.clone() {
                let found = member.predict(&image.flip(axes)).unwrap();
                expected += found.flip(axes).get(0) / 16.0;
            }
        }
        let difference = largest_difference(&whole(&inference, &scan), &expected);
        assert!(difference < 1e-6, "{difference:e}");
    }

    #[test]
    fn the_first_of_the_most_likely_classes_is_the_label() {
        let mut draws = Key::new(9).draws();
        let numbers: Vec<f32> = (0..5 * 300).map(|_| draws.below(4) as f32 / 4.0).collect();
        let probabilities = Tensor::from_slice(&numbers).view([5, 3, 100]);
        let expected: Vec<i64> = Vec::try_from(probabilities.argmax(0, false).view([-1])).unwrap();
        let found = most_likely(&probabilities).unwrap();
        assert!(found.iter().map(|&label| i64::from(label)).eq(expected));
    }

    #[test]
    fn slices_are_resized_and_predicted_as_they_are_eight_at_a_time() {
        let (scan, seen) = (scan([19, 10, 12]), Cell::new(0));
        let echo = Answers(|image: &Tensor| {
            seen.set(seen.get().max(image.size()[0]));
            echo(image)
        });
        let inference = Inference::new(vec![&echo], Sampling::Slices { size: 16 }, HERE);
        assert_eq!(inference.shape(&scan), [19, 16, 16]);
        let found = whole(&inference, &scan);
        let resized: Vec<f32> =
            (0..19).flat_map(|slice| resized_slice(&scan, slice, 16, false)).collect();
        let resized = Tensor::from_slice(&resized).view([19, 16, 16]);
        assert!(found.get(0).equal(&resized) && seen.get() == 8);
        assert!(inference.image(&scan, 0..19).view([19, 16, 16]).equal(&resized));
    }

    #[test]
    fn around_the_middle_of_cropped_slices_everything_is_background() {
        // What a network sees of it is the second class, to the last bit.
        let seen = Answers(|image: &Tensor| {
            assert_eq!(image.size()[2..], [8, 8]);
            Tensor::cat(&[&(1.0 - image), image], 1)
        });
        let inference = Inference::new(vec![&seen], Sampling::Cropped { size: 8 }, HERE);
        let extents = |shape: [usize; 3]| [shape[0], shape[1], shape[2]].map(|n| n as i64);
        for shape in [[3, 11, 9], [10, 8, 8], [2, 5, 13], [9, 4, 6]] {
            let scan = scan(shape);
            assert_eq!(inference.shape(&scan), shape);
            let found = whole(&inference, &scan);
            let planes = Tensor::from_slice(&scan.voxels).view(extents(shape));
            assert!(inference.image(&scan, 0..shape[0]).view(extents(shape)).equal(&planes));
            let middle = Centred::cut(&scan.voxels, [shape[1], shape[2]], [8; 2], 0.0);
            let expected = Centred::cut(&middle, [8; 2], [shape[1], shape[2]], 0.0);
            let expected = Tensor::from_slice(&expected).view(extents(shape));
            let background: Tensor = 1.0 - &expected;
            assert!(found.get(1).equal(&expected) && found.get(0).equal(&background), "{shape:?}");
            let labels: Vec<u8> =
                Vec::try_from(found.argmax(0, false).view([-1]).to_kind(Kind::Uint8)).unwrap();
            assert_eq!(inference.labels(&scan).unwrap(), labels);
            let mut adapted = inference.clone();
            adapted.volume_statistics = true;
            assert_eq!(adapted.labels(&scan).unwrap(), labels);
        }
    }

    #[test]
    fn memory_is_known_before_and_does_not_grow_with_the_slices() {
        let echo = Answers(echo);
        let inference = Inference::new(vec![&echo], patches([4, 6, 8]), HERE);
        let bytes = inference.bytes(&scan([8, 12, 16]), 2);
        assert_eq!(bytes, inference.bytes(&scan([80, 12, 16]), 2));
        // Twice the layer, sums and totals of two classes, twice a window, and an answer of two classes.
        let (layer, window) = (4 * 12 * 16, 4 * 6 * 8);
        assert_eq!(bytes, 4 * (2 * layer + 3 * layer + 2 * window + 2 * window));
        let mirrored = Inference { mirrors: true, ..inference };
        assert_eq!(mirrored.bytes(&scan([8, 12, 16]), 2), bytes + 4 * 3 * 2 * window);
    }

    #[test]
    fn answers_of_another_shape_and_no_networks_are_refused() {
        let scan = scan([4, 6, 8]);
        let flat = Answers(|image: &Tensor| image.mean_dim([2i64].as_slice(), true, Kind::Float));
        let refused = |members: Vec<&dyn Method>| {
            let inference = Inference::new(members, patches([4, 6, 8]), HERE);
            inference.labels(&scan).unwrap_err().to_string()
        };
        assert!(refused(vec![&flat]).contains(
            "a network answers with a tensor of [1, 1, 1, 6, 8], expected [1, 1, 4, 6, 8]"
        ));
        let (echo, lopsided) = (Answers(echo), Answers(lopsided));
        assert!(
            refused(vec![&echo, &lopsided]).contains("[1, 3, 4, 6, 8], expected [1, 2, 4, 6, 8]")
        );
        assert!(refused(Vec::new()).contains("no network"));
    }

    /// Ranks that are threads of this process.
    struct Threads {
        rank: usize,
        together: Arc<Together>,
    }

    struct Together {
        barrier: Barrier,
        messages: Mutex<Vec<Vec<u8>>>,
        tensor: Mutex<Option<Tensor>>,
    }

    impl Together {
        /// What each of so many ranks, a thread each, returns.
        fn run<T: Send>(ranks: usize, work: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
            let together = Arc::new(Self {
                barrier: Barrier::new(ranks),
                messages: Mutex::new(vec![Vec::new(); ranks]),
                tensor: Mutex::new(None),
            });
            let of_rank = |rank| {
                work(&Ranks::of(Arc::new(Threads { rank, together: Arc::clone(&together) })))
            };
            std::thread::scope(|scope| {
                let of_rank = &of_rank;
                let threads: Vec<_> =
                    (0..ranks).map(|rank| scope.spawn(move || of_rank(rank))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        }
    }

    impl GroupSum for Threads {
        fn ranks(&self) -> usize {
            self.together.messages.lock().unwrap().len()
        }
        fn sum(&self, _tensor: &Tensor) {
            unreachable!("nothing is added up over ranks")
        }
    }

    impl TensorSums for Threads {
        fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
            let place = || self.together.tensor.lock().unwrap();
            if self.rank == root {
                *place() = Some(tensor.copy());
            }
            self.together.barrier.wait();
            tensor.shallow_clone().copy_(place().as_ref().unwrap());
            self.together.barrier.wait();
            Ok(())
        }
    }

    impl Communicator for Threads {
        fn rank(&self) -> usize {
            self.rank
        }
        fn ranks(&self) -> usize {
            GroupSum::ranks(self)
        }
        fn barrier(&self) -> Result<()> {
            self.together.barrier.wait();
            Ok(())
        }
        fn max(&self, value: i64) -> Result<i64> {
            let told = self.gather(&value.to_le_bytes())?.into_iter();
            let numbers = told.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
            Ok(numbers.max().unwrap_or_default())
        }
        fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.together.messages.lock().unwrap()[self.rank] = message.to_vec();
            self.together.barrier.wait();
            let told = self.together.messages.lock().unwrap().clone();
            self.together.barrier.wait();
            Ok(told)
        }
        fn abort(&self, _exit: Exit) -> ! {
            unreachable!("ranks fail together")
        }
    }

    #[test]
    fn windows_are_shared_out_over_ranks_to_the_last_bit() {
        for (shape, window) in CASES {
            let lopsided = Answers(lopsided);
            let alone = Inference::new(vec![&lopsided], patches(window), HERE);
            let (scan, expected) = (scan(shape), whole(&alone, &scan(shape)));
            let groups = alone.cut(&scan).groups.len();
            for ranks in [1, 2, 5] {
                let found = Together::run(ranks, |ranks| {
                    let calls = Cell::new(0);
                    let counted = Answers(|image: &Tensor| {
                        calls.set(calls.get() + 1);
                        super::tests::lopsided(image)
                    });
                    let mut inference = Inference::new(vec![&counted], patches(window), HERE);
                    inference.share = Some(ranks);
                    (whole(&inference, &scan), calls.get())
                });
                assert_eq!(found.iter().map(|(_, calls)| calls).sum::<usize>(), groups);
                for (found, _) in &found {
                    assert!(found.equal(&expected), "{shape:?} {window:?} on {ranks}");
                }
            }
        }
    }

    #[test]
    fn ranks_that_share_a_volume_fail_together() {
        let scan = scan([11, 13, 17]);
        let failures = Together::run(3, |ranks| {
            let rank = ranks.rank();
            let answers = Answers(move |image: &Tensor| {
                assert!(rank != 1, "no memory is left");
                echo(image)
            });
            let mut inference = Inference::new(vec![&answers], patches([4, 6, 8]), HERE);
            inference.share = Some(ranks);
            inference.labels(&scan).unwrap_err().to_string()
        });
        for failure in failures {
            assert!(failure.contains("no memory is left"), "{failure}");
        }
    }
}
