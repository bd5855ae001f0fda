//! How many transactions are under way at once: those that are answered soon do not wait for those
//! that are not.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of transactions in the first second.
const QUICK_BYTES: usize = 64 << 20;
/// Bytes of transactions that take longer.
const SLOW_BYTES: usize = 256 << 20;
/// What a transaction counts at least, for its connection: 1,024 quick and 4,096 slow ones.
const BYTES_MIN: usize = 64 << 10;
/// Semaphores count these.
const UNIT: usize = 1 << 10;

/// Two budgets. A transaction begins in the first and goes over to the second when its peer takes
/// its time, so that silent peers fill only the second.
#[derive(Debug)]
pub(super) struct Lanes {
    quick: Semaphore,
    slow: Semaphore,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            quick: Semaphore::new(QUICK_BYTES / UNIT),
            slow: Semaphore::new(SLOW_BYTES / UNIT),
        }
    }

    /// Waits for a place for a transaction of so many bytes. `None`: we are stopping.
    pub(super) async fn quick(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        self.quick.acquire_many(units(bytes)).await.ok()
    }

    /// A place for a transaction that takes longer, where there is one.
    pub(super) fn slow(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        self.slow.try_acquire_many(units(bytes)).ok()
    }
}

/// A transaction never asks for more than there is.
fn units(bytes: usize) -> u32 {
    let bytes = bytes.clamp(BYTES_MIN, QUICK_BYTES);
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Lanes, QUICK_BYTES};

    #[tokio::test]
    async fn who_is_slow_makes_room_for_others() {
        let lanes = Lanes::new();
        let all = lanes.quick(QUICK_BYTES * 2).await.unwrap();
        assert_eq!(lanes.quick.available_permits(), 0);
        let slow = lanes.slow(1).unwrap();
        drop(all);
        assert!(lanes.quick(1).await.is_some());
        drop(slow);
    }
}
