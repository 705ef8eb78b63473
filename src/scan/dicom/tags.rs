//! The elements of DICOM that tell of an image, by group and element.
//!
//! Knows their numbers alone.

/// Group and element.
pub(super) type Tag = (u16, u16);

pub(super) const TRANSFER_SYNTAX: Tag = (0x0002, 0x0010);
pub(super) const SLICE_THICKNESS: Tag = (0x0018, 0x0050);
pub(super) const SPACING_BETWEEN_SLICES: Tag = (0x0018, 0x0088);
pub(super) const SERIES_DESCRIPTION: Tag = (0x0008, 0x103e);
pub(super) const SERIES: Tag = (0x0020, 0x000e);
pub(super) const POSITION: Tag = (0x0020, 0x0032);
pub(super) const ORIENTATION: Tag = (0x0020, 0x0037);
pub(super) const SAMPLES: Tag = (0x0028, 0x0002);
pub(super) const PHOTOMETRIC: Tag = (0x0028, 0x0004);
pub(super) const PLANAR: Tag = (0x0028, 0x0006);
pub(super) const FRAMES: Tag = (0x0028, 0x0008);
pub(super) const ROWS: Tag = (0x0028, 0x0010);
pub(super) const COLUMNS: Tag = (0x0028, 0x0011);
pub(super) const PIXEL_SPACING: Tag = (0x0028, 0x0030);
pub(super) const BITS_ALLOCATED: Tag = (0x0028, 0x0100);
pub(super) const BITS_STORED: Tag = (0x0028, 0x0101);
pub(super) const HIGH_BIT: Tag = (0x0028, 0x0102);
pub(super) const IS_SIGNED: Tag = (0x0028, 0x0103);
pub(super) const INTERCEPT: Tag = (0x0028, 0x1052);
pub(super) const SLOPE: Tag = (0x0028, 0x1053);
pub(super) const PIXEL_DATA: Tag = (0x7fe0, 0x0010);

/// What all frames of a file have in common, and what each has of its own, in items of these sequences.
pub(super) const SHARED: Tag = (0x5200, 0x9229);
pub(super) const EACH_FRAME: Tag = (0x5200, 0x9230);
pub(super) const PLANE_POSITION: Tag = (0x0020, 0x9113);
pub(super) const PLANE_ORIENTATION: Tag = (0x0020, 0x9116);
pub(super) const PIXEL_MEASURES: Tag = (0x0028, 0x9110);
pub(super) const PIXEL_VALUES: Tag = (0x0028, 0x9145);

/// All sequences among them.
pub(super) const SEQUENCES: [Tag; 6] =
    [SHARED, EACH_FRAME, PLANE_POSITION, PLANE_ORIENTATION, PIXEL_MEASURES, PIXEL_VALUES];

/// All that an image is read from.
pub(super) const WANTED: [Tag; 27] = [
    TRANSFER_SYNTAX,
    SLICE_THICKNESS,
    SPACING_BETWEEN_SLICES,
    SERIES_DESCRIPTION,
    SERIES,
    POSITION,
    ORIENTATION,
    SAMPLES,
    PHOTOMETRIC,
    PLANAR,
    FRAMES,
    ROWS,
    COLUMNS,
    PIXEL_SPACING,
    BITS_ALLOCATED,
    BITS_STORED,
    HIGH_BIT,
    IS_SIGNED,
    INTERCEPT,
    SLOPE,
    PIXEL_DATA,
    SHARED,
    EACH_FRAME,
    PLANE_POSITION,
    PLANE_ORIENTATION,
    PIXEL_MEASURES,
    PIXEL_VALUES,
];
