//! Public data sets to ours.
