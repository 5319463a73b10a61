//! Accepts batches, feeds the queue, concludes outcomes, serves the HTTP API.
