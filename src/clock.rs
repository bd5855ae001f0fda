//! The time of day, in one place.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// A bucket of tokens that fills with time: what is limited takes one.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    since: Instant,
}

impl Bucket {
    /// With so many tokens.
    pub fn new(tokens: f64) -> Self {
        Self {
            tokens,
            since: Instant::now(),
        }
    }

    /// Takes a token, or says when there will be one. It fills with so many a second, up to `most`.
    pub fn take(&mut self, rate: (f64, f64)) -> Result<(), Duration> {
        self.look(rate)?;
        self.tokens -= 1.0;
        Ok(())
    }

    /// Says when there will be a token, where there is none, and takes none.
    pub fn look(&mut self, (per_second, most): (f64, f64)) -> Result<(), Duration> {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.tokens = (self.tokens + passed * per_second).min(most);
        self.since = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / per_second));
        }
        Ok(())
    }
}
