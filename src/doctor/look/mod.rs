//! Looking: what the system tells a process of itself and of its host.
//!
//! Each file asks one part of the system, and nothing here judges. What may wait for ever is asked through
//! [`super::answer`].

pub mod folder;
pub mod gpus;
pub mod host;
pub mod loaded;
pub mod memory;
pub mod names;
