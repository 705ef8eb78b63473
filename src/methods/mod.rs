//! The list of all methods.
