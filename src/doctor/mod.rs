//! Whether the machines at hand are fit for training, before a job finds out that they are not.
//!
//! Every rank looks at itself and its host ([`look`]); ranks ask what only several can see ([`together`]); and verdicts
//! are functions of what was seen ([`checks`]). It starts no MPI, loads no libtorch and reads no data sets: who asks
//! brings what these say of themselves ([`observation`]).

pub mod answer;
pub mod checks;
pub mod guard;
pub mod look;
pub mod observation;
pub mod report;
pub mod together;
