//! Bodies of peers' answers: bounded one by one and all together, and none that is much larger in
//! memory than on the wire.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// MiB of large answers that are held at the same time: a peer that answers many requests at once
/// must not get further than one that answers a few.
const TOGETHER_MIB: usize = 512;
/// Bytes from which on an answer is a large one. Those below do no harm.
const LARGE_FROM: usize = 4 << 20;
/// Bytes of a large answer for each comma in it. Events have one in some forty bytes, ids one in
/// fifty; a list of `0` has one in two, and becomes twenty times as large when it is parsed.
const BYTES_A_COMMA_MIN: usize = 16;

/// What large answers share. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

/// An answer's bytes, and its share of the budget as long as somebody keeps that.
pub(super) type Body = (Vec<u8>, Option<Arc<OwnedSemaphorePermit>>);

/// Why an answer was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The connection.
    #[error(transparent)]
    Broken(#[from] reqwest::Error),
    /// Its own bound.
    #[error("the answer is too large")]
    TooLarge,
    /// The bound of all.
    #[error("too many large answers at the same time")]
    TooMany,
    /// Nothing but commas.
    #[error("the answer is a list of next to nothing")]
    TooDense,
}

/// Reads a small answer, of at most so many bytes.
pub async fn read(mut answer: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > bytes_max {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(TOGETHER_MIB)))
    }

    /// Reads an answer of at most so many bytes.
    pub(super) async fn read(
        &self,
        answer: &mut reqwest::Response,
        bytes_max: usize,
    ) -> Result<Body, Unread> {
        let mut body = Vec::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > bytes_max {
                return Err(Unread::TooLarge);
            }
            body.extend_from_slice(&chunk);
            if body.len() >= LARGE_FROM {
                self.grow(&mut share, body.len() >> 20)?;
            }
        }
        if body.len() >= LARGE_FROM && is_dense(&body) {
            return Err(Unread::TooDense);
        }
        Ok((body, share.map(Arc::new)))
    }

    fn grow(&self, share: &mut Option<OwnedSemaphorePermit>, mib: usize) -> Result<(), Unread> {
        let have = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(mib.saturating_sub(have)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        // Who waited would hold its part while it waits, and so might all.
        let permit = self.0.clone().try_acquire_many_owned(more);
        let permit = permit.map_err(|_| Unread::TooMany)?;
        match share {
            Some(share) => share.merge(permit),
            None => *share = Some(permit),
        }
        Ok(())
    }
}

fn is_dense(body: &[u8]) -> bool {
    memchr::memchr_iter(b',', body).count() > body.len() / BYTES_A_COMMA_MIN
}

#[cfg(test)]
mod tests {
    use super::{Budget, TOGETHER_MIB, is_dense};

    #[test]
    fn lists_of_nothing_are_dense_and_lists_of_ids_are_not() {
        assert!(is_dense("0,".repeat(100).as_bytes()));
        assert!(is_dense("{},".repeat(100).as_bytes()));
        let id = format!("\"${}\",", "x".repeat(43));
        assert!(!is_dense(id.repeat(100).as_bytes()));
    }

    #[test]
    fn a_share_grows_to_what_is_there_and_is_given_back() {
        let budget = Budget::new();
        let (mut one, mut other) = (None, None);
        budget.grow(&mut one, 100).unwrap();
        budget.grow(&mut one, 100).unwrap();
        budget.grow(&mut other, TOGETHER_MIB - 100).unwrap();
        assert!(budget.grow(&mut one, 101).is_err());
        drop(other);
        budget.grow(&mut one, 101).unwrap();
    }
}
