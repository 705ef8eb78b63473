//! The schema of the run log.
