//! The one integration-test binary: this file is its table of contents.
#![expect(clippy::float_cmp, reason = "tests compare exact values on purpose")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says why it skips")]

#[cfg(test)]
#[cfg(feature = "mpi")]
mod annotating;
#[cfg(test)]
mod architecture;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod bench;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod checking;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod classes_annotated;
#[cfg(test)]
mod cli;
#[cfg(test)]
#[cfg(feature = "torch")]
mod cmc;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod comm;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod dashboard_export;
#[cfg(test)]
mod dashboard_farm;
#[cfg(test)]
mod dashboard_laws;
#[cfg(test)]
mod dashboard_terminal;
#[cfg(test)]
mod dashboard_views;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_acdc;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod data_amos;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_brats;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_brats_scribbles;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_gaze;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_label_transfer;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_lesion_phantom;
#[cfg(test)]
#[cfg(feature = "torch")]
mod data_modalities;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_mscmr;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_packed;
#[cfg(test)]
#[cfg(feature = "torch")]
mod data_resident;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_shapes;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_volumes;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data_word;
#[cfg(test)]
mod dicom;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod distributed;
#[cfg(test)]
mod doctor;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod evaluating_files;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod export;
#[cfg(test)]
mod facts;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod fake_cuda;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod fake_gpu;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod farm;
#[cfg(test)]
mod farm_files;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod faults;
#[cfg(test)]
mod formats;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden;
#[cfg(test)]
mod golden_arrays;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod golden_augment;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_cltn;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_cmc;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_cyclemix;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_cyclemix_steps;
#[cfg(test)]
mod golden_dense_crf;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_dmsps;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod golden_dmsps_data;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod golden_expansion;
#[cfg(test)]
mod golden_gaze;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_gazesup;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_label_transfer;
#[cfg(test)]
mod golden_lesion;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_losses;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_maskmixadv;
#[cfg(test)]
mod golden_metrics;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_nets;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_pseudo_labels;
#[cfg(test)]
mod golden_puzzle;
#[cfg(test)]
mod golden_random_walker;
#[cfg(test)]
mod golden_scribbles;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod golden_slices;
#[cfg(test)]
#[cfg(feature = "torch")]
mod golden_steps;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod golden_transfer_augment;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod gpu_pack;
#[cfg(test)]
mod gpu_report;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod hanging;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod hosts;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod inputs;
#[cfg(test)]
#[cfg(feature = "torch")]
mod kernels_compiled;
#[cfg(test)]
#[cfg(feature = "torch")]
mod kernels_sanitized;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod kills;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod label_transfer;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod launching;
#[cfg(test)]
mod laws_annotation;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod laws_data;
#[cfg(test)]
mod laws_metrics;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod methods;
#[cfg(test)]
#[cfg(feature = "torch")]
mod micro_batches;
#[cfg(test)]
#[cfg(feature = "torch")]
mod mixings;
#[cfg(test)]
#[cfg(feature = "torch")]
mod native;
#[cfg(test)]
mod nifti_files;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod nnunet;
#[cfg(test)]
#[cfg(feature = "torch")]
mod non_finite;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod odd_volumes;
#[cfg(test)]
#[cfg(feature = "torch")]
mod overlap;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod own_data;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod owning;
#[cfg(test)]
#[cfg(feature = "torch")]
mod patches;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod predicting;
#[cfg(test)]
mod preparing;
#[cfg(test)]
mod promises;
#[cfg(test)]
#[cfg(feature = "torch")]
mod reference;
#[cfg(test)]
#[cfg(feature = "torch")]
mod regularisers;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod repeating;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod replay;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod resume;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod running;
#[cfg(test)]
mod scans;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod skips;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod stopping;
#[cfg(test)]
#[cfg(feature = "mpi")]
mod support;
#[cfg(test)]
#[cfg(feature = "torch")]
mod volumetric;
