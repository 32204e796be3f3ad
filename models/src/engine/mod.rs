//! Sessions, scheduling and sampling.

pub mod sampling;
