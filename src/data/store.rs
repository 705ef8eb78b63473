//! The packed HDF5 file.
