//! What a U-Net does on each of its levels: channels, taps of its convolutions, and what is pooled along which
//! axis. Knows no tensors.

use super::PerAxis;

/// Channels of the five levels over images, finest first.
pub const CHANNELS: [i64; 5] = [16, 32, 64, 128, 256];
/// Of the levels over volumes: one level less, because of what voxels cost and because patches are smaller.
const CHANNELS_OF_VOLUMES: [i64; 4] = [16, 32, 64, 128];
/// Dropout between the two convolutions of each encoder level.
const DROPOUT: [f64; 5] = [0.05, 0.1, 0.2, 0.3, 0.5];
/// An axis stays at least so long when it is pooled.
const SHORTEST: usize = 4;
/// Axes are alike whose spacings differ by less than this factor.
const ALIKE: f64 = 2.0;

/// One level of a U-Net.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Channels of its features.
    pub channels: i64,
    /// Probability with which an element is dropped between its two convolutions in the encoder.
    pub dropout: f64,
    /// Of its convolutions, odd.
    pub taps: PerAxis,
    /// How many pixels of the level above, along each axis, become one; 1 each of the finest level.
    pub pooling: PerAxis,
}

/// The levels of a U-Net.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    finest: Level,
    /// From finer to coarser.
    coarser: Vec<Level>,
    /// Whether decoders drop elements as their encoder does on the same level.
    pub decoders_drop: bool,
    /// Of the convolution that makes one logit of each class, odd.
    pub taps_out: PerAxis,
}

impl Topology {
    /// Of samples of so many slices, rows and columns: [`Topology::published`] of one slice, and
    /// [`Topology::of_volumes`] of more.
    pub fn of_samples(extent: [usize; 3], spacing_mm: Option<[f64; 3]>) -> Self {
        match extent {
            [1, ..] => Self::published(),
            _ => Self::of_volumes(extent, spacing_mm),
        }
    }

    /// Five levels over images, each of half the rows and columns of the one before, with 3 x 3 taps.
    pub fn published() -> Self {
        let shapes = [[1; 2], [2; 2], [2; 2], [2; 2], [2; 2]];
        let shapes = shapes.map(|pooling| (PerAxis::Two([3; 2]), PerAxis::Two(pooling)));
        Self::with(CHANNELS, shapes)
    }

    /// [`Topology::published`] with dropout in the decoders too, and 1 x 1 taps at their ends: `DBNet` of the
    /// package `PyMIC` 0.5.4.
    pub fn pymic() -> Self {
        let published = Self::published();
        Self { decoders_drop: true, taps_out: published.taps_out.map(|_| 1), ..published }
    }

    /// Four levels over volumes of so many slices, rows and columns, with the spacing of their voxels where it is
    /// known, else as if they were cubes.
    ///
    /// The rules are those of nnU-Net (Isensee et al., Nature Methods 2021): an axis is halved from one level to
    /// the next if at least 4 of it remain and its spacing is less than twice the finest of the axes of which that
    /// is true. Convolutions have 1 tap along an axis until its spacing is less than twice the finest, and 3 from
    /// there on; on the coarsest level 3 along each.
    pub fn of_volumes(extent: [usize; 3], spacing_mm: Option<[f64; 3]>) -> Self {
        let mut axes = Axes { extent, spacing: spacing_mm.unwrap_or([1.0; 3]), taps: [1; 3] };
        let mut pooling = [1; 3];
        let mut shapes =
            [(PerAxis::Three([3; 3]), PerAxis::Three([1; 3])); CHANNELS_OF_VOLUMES.len()];
        for shape in &mut shapes {
            axes.widen_taps();
            *shape = (PerAxis::Three(axes.taps), PerAxis::Three(pooling));
            pooling = axes.pool();
        }
        if let Some((taps, _)) = shapes.last_mut() {
            *taps = PerAxis::Three([3; 3]);
        }
        Self::with(CHANNELS_OF_VOLUMES, shapes)
    }

    /// From channels, and taps and pooling, of all levels.
    fn with<const LEVELS: usize>(
        channels: [i64; LEVELS],
        shapes: [(PerAxis, PerAxis); LEVELS],
    ) -> Self {
        const { assert!(LEVELS > 0 && LEVELS <= DROPOUT.len()) };
        let level = |number: usize| {
            let (taps, pooling) = shapes[number];
            Level { channels: channels[number], dropout: DROPOUT[number], taps, pooling }
        };
        let finest = level(0);
        Self {
            finest,
            coarser: (1..LEVELS).map(level).collect(),
            decoders_drop: false,
            taps_out: finest.taps,
        }
    }

