//! Defaults with their units and reasons.

use std::time::Duration;

/// How long the compiler gathers changes before it publishes: long enough to batch a burst, short
/// against the 100 ms in which a change has to take effect.
pub const BATCH_WINDOW: Duration = Duration::from_millis(2);
