//! Training as every method sees it: a method is one iteration, everything else exists once.
//!
//! The trainer knows the trait [`Method`] and no method, no network and no loss.

mod blend;
mod buckets;
pub mod checkpoint;
mod context;
mod cut;
pub mod evaluate;
pub mod inference;
mod judges;
pub mod learner;
mod links;
mod method;
pub mod non_finite;
pub mod numbers;
mod objective;
pub mod optimizer;
mod pace;
pub mod point;
pub mod preview;
pub mod recorder;
pub mod replay;
mod report;
pub mod schedule;
pub mod scores;
pub mod stopping;
pub mod trainer;
pub mod watchdog;
pub mod windows;

pub use context::{StepContext, saliency};
pub use method::{Drawing, ForwardMode, Method, step_in_parts};
pub use objective::{Objective, Weight};
pub use report::{FetchedNumbers, StepReport};
