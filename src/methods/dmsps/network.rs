//! The networks of DMSPS with one face: an encoder and two decoders, of which one sees some channels.
//!
//! Knows no loss and no step.

use crate::error::Result;
use crate::nets::Pass;
use crate::nets::topology::Topology;
use crate::nets::unet::{UNetCct, channel_dropout};
use crate::nets::volumetric_cct::{self, VolumetricCct};
use crate::parameters::Scope;
use tch::Tensor;

/// One encoder, two decoders.
pub(super) enum Net {
    /// By a topology, over images or volumes.
    Shaped(UNetCct),
    /// The published one over volumes.
    Volumetric(VolumetricCct),
}

impl Net {
    /// With these levels, and their channels, finest first; `ends` are the channels of images and the classes.
    pub(super) fn shaped(
        scope: &mut Scope<'_>,
        ends: [i64; 2],
        topology: &Topology,
    ) -> (Self, Vec<i64>) {
        let channels = topology.levels().map(|level| level.channels).collect();
        (Self::Shaped(UNetCct::shaped(scope, ends[0], ends[1], topology)), channels)
    }

    /// The published one over volumes, and the channels of its levels, finest first.
    pub(super) fn volumetric(scope: &mut Scope<'_>, ends: [i64; 2]) -> (Self, Vec<i64>) {
        let net = VolumetricCct::new(scope, ends[0], ends[1]);
        (Self::Volumetric(net), volumetric_cct::CHANNELS.to_vec())
    }

    /// Logits `[N, classes, ...]` of the main decoder.
    pub(super) fn segment(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Shaped(net) => net.segment(image, pass),
            Self::Volumetric(net) => net.segment(image, pass),
        }
    }

    /// Logits of the main and of the auxiliary decoder; where `kept` says so (`[N or 1, C]` of 0 and 1 for each
    /// level), the latter sees the kept channels alone, doubled.
    pub(super) fn both(
        &self,
        image: &Tensor,
        pass: &Pass,
        kept: Option<&[Tensor]>,
    ) -> Result<[Tensor; 2]> {
        let perturb = |level: usize, features: &Tensor| match kept {
            Some(kept) => channel_dropout(features, &kept[level]),
            None => features.shallow_clone(),
        };
        let (main, auxiliary) = match self {
            Self::Shaped(net) => net.forward(image, pass, perturb)?,
            Self::Volumetric(net) => net.forward(image, pass, perturb)?,
        };
        Ok([main, auxiliary])
    }
}
