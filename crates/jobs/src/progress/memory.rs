//! The mirror in memory.
