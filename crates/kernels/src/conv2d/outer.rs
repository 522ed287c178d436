//! The inner loop of weight gradients: a sum of outer products, a block of source channels by a block of output channels.

use super::pack::BLOCK;
use crate::isa::Isa;
use crate::matmul::{View, matmul};

/// Rows of two matrices of `count` rows: groups of `group` rows, `x_row` values apart in the first and `BLOCK` in the second, and
/// `between` values from one group to the next.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    pub(super) group: usize,
    pub(super) between: usize,
    pub(super) x_row: usize,
}

impl Groups {
    /// The values from the first row to the end of the last.
    fn len(self, count: usize, row: usize) -> usize {
        (count - 1) / self.group * self.between + (count - 1) % self.group * row + BLOCK
    }
}

/// Values that will be needed soon, row by row: a product asks the memory for them on its way.
pub(super) type Ahead<'a> = &'a [*const f32];

/// `sum` `[inputs, BLOCK]` += `x` `[count, inputs]`, transposed, times `z` `[count, outputs of BLOCK]`. Columns of `sum` up to
/// the next multiple of 16 get those of `z`.
///
/// # Panics
/// If a slice is too short, `count` is 0, or (where the machine has no AVX-512) there is more than one group.
pub(super) fn outer(isa: Isa, x: &[f32], z: &[f32], rows: Groups, sum: &mut [f32], dims: [usize; 3], ahead: Ahead) {
    let [count, inputs, outputs] = dims;
    assert!(
        x.len() >= rows.len(count, rows.x_row) && z.len() >= rows.len(count, BLOCK),
        "conv2d: an outer product's rows"
    );
    assert!(sum.len() >= inputs * BLOCK, "conv2d: an outer product's sum");
    assert!(inputs.max(outputs) <= BLOCK, "conv2d: an outer product's channels");
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => {
            // SAFETY: this set was detected; the lengths were just asserted.
            unsafe {
                let (vectors, sum) = (outputs.div_ceil(16), sum.as_mut_ptr());
                avx512::outer(x.as_ptr(), z.as_ptr(), rows, count, inputs, vectors, sum, ahead)
            }
        }
        _ => {
            assert!(count <= rows.group, "conv2d: an outer product's groups");
            matmul(
                sum,
                BLOCK,
                true,
                1.0,
                View::rows(x, rows.x_row).t(),
                View::rows(z, BLOCK),
                [inputs, outputs, count],
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    // Loops of known length over arrays that must stay in registers are written with their indices.
    #![allow(clippy::needless_range_loop)]

    use std::arch::x86_64::*;

    use super::{Ahead, BLOCK, Groups};

    /// # Safety
    /// The machine has AVX-512F; the pointers hold what [`super::outer`] asks for; `vectors` is 1 to 4.
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn outer(
        x: *const f32,
        z: *const f32,
        rows: Groups,
        count: usize,
        inputs: usize,
        vectors: usize,
        sum: *mut f32,
        ahead: Ahead,
    ) {
        // SAFETY: the contract is the same.
        unsafe {
            match vectors {
                1 => wide::<12, 1>(x, z, rows, count, inputs, sum, ahead),
                2 => wide::<12, 2>(x, z, rows, count, inputs, sum, ahead),
                3 => wide::<8, 3>(x, z, rows, count, inputs, sum, ahead),
                _ => wide::<6, 4>(x, z, rows, count, inputs, sum, ahead),
            }
        }
    }

    /// # Safety
    /// As [`outer`], with V vectors.
    #[allow(clippy::too_many_arguments)]
    #[target_feature(enable = "avx512f")]
    unsafe fn wide<const P: usize, const V: usize>(
        x: *const f32,
        z: *const f32,
        rows: Groups,
        count: usize,
        inputs: usize,
        sum: *mut f32,
        ahead: Ahead,
    ) {
        let mut ahead = ahead.chunks(ahead.len().div_ceil(inputs.div_ceil(P)).max(1));
        let mut first = 0;
        // SAFETY: columns `first..first + P` of `x` exist, and so do these rows of `sum`.
        unsafe {
            while first + P <= inputs {
                block::<P, V>(x.add(first), z, rows, count, sum.add(first * BLOCK), ahead.next().unwrap_or_default());
                first += P;
            }
            while first < inputs {
                let (x, sum, ahead) = (x.add(first), sum.add(first * BLOCK), ahead.next().unwrap_or_default());
                match inputs - first {
                    1 => block::<1, V>(x, z, rows, count, sum, ahead),
                    2 => block::<2, V>(x, z, rows, count, sum, ahead),
                    3 => block::<3, V>(x, z, rows, count, sum, ahead),
                    4 | 8 => block::<4, V>(x, z, rows, count, sum, ahead),
                    5 => block::<5, V>(x, z, rows, count, sum, ahead),
                    _ => block::<6, V>(x, z, rows, count, sum, ahead),
                }
                first += match inputs - first {
                    rest @ 1..6 => rest,
                    8 => 4,
                    _ => 6,
                };
            }
        }
    }

    /// # Safety
    /// As [`outer`], with P inputs and V vectors.
    #[target_feature(enable = "avx512f")]
    unsafe fn block<const P: usize, const V: usize>(
        x: *const f32,
        z: *const f32,
        rows: Groups,
        count: usize,
        to: *mut f32,
        ahead: Ahead,
    ) {
        // Spread over the rows, since the memory takes a few lines at a time.
        let (mut ahead, step) = (ahead.iter(), count / (ahead.len() + 1) + 1);
        let mut sum = [[_mm512_setzero_ps(); V]; P];
        // SAFETY: handed on from this function's contract.
        unsafe {
            for p in 0..P {
                for v in 0..V {
                    sum[p][v] = _mm512_loadu_ps(to.add(p * BLOCK + 16 * v));
                }
            }
            for first in (0..count).step_by(rows.group) {
                let at = first / rows.group * rows.between;
                let (mut x, mut z) = (x.add(at), z.add(at));
                let mut left = rows.group.min(count - first);
                while left > 0 {
                    if let Some(row) = ahead.next() {
                        for v in 0..BLOCK / 16 {
                            _mm_prefetch::<_MM_HINT_T1>(row.wrapping_add(16 * v).cast());
                        }
                    }
                    let now = left.min(step);
                    left -= now;
                    for _ in 0..now {
                        let mut row = [_mm512_setzero_ps(); V];
                        for v in 0..V {
                            row[v] = _mm512_loadu_ps(z.add(16 * v));
                        }
                        for p in 0..P {
                            let x = _mm512_set1_ps(*x.add(p));
                            for v in 0..V {
                                sum[p][v] = _mm512_fmadd_ps(x, row[v], sum[p][v]);
                            }
                        }
                        x = x.wrapping_add(rows.x_row);
                        z = z.wrapping_add(BLOCK);
                    }
                }
            }
            for p in 0..P {
                for v in 0..V {
                    _mm512_storeu_ps(to.add(p * BLOCK + 16 * v), sum[p][v]);
                }
            }
        }
    }
}
