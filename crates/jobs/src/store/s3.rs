//! The store in S3.
