//! The time of day, in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// Milliseconds since 1970, as columns and events hold them.
pub fn now_ms() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// The same as ruma's type.
pub fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(from_ms(now_ms()))
}

/// A column value as ruma's number; negative values, which no clock of ours gives, become 0.
pub fn from_ms(ms: i64) -> UInt {
    UInt::try_from(ms).unwrap_or_default()
}
