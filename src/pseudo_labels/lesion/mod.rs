//! The lesion in a soft mask: the mask as an 8-bit picture, and the two labels that are made of it.
//!
//! The inference of mlcb-jlu/MedImgSeg (73c6b9e): `CBFNet.py` masks and saves, `findContours.py`
//! makes the watershed label with which checkpoints are chosen, and `infer_cls_test_our20210321.py`
//! the label of the dense CRF. Knows one picture and its mask; which network gave the mask, which
//! `alpha` is best and how labels score is for others to say.

mod crf_label;
mod grey;
mod morphology;
mod watershed;

pub use crf_label::{FIELD, crf_scores, cut_corners, stretched_levels};
pub use grey::{dark_pixels_cleared, reversed_levels, stored_grey};
pub use morphology::otsu;
pub use watershed::watershed_label;

use crate::error::{Failure, Result};

/// The highest grey level that is background in a saved label.
const HIGHEST_BACKGROUND_LEVEL: u8 = 127;

/// Whether a grey level of a saved label, 0 to 255, means lesion: `level / 255 > 0.5`.
pub fn is_lesion(level: u8) -> bool {
    level > HIGHEST_BACKGROUND_LEVEL
}

/// A picture and how much each of its pixels belongs to a lesion.
#[derive(Debug, Clone, Copy)]
pub struct SoftLesion<'a> {
    /// Pixels of a row.
    pub columns: usize,
    /// Grey levels of red, green and blue, `[rows, columns, 3]`, row-major.
    pub image: &'a [u8],
    /// The mask, `[rows, columns]`, in `[0, 1]`.
    pub mask: &'a [f32],
}

impl SoftLesion<'_> {
    /// The picture that is saved: one minus the mask in grey levels, `[rows, columns, 3]`, in which
    /// the lesion is dark. Channels differ where some, but not all, of the image are 0.
    pub fn reversed(&self) -> Result<Vec<u8>> {
        self.check()?;
        Ok(reversed_levels(&dark_pixels_cleared(self.image, self.mask)))
    }

    /// Which pixels, `[rows, columns]`, are lesion after the dense CRF.
    ///
    /// `alpha`, 1 to 8 in the repository, weakens the background where the mask is uncertain. The
    /// decision is that of the saved picture: the marginals, 0 in the corners, are stretched to all
    /// grey levels before they are compared with one half.
    pub fn crf_label(&self, alpha: u32) -> Result<Vec<bool>> {
        let grey = stored_grey(&self.reversed()?);
        let mut marginals = crf_label::lesion_marginals(self, &crf_scores(&grey, alpha))?;
        cut_corners(&mut marginals, self.columns);
        Ok(stretched_levels(&marginals).into_iter().map(is_lesion).collect())
    }

    /// The watershed label of the saved picture, `[rows, columns, 3]`; see [`watershed_label`].
    pub fn watershed_label(&self) -> Result<Vec<u8>> {
        watershed_label(&self.reversed()?, self.columns)
    }

    fn check(&self) -> Result<()> {
        let pixels = self.mask.len();
        if pixels == 0
            || self.columns == 0
            || !pixels.is_multiple_of(self.columns)
            || self.image.len() != 3 * pixels
        {
            return Err(Failure::new(format!(
                "a mask of {pixels} pixels in rows of {} belongs to an image of {} grey levels, expected whole rows and three levels for every pixel",
                self.columns,
                self.image.len()
            ))
            .hint("pass an image `[rows, columns, 3]` and one channel of the mask, `[rows, columns]`"));
        }
        if let Some(pixel) = self.mask.iter().position(|value| !(0.0..=1.0).contains(value)) {
            return Err(Failure::new(format!(
                "the mask at row {}, column {} is {}, expected a number from 0 to 1",
                pixel / self.columns,
                pixel % self.columns,
                self.mask[pixel]
            ))
            .hint("pass the mask after its sigmoid"));
        }
        Ok(())
    }
}
