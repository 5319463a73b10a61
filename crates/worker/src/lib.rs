//! Takes jobs from the queue, makes their images, stores them.
