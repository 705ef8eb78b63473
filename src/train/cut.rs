//! A scan and the windows over it: which part of a map a network sees, and what it makes of that put back.
//!
//! Knows no network.

use super::blend::within_padding;
use super::method::Drawing;
use super::windows::{Group, Lattice};
use crate::data::IGNORE;
use crate::scan::Scan;
use tch::{Device, Kind, Tensor};

/// A scan and the windows over it.
pub(super) struct Cut<'s> {
    pub(super) scan: &'s Scan,
    pub(super) lattice: Lattice,
    /// Those that go through the networks together, in their order.
    pub(super) groups: Vec<Group>,
}

impl Cut<'_> {
    /// The shape of what networks find in a group.
    pub(super) fn extents(&self, group: &Group, classes: i64) -> Vec<i64> {
        let ([depth, rows, columns], windows) = (self.lattice.window, group.windows.len());
        let plane = [rows as i64, columns as i64];
        let slices = self.lattice.layers[group.layer].len();
        let front = if depth > 1 {
            vec![windows as i64, classes, depth as i64]
        } else {
            vec![(windows * slices) as i64, classes]
        };
        [front, plane.to_vec()].concat()
    }

    /// Labels of all slices with nothing known of their padding: `[slices, rows, columns]` i64.
    pub(super) fn padded(&self, labels: &Tensor) -> Tensor {
        let extents = self.lattice.padded.map(|extent| extent as i64);
        let whole = Tensor::full(extents, i64::from(IGNORE), (Kind::Int64, Device::Cpu));
        within_padding(&whole, &self.lattice).copy_(labels);
        whole
    }

    /// The part of padded labels that the network sees of the slices of a group.
    pub(super) fn only_window(&self, labels: &Tensor, group: &Group) -> Tensor {
        let slices = &self.lattice.layers[group.layer];
        let labels = labels.narrow(0, slices.start as i64, slices.len() as i64);
        self.lattice.corners.iter().fold(labels, |labels, &corner| self.window(&labels, corner))
    }

    /// The window of padded slices whose first row and column are given, as a view.
    pub(super) fn window(&self, slices: &Tensor, [row, column]: [usize; 2]) -> Tensor {
        let [_, rows, columns] = self.lattice.window.map(|extent| extent as i64);
        slices.narrow(-2, row as i64, rows).narrow(-1, column as i64, columns)
    }

    /// A drawing of the only window of slices on the grid of predictions, with nothing around it.
    pub(super) fn put_back(&self, drawing: &Drawing) -> Drawing {
        let around = |picture: &Tensor, fill: f64| {
            let mut extents = picture.size();
            let last = extents.len() - 2;
            for (extent, &padded) in extents[last..].iter_mut().zip(&self.lattice.padded[1..]) {
                *extent = padded as i64;
            }
            let whole = Tensor::full(&*extents, fill, (picture.kind(), picture.device()));
            for &corner in &self.lattice.corners {
                self.window(&whole, corner).copy_(picture);
            }
            within_padding(&whole, &self.lattice)
        };
        match drawing {
            Drawing::Intensities(image) => Drawing::Intensities(around(image, 0.0)),
            Drawing::Shares(shares) => Drawing::Shares(around(shares, 0.0)),
            Drawing::Classes(classes) => Drawing::Classes(around(classes, f64::from(IGNORE))),
        }
    }

    pub(super) fn is_last_of_layer(&self, group: &Group) -> bool {
        group.windows.end == self.lattice.corners.len()
    }
}
