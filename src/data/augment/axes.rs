//! The axes of a slice after quarter turns and flips, as places in the slice as stored.
//!
//! Knows neither pixels nor what is drawn.

/// An axis of the turned slice in terms of the slice as stored.
///
/// Quarter turns and flips only swap and reverse axes: element `i` of this axis lies at offset
/// `first + i * step` of the stored array, summed over both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) extent: usize,
    pub(super) first: usize,
    pub(super) step: isize,
}

impl Axis {
    /// Rows and columns of a slice of `shape`, neither turned nor flipped.
    pub(super) fn stored([rows, columns]: [usize; 2]) -> [Self; 2] {
        [
            Self { extent: rows, first: 0, step: columns as isize },
            Self { extent: columns, first: 0, step: 1 },
        ]
    }

    fn reversed(self) -> Self {
        let last = self.first.wrapping_add_signed((self.extent as isize - 1) * self.step);
        Self { first: last, step: -self.step, ..self }
    }

    /// The offset of element `index`.
    pub(super) fn offset(self, index: usize) -> usize {
        self.first.wrapping_add_signed(index as isize * self.step)
    }

    /// Rows and columns after quarter turns (numpy's `rot90`) and one flip.
    pub(super) fn turned(shape: [usize; 2], quarter_turns: u8, flip_axis: u8) -> [Self; 2] {
        let mut turned = Self::by_quarters(Self::stored(shape), quarter_turns);
        let flipped = &mut turned[usize::from(flip_axis % 2)];
        *flipped = flipped.reversed();
        turned
    }

    /// Rows and columns after flips of either, then quarter turns.
    pub(super) fn flipped(shape: [usize; 2], flips: [bool; 2], quarter_turns: u8) -> [Self; 2] {
        let mut flipped = Self::stored(shape);
        for (axis, flips) in flipped.iter_mut().zip(flips) {
            *axis = if flips { axis.reversed() } else { *axis };
        }
        Self::by_quarters(flipped, quarter_turns)
    }

    fn by_quarters([rows, columns]: [Self; 2], quarter_turns: u8) -> [Self; 2] {
        match quarter_turns % 4 {
            0 => [rows, columns],
            1 => [columns.reversed(), rows],
            2 => [rows.reversed(), columns.reversed()],
            _ => [columns, rows.reversed()],
        }
    }
}
