//! The numbers of a file from where its header ends: read to the last byte, scaled and put in our order.
//!
//! Takes no more memory than the file has numbers, whatever its header says. Does not know what they mean.

use super::content::Content;
use super::stored::Stored;
use crate::error::{Failure, Result};

/// How many zeros may follow the numbers: some programs write whole blocks.
const PADDING_BYTES: usize = 4096;

/// How many numbers are decoded at once.
const NUMBERS_AT_ONCE: usize = 1 << 16;

/// What a header says of the numbers that follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Block {
    /// How many there are.
    pub(super) count: usize,
    /// How they are stored.
    pub(super) stored: Stored,
    /// Whether the most significant byte of a number comes first.
    pub(super) big_endian: bool,
    /// Slope and intercept to apply to what is stored, where they change anything.
    pub(super) scaling: Option<[f64; 2]>,
}

impl Block {
    /// The numbers after slope and intercept, and then `value`, of content that was read up to the first of them.
    ///
    /// Refuses content that ends early, and any that goes on but for a little padding: so packed files are
    /// read to their checksum.
    pub(super) fn read<T>(
        &self,
        content: &mut Content,
        value: impl Fn(f64) -> T,
    ) -> Result<Vec<T>> {
        let (count, bytes) = (self.count, self.stored.bytes());
        let mut values = Vec::with_capacity(content.to_reserve(count, bytes));
        while values.len() < count {
            let wanted = NUMBERS_AT_ONCE.min(count - values.len());
            let chunk = content.up_to(wanted * bytes)?;
            if chunk.len() < wanted * bytes {
                return Err(Failure::new(format!(
                    "{} is cut off: it holds {} of the {} bytes of its voxels",
                    content.name,
                    values.len() * bytes + chunk.len(),
                    count * bytes
                ))
                .hint("copy it again"));
            }
            let stored = self.stored.decode(&chunk, self.big_endian);
            values.extend(stored.into_iter().map(|stored| match self.scaling {
                Some([slope, intercept]) => value(stored * slope + intercept),
                None => value(stored),
            }));
        }
        check_rest(content)?;
        Ok(values)
    }
}

fn check_rest(content: &mut Content) -> Result<()> {
    let rest = content.up_to(PADDING_BYTES)?;
    if rest.len() == PADDING_BYTES || rest.iter().any(|&byte| byte != 0) {
        return Err(Failure::new(format!(
            "{} holds more bytes than the voxels that its header tells of",
            content.name
        ))
        .hint("extents or type in its header are wrong; save it again with the program that it comes from"));
    }
    Ok(())
}

/// Slices, channels, rows and columns of an array in any order of axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrangement {
    /// How many slices, channels, rows and columns there are.
    pub(super) counts: [usize; 4],
    /// How many numbers lie between neighbours along each.
    pub(super) strides: [usize; 4],
}

impl Arrangement {
    /// Slices, rows and columns of `shape`, and all channels of a voxel beside each other.
    pub(super) fn interleaved([slices, rows, columns]: [usize; 3], channels: usize) -> Self {
        let row = columns * channels;
        Self { counts: [slices, channels, rows, columns], strides: [rows * row, 1, row, channels] }
    }

    /// The numbers with slices, channels, rows, columns in row-major order.
    pub(super) fn in_order<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        let [slices, channels, rows, columns] = self.counts;
        let pixels = rows * columns;
        let wanted = [channels * pixels, pixels, columns, 1];
        // An axis of one element may have any stride.
        let is_in_order =
            (0..4).all(|axis| self.counts[axis] == 1 || self.strides[axis] == wanted[axis]);
        if is_in_order {
            return values;
        }
        let mut ordered = Vec::with_capacity(values.len());
        let [by_slice, by_channel, by_row, by_column] = self.strides;
        for slice in 0..slices {
            for channel in 0..channels {
                for row in 0..rows {
                    let first = slice * by_slice + channel * by_channel + row * by_row;
                    ordered.extend((0..columns).map(|column| values[first + column * by_column]));
                }
            }
        }
        ordered
    }
}

#[cfg(test)]
mod tests {
    use super::Arrangement;

    #[test]
    fn channels_beside_each_other_become_planes() {
        let values = vec![1, 10, 2, 20, 3, 30, 4, 40];
        let arrangement = Arrangement::interleaved([2, 1, 2], 2);
        assert_eq!(arrangement.in_order(values), [1, 2, 10, 20, 3, 4, 30, 40]);
        let grey = Arrangement::interleaved([2, 1, 2], 1);
        assert_eq!(grey.in_order(vec![1, 2, 3, 4]), [1, 2, 3, 4]);
    }
}
