//! Aligned memory that the workers of one run share.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
};

use super::CpuError;

/// Zeroed memory, aligned to a cache line, that several workers read and write in disjoint parts. Pages of the system
/// that nobody touches cost no memory.
#[derive(Debug)]
pub(crate) struct Buffer {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its memory; all access to the contents goes through the unsafe methods below, whose callers
// promise that parts written are disjoint from all other parts in use.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    const ALIGN: usize = 64;

    /// `bytes` of zeroes; `what` names the buffer where there is no memory for it.
    pub fn new(bytes: usize, what: &'static str) -> Result<Self, CpuError> {
        let no_memory = || CpuError::OutOfMemory { what, bytes };
        let layout = Layout::from_size_align(bytes.max(1), Self::ALIGN).map_err(|_| no_memory())?;
        // SAFETY: the layout's size is at least 1.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(no_memory)?;
        Ok(Self { ptr, layout })
    }

    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// `len` elements from element `start`.
    ///
    /// # Safety
    /// Nobody writes to these elements while the slice lives.
    pub unsafe fn slice<T: bytemuck::Pod>(&self, start: usize, len: usize) -> &[T] {
        let ptr = self.element::<T>(start, len);
        // SAFETY: `element` has checked the bounds and the alignment; the caller excludes writers.
        unsafe { std::slice::from_raw_parts(ptr, len) }
    }

    /// `len` elements from element `start`, for writing.
    ///
    /// # Safety
    /// Nobody else uses these elements while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut<T: bytemuck::Pod>(&self, start: usize, len: usize) -> &mut [T] {
        let ptr = self.element::<T>(start, len);
        // SAFETY: `element` has checked the bounds and the alignment; the caller excludes all others.
        unsafe { std::slice::from_raw_parts_mut(ptr, len) }
    }

    /// The address of element `start`, checked to have `len` elements from there.
    pub fn element<T: bytemuck::Pod>(&self, start: usize, len: usize) -> *mut T {
        let size = size_of::<T>();
        let end = start.checked_add(len).and_then(|e| e.checked_mul(size));
        assert!(end.is_some_and(|e| e <= self.len()), "{len} elements at {start} leave a buffer of {}", self.len());
        // SAFETY: within the allocation, as just checked.
        unsafe { self.ptr.as_ptr().add(start * size).cast() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}
