//! Farms: many jobs from one file, started as room for them becomes free.
//!
//! [`mod@file`] is what the user wrote, [`plan`] the jobs that follow from it, [`queue`] decides which of them starts when,
//! [`outages`] which nodes are asked whether they answer, and [`summary`] says in the end how the rows did, which
//! [`table`] draws. Nothing here starts a process or waits for one; what a job leaves on disk is read in [`results`], and
//! how it is written down is known to `runlog::farm`.

mod allocation;
pub mod file;
mod free;
pub mod machine;
pub mod nodes;
pub mod outages;
mod placeholders;
pub mod plan;
pub mod queue;
pub mod results;
pub mod scores;
pub mod submit;
pub mod summary;
pub mod table;
