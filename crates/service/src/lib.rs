//! What both services share: configuration, logs, signals, health.
