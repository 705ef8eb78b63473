//! The command line, types only.
