//! A slice that several workers write.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that the workers of a run write in parts.
///
/// ```
/// use handmill_runtime::cpu::pool::{Pool, SharedMut};
/// let mut squares = vec![0usize; 100];
/// let out = SharedMut::new(&mut squares);
/// Pool::new(2)?.run(&|worker| {
///     worker.for_each_range(100, 16, |range| {
///         // SAFETY: ranges of different items do not overlap, and nothing else reads `squares` in this phase.
///         let part = unsafe { out.slice_mut(range.clone()) };
///         part.iter_mut().zip(range).for_each(|(square, i)| *square = i * i);
///     });
/// });
/// assert_eq!(squares[99], 99 * 99);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]` whose parts go to different threads, which `T: Send` allows; that the parts do not
// overlap is what callers of `slice_mut` and `slice` promise.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Takes the slice for as long as the workers share it.
    pub fn new(slice: &'a mut [T]) -> Self {
        SharedMut { start: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// Elements in the whole slice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the slice has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part `range`, to write.
    ///
    /// # Safety
    /// While the returned slice lives, no other slice of an overlapping range may be in use, on any thread.
    ///
    /// # Panics
    /// If the range is not inside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} is outside of {} elements", self.len);
        // SAFETY: inside the slice that `new` took; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The part `range`, to read.
    ///
    /// # Safety
    /// While the returned slice lives, no part that overlaps it may be written.
    ///
    /// # Panics
    /// If the range is not inside the slice.
    pub unsafe fn slice(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} is outside of {} elements", self.len);
        // SAFETY: inside the slice that `new` took; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }
}
