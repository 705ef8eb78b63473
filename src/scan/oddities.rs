//! What makes the shape or the spacing of an image unlikely, to be said of an image that is read all the same.

use super::alignment::FileGrid;
use super::notes::Notes;

/// Distances of voxels outside of which a file is probably wrong about its unit.
const PLAUSIBLE_MM: std::ops::RangeInclusive<f64> = 0.001..=100.0;

/// How much further apart slices are than pixels, where this tells them from rows and columns.
const SLICE_SPACING: f64 = 1.5;

/// How much fewer slices are than rows and columns, where this tells them apart.
const SLICE_COUNT: usize = 4;

impl FileGrid {
    /// Notes what makes the shape or the spacing of this image unlikely.
    pub fn note_oddities(&self, notes: &Notes) {
        let (shape, spacing_mm) = (self.grid.shape, self.grid.spacing_mm);
        if let Some(axis) = slices_along(shape, spacing_mm) {
            let sentence = format!(
                "slices seem to lie along {axis}: planes across them would be learnt; reorder the axes so that slices come last in NIfTI, first in HDF5"
            );
            notes.add(&sentence, &self.name);
        }
        let wide = (0..3).filter(|&axis| shape[axis] > 1);
        let mut distances_mm =
            spacing_mm.into_iter().flat_map(|mm| wide.clone().map(move |axis| mm[axis]));
        if let Some(mm) = distances_mm.find(|mm| !PLAUSIBLE_MM.contains(mm)) {
            let sentence = "voxels are so large or small that the unit of length in the header is probably wrong";
            notes.add(sentence, format!("{} ({mm} mm)", self.name));
        }
        if self.otherwise.is_some() {
            let sentence = "the sform and the qform of the header place the image differently, and the sform was followed";
            notes.add(sentence, &self.name);
        }
    }
}

/// The axis along which slices seem to lie, `rows` or `columns`, where it is not the first of `shape`; slices are few
/// and far apart.
pub fn slices_along(shape: [usize; 3], spacing_mm: Option<[f64; 3]>) -> Option<&'static str> {
    if shape.contains(&1) {
        return None;
    }
    let sparse = |axis: usize| {
        spacing_mm
            .map(|mm| (0..3).all(|other| other == axis || mm[axis] >= SLICE_SPACING * mm[other]))
    };
    let few = |axis: usize| {
        (0..3).all(|other| other == axis || shape[axis] * SLICE_COUNT <= shape[other])
    };
    if sparse(0) == Some(true) {
        return None;
    }
    let across = [(1, "rows"), (2, "columns")];
    let found = across.iter().find(|&&(axis, _)| sparse(axis) == Some(true));
    found.or_else(|| across.iter().find(|&&(axis, _)| few(axis))).map(|&(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::slices_along;

    #[test]
    fn slices_are_few_and_far_apart() {
        assert_eq!(slices_along([10, 256, 216], Some([8.0, 1.4, 1.4])), None);
        assert_eq!(slices_along([216, 256, 10], Some([1.4, 1.4, 8.0])), Some("columns"));
        assert_eq!(slices_along([256, 10, 216], None), Some("rows"));
        // Few planes, but those are what lies far apart.
        assert_eq!(slices_along([216, 256, 10], Some([8.0, 1.4, 1.4])), None);
        assert_eq!(slices_along([155, 240, 240], Some([1.0; 3])), None);
        assert_eq!(slices_along([1, 256, 10], None), None);
    }
}
