//! Writing columns of one matrix from several threads.

use std::marker::PhantomData;

/// A row-major matrix whose column ranges are written by different threads.
pub(crate) struct ColumnRanges<'a> {
    data: *mut f32,
    rows: usize,
    cols: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a `&mut [f32]`, which may be sent; `row` leaves it to the caller that parts never overlap.
unsafe impl Send for ColumnRanges<'_> {}
// SAFETY: as above.
unsafe impl Sync for ColumnRanges<'_> {}

impl<'a> ColumnRanges<'a> {
    /// `data` as rows of `cols` values.
    pub(crate) fn new(data: &'a mut [f32], cols: usize) -> Self {
        Self { rows: data.len() / cols, data: data.as_mut_ptr(), cols, borrow: PhantomData }
    }

    /// Columns `first..first + width` of a row.
    ///
    /// # Panics
    /// If they do not lie in the matrix.
    ///
    /// # Safety
    /// No two parts that exist at one time overlap.
    #[allow(clippy::mut_from_ref)] // Disjoint parts are what this type is for.
    pub(crate) unsafe fn row(&self, row: usize, first: usize, width: usize) -> &mut [f32] {
        assert!(row < self.rows && first + width <= self.cols, "columns outside of the matrix");
        // SAFETY: inside the matrix, as just asserted, and by the caller's promise nobody else holds any of it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.cols + first), width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_written_where_they_are() {
        let mut data = [0f32; 6];
        let columns = ColumnRanges::new(&mut data, 3);
        // SAFETY: the two parts do not overlap.
        let (a, b) = unsafe { (columns.row(0, 0, 2), columns.row(0, 2, 1)) };
        a.fill(1.0);
        b.fill(2.0);
        // SAFETY: nothing else of row 1 is held.
        unsafe { columns.row(1, 1, 2) }.fill(3.0);
        assert_eq!(data, [1.0, 1.0, 2.0, 0.0, 3.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "outside of the matrix")]
    fn columns_outside_are_refused() {
        let mut data = [0f32; 6];
        // SAFETY: nothing else is held.
        unsafe { ColumnRanges::new(&mut data, 3).row(1, 2, 2) };
    }
}
