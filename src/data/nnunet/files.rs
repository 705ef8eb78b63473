//! Images and labels of a raw folder of nnU-Net, one file for each channel and one of labels.
//!
//! What cases are for the plan has decided.

use super::{RawFolderPlan, Role, level};
use crate::data::{Case, DENSE, IGNORE};
use crate::error::{Context, Failure, Result};
use crate::scan::{Grid, LabelWriter, MapWriter, write_picture};
use std::path::Path;

/// How far apart slices are where each case is one and nobody knows: nnU-Net takes the axis with the largest distance for
/// that of slices, and has this number for pictures itself.
const ALONE_MM: f64 = 999.0;

impl Role {
    /// What the folders of its images and its labels end with.
    fn ending(self) -> &'static str {
        match self {
            Self::Learned | Self::Scored => "Tr",
            Self::Tested => "Ts",
        }
    }
}

impl RawFolderPlan<'_> {
    /// What names of files end with.
    pub(super) fn ending(&self) -> &'static str {
        if self.are_pictures { ".png" } else { ".nii.gz" }
    }

    /// Where the files of a case lie.
    fn grid(&self, case: &Case) -> Grid {
        let mut grid = case.scan.grid.clone();
        if self.is_flat {
            grid.spacing_mm = match grid.spacing_mm {
                None => Some([ALONE_MM, 1.0, 1.0]),
                Some([slices, rows, columns]) if slices < rows.max(columns) => {
                    Some([ALONE_MM, rows, columns])
                }
                known => known,
            };
        }
        grid
    }
}

/// Writes the files of all cases into `folder`.
pub(super) fn write(plan: &RawFolderPlan<'_>, folder: &Path, written: &dyn Fn()) -> Result<()> {
    let make = |name: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(&path)
            .context(|| format!("cannot make `{}`", path.display()))
            .map(|()| path)
    };
    for (case, role) in &plan.cases {
        let ending = role.ending();
        images(plan, case, &make(&format!("images{ending}"))?)?;
        let dense = case.annotations.get(DENSE);
        let labels = match role {
            Role::Learned => {
                case.annotations.get(&plan.annotation).map(|values| known(plan, case, values))
            }
            Role::Scored => dense.map(|values| known(plan, case, values)),
            Role::Tested => dense.cloned(),
        };
        if let Some(labels) = labels {
            write_labels(plan, case, &labels, &make(&format!("labels{ending}"))?)?;
        }
        let is_beside = *role != Role::Tested && plan.annotation != DENSE;
        if let Some(dense) = dense.filter(|_| is_beside) {
            write_labels(plan, case, dense, &make("labelsTr_dense")?)?;
        }
        written();
    }
    Ok(())
}

/// Labels in which what nobody knows is ignored: unlabelled voxels, and background where nobody looked for some classes.
fn known(plan: &RawFolderPlan<'_>, case: &Case, values: &[u8]) -> Vec<u8> {
    let Some(ignore) = plan.ignore else { return values.to_vec() };
    let is_partial = case.lacks_classes(plan.dataset.classes.len());
    let label =
        |&value: &u8| if value == IGNORE || (is_partial && value == 0) { ignore } else { value };
    values.iter().map(label).collect()
}

fn images(plan: &RawFolderPlan<'_>, case: &Case, folder: &Path) -> Result<()> {
    let scan = &case.scan;
    let path = |channel: usize| folder.join(format!("{}_{channel:04}{}", case.name, plan.ending()));
    let pixels = scan.grid.pixels();
    if plan.are_pictures {
        let planes: Vec<&[f32]> = scan.voxels.chunks(pixels.max(1)).collect();
        let levels =
            (0..pixels).flat_map(|pixel| planes.iter().map(move |plane| level(plane[pixel])));
        let levels = levels.collect::<Option<Vec<u8>>>().ok_or_else(|| {
            Failure::new(format!("case `{}` holds other levels than 0 to 255", case.name))
        })?;
        let [_, rows, columns] = scan.grid.shape;
        return write_picture(&path(0), [rows, columns], &levels);
    }
    let grid = plan.grid(case);
    for channel in 0..scan.channels {
        let mut file = MapWriter::create(&path(channel), &grid, None)?;
        for slice in 0..grid.shape[0] {
            file.append(&scan.slice(slice)[channel * pixels..][..pixels])?;
        }
        file.finish()?;
    }
    Ok(())
}

fn write_labels(plan: &RawFolderPlan<'_>, case: &Case, labels: &[u8], folder: &Path) -> Result<()> {
    let path = folder.join(format!("{}{}", case.name, plan.ending()));
    let mut file = LabelWriter::create(&path, &plan.grid(case), None)?;
    file.append(labels)?;
    file.finish()
}
