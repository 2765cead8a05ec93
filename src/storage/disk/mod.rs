//! Layer 6: the store on disk.

#![allow(clippy::disallowed_methods)] // the I/O half reads the clock

pub mod files;
