//! The parts of a data set that is learnt from image labels alone, and what a case of each part says.
//!
//! Images to train on say diseased or healthy and nothing else; images to measure with say where the
//! lesion is and have no image label, so that nothing can be trained on them. Knows no files.

use crate::data::{Case, DENSE, IMAGE_LABEL};
use crate::error::Result;
use crate::preparation::Preparation;
use crate::scan::{Grid, Scan};
use std::collections::BTreeMap;

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PreparedPart {
    /// To train on; shows a lesion.
    TrainDiseased,
    /// To train on; shows none.
    TrainHealthy,
    /// To choose checkpoints by; fold 1.
    Validation,
    /// To report; fold 2.
    Test,
}

impl PreparedPart {
    /// What the names of its cases begin with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::TrainDiseased => "train-diseased",
            Self::TrainHealthy => "train-healthy",
            Self::Validation => "val",
            Self::Test => "test",
        }
    }

    /// The fold that holds its cases out; 0 for none.
    fn fold(self) -> u32 {
        match self {
            Self::TrainDiseased | Self::TrainHealthy => 0,
            Self::Validation => 1,
            Self::Test => 2,
        }
    }
}

/// The class names by label value.
pub(super) fn classes() -> Vec<String> {
    ["background", "lesion"].map(String::from).to_vec()
}

/// One square image with what is known of it.
pub(super) struct PreparedPicture {
    pub(super) name: String,
    pub(super) patient: String,
    pub(super) part: PreparedPart,
    /// Rows and columns.
    pub(super) size: usize,
    /// As in [`Grid::spacing_mm`].
    pub(super) spacing_mm: Option<[f64; 3]>,
    /// Red, green and blue, each `size` x `size`.
    pub(super) planes: Vec<u8>,
    /// 1 where the lesion is, `size` x `size`; not looked at where the part is trained on.
    pub(super) lesion: Vec<u8>,
}

impl PreparedPicture {
    /// The case of one slice, with the only annotation that its part may have.
    pub(super) fn into_case(self) -> Result<Case> {
        let everywhere = |class| vec![class; self.size * self.size];
        let (kind, labels) = match self.part {
            PreparedPart::TrainDiseased => (IMAGE_LABEL, everywhere(1)),
            PreparedPart::TrainHealthy => (IMAGE_LABEL, everywhere(0)),
            PreparedPart::Validation | PreparedPart::Test => (DENSE, self.lesion),
        };
        let scan = Scan {
            grid: Grid::unplaced([1, self.size, self.size], self.spacing_mm),
            channels: 3,
            voxels: self.planes.into_iter().map(f32::from).collect(),
        };
        Ok(Case {
            name: self.name,
            patient: self.patient,
            frame: 0,
            modality: String::new(),
            classes_annotated: Vec::new(),
            fold: self.part.fold(),
            scan: Preparation::colours().apply(scan)?.scan,
            annotations: BTreeMap::from([(kind.into(), labels)]),
        })
    }
}
