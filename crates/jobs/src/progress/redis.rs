//! The mirror in Redis.