    /// The level of full size.
    pub fn finest(&self) -> &Level {
        &self.finest
    }

    /// All levels, finest first.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = &Level> + Clone {
        std::iter::once(&self.finest).chain(&self.coarser)
    }
}

/// What is known of slices, rows and columns on one level.
struct Axes {
    extent: [usize; 3],
    spacing: [f64; 3],
    taps: [i64; 3],
}

impl Axes {
    /// 3 taps along each axis that is as fine as the finest.
    fn widen_taps(&mut self) {
        let finest = self.spacing.into_iter().fold(f64::INFINITY, f64::min);
        for (taps, spacing) in self.taps.iter_mut().zip(self.spacing) {
            if spacing < ALIKE * finest {
                *taps = 3;
            }
        }
    }

    /// Halves what can be, and says by what each axis was divided.
    fn pool(&mut self) -> [i64; 3] {
        let can = self.extent.map(|extent| extent >= 2 * SHORTEST);
        let spacings = self.spacing.into_iter().zip(can).filter(|(_, can)| *can);
        let finest = spacings.map(|(spacing, _)| spacing).fold(f64::INFINITY, f64::min);
        let mut pooling = [1; 3];
        for axis in 0..3 {
            if can[axis] && self.spacing[axis] < ALIKE * finest {
                pooling[axis] = 2;
                self.extent[axis] /= 2;
                self.spacing[axis] *= 2.0;
            }
        }
        pooling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taps and pooling of the levels over volumes.
    fn shapes(extent: [usize; 3], spacing_mm: Option<[f64; 3]>) -> [Vec<[i64; 3]>; 2] {
        let topology = Topology::of_volumes(extent, spacing_mm);
        let three = |axes: PerAxis| match axes {
            PerAxis::Three(numbers) => numbers,
            PerAxis::Two(_) => panic!("two axes"),
        };
        [
            topology.levels().map(|level| three(level.taps)).collect(),
            topology.levels().map(|level| three(level.pooling)).collect(),
        ]
    }

    #[test]
    fn cubes_are_halved_three_times_along_each_axis() {
        let [taps, pooling] = shapes([32, 64, 48], None);
        assert_eq!(taps, [[3; 3]; 4]);
        assert_eq!(pooling, [[1; 3], [2; 3], [2; 3], [2; 3]]);
    }

    #[test]
    fn slices_that_lie_far_apart_are_joined_once_pixels_are_as_large() {
        // Cine MR of the heart.
        let [taps, pooling] = shapes([16, 192, 160], Some([10.0, 1.4, 1.4]));
        assert_eq!(taps, [[1, 3, 3], [1, 3, 3], [3; 3], [3; 3]]);
        assert_eq!(pooling, [[1; 3], [1, 2, 2], [1, 2, 2], [2; 3]]);
        // Twice as far is far; less than that is not.
        assert_eq!(shapes([32; 3], Some([2.0, 1.0, 1.0]))[0][0], [1, 3, 3]);
        assert_eq!(shapes([32; 3], Some([1.9, 1.0, 1.0]))[0][0], [3; 3]);
    }

    #[test]
    fn an_axis_is_halved_while_four_remain_of_it() {
        let [_, pooling] = shapes([7, 16, 9], None);
        assert_eq!(pooling, [[1; 3], [1, 2, 2], [1, 2, 1], [1; 3]]);
        // Fine slices that cannot be halved do not keep the other axes from it.
        let [taps, pooling] = shapes([4, 64, 64], Some([1.0, 3.0, 3.0]));
        assert_eq!(pooling[1..], [[1, 2, 2]; 3]);
        assert_eq!(taps, [[3, 1, 1], [3, 1, 1], [3, 1, 1], [3; 3]]);
    }

    #[test]
    fn samples_of_one_slice_get_the_published_levels() {
        let published = Topology::of_samples([1, 256, 256], Some([10.0, 1.4, 1.4]));
        assert_eq!(published, Topology::published());
        assert_eq!(published.levels().count(), 5);
        assert_eq!(published.finest().channels, 16);
        let volume = Topology::of_samples([2, 256, 256], None);
        assert_eq!(volume, Topology::of_volumes([2, 256, 256], None));
    }
}
