//! The operators: one file or folder each, written over the vectors of [`arch`](super::arch).

pub mod linear;
