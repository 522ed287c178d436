//! A phase with the source rows that a run of its pixels reads.

use std::ops::{Deref, Range};

use crate::conv2d::geometry::Phase;

/// A phase, and of each of its pixels the first source row that a tap reads and the end of the last.
pub(super) struct Reach {
    phase: Phase,
    ends: Vec<(u32, u32)>,
}

impl Reach {
    pub(super) fn new(phase: Phase) -> Self {
        let mut ends = vec![(u32::MAX, 0); phase.pixels];
        for rows in phase.source.chunks_exact(phase.pixels.max(1)) {
            for (end, &row) in ends.iter_mut().zip(rows) {
                if let Ok(row) = u32::try_from(row) {
                    *end = (end.0.min(row), end.1.max(row + 1));
                }
            }
        }
        Self { phase, ends }
    }

    /// The rows from the first to the last that these pixels of an image read.
    pub(super) fn reach(&self, places: &Range<usize>) -> Range<usize> {
        let both = |a: (u32, u32), b: &(u32, u32)| (a.0.min(b.0), a.1.max(b.1));
        let (first, end) = self.ends[places.clone()].iter().fold((u32::MAX, 0), both);
        if first < end { first as usize..end as usize } else { 0..0 }
    }
}

impl Deref for Reach {
    type Target = Phase;

    fn deref(&self) -> &Phase {
        &self.phase
    }
}
