//! The dashboard of a farm: one row for each job, and the dashboard of a run behind every row that has one.
//!
//! It sees a farm only through its directory and touches nothing there but the request to stop, when asked twice.
//! What is read, how it is folded, what keys do and how it is drawn stand in files of their own.

mod columns;
mod course;
mod facts;
mod feed;
mod keys;
mod live;
mod once;
mod ui;
mod view;

pub use course::Course;
pub use facts::{FarmFacts, JobFacts};
pub use feed::FarmFeed;
pub use keys::FARM_KEYS;
pub use live::{FarmMessage, FarmSource, on_terminal, run};
pub use once::{follow, once};
pub use ui::FarmUi;
