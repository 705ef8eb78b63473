//! `[data.lesion_phantom]`, `[data.gaze_phantom]` and `[data.two_modality_phantom]`: synthetic data as somebody asks for
//! them.
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

/// `[data.two_modality_phantom]`: synthetic abdomens of different patients in CT and in MR, few of them labelled; those to
/// validate with are fold 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwoModalityPhantomConfig {
    /// How many patients of each modality to train on (default 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cases: Option<usize>,
    /// How many patients of each modality to validate with (default 5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<usize>,
    /// About how many slices a case has, 8 or more (default 24).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slices: Option<usize>,
    /// About how many rows and columns a slice has before it is cropped (default 64).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// The share of the patients to train on who are labelled, above 0 and up to 1 (default 0.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labelled_share: Option<f64>,
    /// Equal seeds give equal data (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}
