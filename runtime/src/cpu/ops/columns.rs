//! Rows cut into groups of columns and joined again: query and gate of a head, the rotated and the other part of a
//! head, the slice of a layer out of a row for all layers. Only copies: 8 bytes an element, no flops.

/// Of every `period` elements of `x`, `len` from `offset` on, one group after the other.
///
/// # Panics
/// Where a group is not within its period, or `out` does not hold all groups of `x`.
pub fn columns(x: &[f32], [period, offset, len]: [usize; 3], out: &mut [f32]) {
    assert_eq!(x.len() / period * len, out.len());
    for (x, out) in x.chunks_exact(period).zip(out.chunks_exact_mut(len)) {
        out.copy_from_slice(&x[offset..offset + len]);
    }
}

/// Groups of `lens[0]` elements of `a` and `lens[1]` of `b` in turn.
///
/// # Panics
/// Where the rows do not have equally many groups, or `out` does not hold them all.
pub fn join(a: &[f32], b: &[f32], lens: [usize; 2], out: &mut [f32]) {
    assert_eq!(a.len() / lens[0], b.len() / lens[1]);
    assert_eq!(a.len() + b.len(), out.len());
    let groups = a.chunks_exact(lens[0]).zip(b.chunks_exact(lens[1]));
    for ((a, b), out) in groups.zip(out.chunks_exact_mut(lens[0] + lens[1])) {
        out[..lens[0]].copy_from_slice(a);
        out[lens[0]..].copy_from_slice(b);
    }
}
