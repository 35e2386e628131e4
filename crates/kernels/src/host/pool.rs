//! Memory for results, used again from step to step.
//!
//! A step allocates and frees hundreds of megabytes in pieces of megabytes. The system's allocator gives such pieces back
//! to the kernel and asks for them anew, so that every page of every result is cleared and mapped again on first touch: a
//! fifth of a step's time (docs/measurements.md). Steps ask for the same sizes, so the pieces are kept instead.

use std::collections::BTreeMap;
use std::mem::{MaybeUninit, take};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

/// Smaller pieces are the allocator's own business.
const SMALLEST: usize = 4 * 1024;

/// Pieces of memory, counted in numbers of four bytes.
struct Pool {
    /// By their length.
    idle: BTreeMap<usize, Vec<Vec<f32>>>,
    idle_total: usize,
    live_total: usize,
    /// The most that was ever in use.
    most_live: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    idle: BTreeMap::new(),
    idle_total: 0,
    live_total: 0,
    most_live: 0,
});

/// A panic elsewhere leaves the counts as they were: nothing in here is ever half done.
fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A piece of exactly this length, if one is idle. Otherwise room is made for a new one.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        self.live_total += len;
        self.most_live = self.most_live.max(self.live_total);
        if let Some(pieces) = self.idle.get_mut(&len)
            && let Some(piece) = pieces.pop()
        {
            self.idle_total -= len;
            return Some(piece);
        }
        // Sizes that are not asked for any more go: never more is held than an eighth above what was once in use.
        let allowed = self.most_live + self.most_live / 8;
        while self.live_total + self.idle_total > allowed {
            let Some(mut largest) = self.idle.last_entry() else {
                break;
            };
            match largest.get_mut().pop() {
                Some(piece) => self.idle_total -= piece.len(),
                None => drop(largest.remove()),
            }
        }
        None
    }

    fn give_back(&mut self, piece: Vec<f32>) {
        self.live_total -= piece.len();
        self.idle_total += piece.len();
        self.idle.entry(piece.len()).or_default().push(piece);
    }
}

/// Gives the memory that is kept for coming results back to the system.
pub(crate) fn release() {
    let mut pool = pool();
    pool.idle.clear();
    pool.idle_total = 0;
    pool.most_live = pool.live_total;
}

/// Numbers in memory of the pool, to which it returns.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// As long as the piece that was lent.
    piece: Vec<f32>,
    len: usize,
}

/// Room for a result that writes every number: what is there before is left over from another one.
pub(crate) fn buffer(len: usize) -> Buffer {
    if len < SMALLEST {
        return Buffer::from(vec![0.0; len]);
    }
    // Rounded up in the fourth binary digit, so that batches of similar lengths share their pieces.
    let class = len.next_multiple_of(1 << (len.ilog2() - 3));
    let piece = pool().take(class);
    Buffer {
        piece: piece.unwrap_or_else(|| vec![0.0; class]),
        len,
    }
}

/// Room for a result that adds to its numbers.
pub(crate) fn zeroed(len: usize) -> Buffer {
    let mut buffer = buffer(len);
    buffer.fill(0.0);
    buffer
}

impl From<Vec<f32>> for Buffer {
    /// A piece that is not the pool's stays out of it.
    fn from(piece: Vec<f32>) -> Self {
        let len = piece.len();
        if len >= SMALLEST {
            pool().live_total += len;
        }
        Self { piece, len }
    }
}

impl Buffer {
    /// The numbers alone, in memory that does not return.
    #[cfg(feature = "ndarray")]
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        let mut piece = take(&mut self.piece);
        if piece.len() >= SMALLEST {
            pool().live_total -= piece.len();
        }
        piece.truncate(self.len);
        piece
    }

    /// The numbers as the memory of a tensor.
    pub(crate) fn into_bytes(self) -> Bytes {
        let len = size_of_val::<[f32]>(&self);
        // SAFETY: all numbers of a piece are initialized.
        unsafe { Bytes::from_controller(Box::new(Lease(self)), len) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = buffer(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let piece = take(&mut self.piece);
        if piece.len() >= SMALLEST {
            pool().give_back(piece);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.piece[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.piece[..self.len]
    }
}

/// A buffer under Burn's bytes: dropped with them.
struct Lease(Buffer);

impl AllocationController for Lease {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.0);
        // SAFETY: the same bytes; the caller promises to write initialized ones only.
        Ok(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.0);
        // SAFETY: the same bytes, which as initialized ones are also maybe initialized.
        Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_comes_back_for_the_next_result_of_its_size() {
        // A size that no other test uses: they share the pool.
        let len = 5_555_555;
        let first = buffer(len);
        let at = first.as_ptr();
        drop(first);
        let second = buffer(len - 10);
        assert_eq!(second.as_ptr(), at);
        assert_eq!(second.len(), len - 10);
        assert!(zeroed(len).iter().all(|x| *x == 0.0));
    }

    #[test]
    fn bytes_hold_the_numbers_and_give_them_back() {
        let len = 6_666_666;
        let mut numbers = buffer(len);
        numbers.fill(1.5);
        let at = numbers.as_ptr();
        let bytes = numbers.into_bytes();
        assert_eq!(bytes.len(), 4 * len);
        let copy = bytes.clone();
        assert_eq!(bytemuck::cast_slice::<u8, f32>(&copy)[len - 1], 1.5);
        drop(bytes);
        assert_eq!(buffer(len).as_ptr(), at);
    }

    #[test]
    fn what_is_held_stays_near_what_was_in_use() {
        let mut pool = Pool {
            idle: BTreeMap::new(),
            idle_total: 0,
            live_total: 0,
            most_live: 0,
        };
        for len in (10_000..20_000).step_by(100) {
            let piece = pool.take(len).unwrap_or_else(|| vec![0.0; len]);
            pool.give_back(piece);
        }
        assert!(pool.idle_total <= 2 * 20_000, "{}", pool.idle_total);
        assert_eq!(pool.live_total, 0);
    }
}
