//! `[data.lesion_phantom]` and `[data.gaze_phantom]`: synthetic pictures as somebody asks for them.
//!
//! Knows keys and their defaults in words; what becomes of them stands in `phantoms`.

use serde::{Deserialize, Serialize};

/// `[data.lesion_phantom]`: synthetic diseased and healthy images with the annotation `image_label`; those
/// to validate with are fold 1, those to test with fold 2.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LesionPhantomConfig {
    /// How many diseased images to train on (default 200).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cases: Option<usize>,
    /// How many healthy images to train on (default 200).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<usize>,
    /// How many images with known lesions to validate with (default 32).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<usize>,
    /// How many images with known lesions to test with; may be 0 (default 32).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<usize>,
    /// Rows and columns of each image (default 64).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Equal seeds give equal data (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// `[data.gaze_phantom]`: synthetic pictures with lesions, the annotation `gaze` and dense labels; those to validate
/// with are fold 1, those to test with fold 2.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GazePhantomConfig {
    /// How many pictures to train on (default 200).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cases: Option<usize>,
    /// How many pictures to validate with (default 32).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<usize>,
    /// How many pictures to test with; may be 0 (default 32).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<usize>,
    /// Rows and columns of each picture (default 64).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// At which shares maps of gaze are cut, each larger than the one before (default `[0.3, 0.5]`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub levels: Option<Vec<f64>>,
    /// Equal seeds give equal data (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}
