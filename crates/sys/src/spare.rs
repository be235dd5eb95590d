//! Handing the free part of a buffer to the kernel.

use bytes::BufMut;

/// The free part of a buffer that a read may fill.
#[expect(
    unsafe_code,
    reason = "bytes has no safe way to hand spare room to the kernel"
)]
pub(crate) fn spare(buffer: &mut impl BufMut, max: usize) -> &mut [std::mem::MaybeUninit<u8>] {
    if !buffer.has_remaining_mut() {
        return &mut [];
    }
    let chunk = buffer.chunk_mut();
    let len = chunk.len().min(max);
    // SAFETY: `as_uninit_slice_mut` must not be used to write uninitialised bytes over initialised
    // ones; the kernel writes only initialised bytes.
    let spare = unsafe { chunk.as_uninit_slice_mut() };
    &mut spare[..len]
}

/// Counts the first `n` bytes of what [`spare`] returned as filled.
#[expect(
    unsafe_code,
    reason = "bytes has no safe way to count what the kernel wrote"
)]
pub(crate) fn advance(buffer: &mut impl BufMut, n: usize) {
    // SAFETY: every caller passes the number of bytes the kernel has just written into the first
    // chunk of the spare room, which `spare` had cut to fit.
    unsafe {
        buffer.advance_mut(n);
    }
}
