//! Which blocks work on which rows of an array `[groups, rows, channels]`: the launch side of `columns_index.h`.
//!
//! Everything is a function of one group's shape, so that sums come out the same on any device, and for a group alone.

use super::{Arg, Memory};

/// Threads of a block.
pub(crate) const THREADS: usize = 256;
/// Vectors side by side in a block: a warp's 512 bytes, where rows are that long.
const TILE: usize = 32;
/// Blocks that keep a large GPU busy: twelve for each of 132 multiprocessors, whether three of them fit at a time or four.
const BLOCKS: usize = 1584;
/// Channels and threads of a block that merges the sums of chunks.
pub(crate) const MERGED: usize = 4;
/// As above.
pub(crate) const MERGE_THREADS: usize = 1024;
/// Rows that a thread takes at least (fewer would not pay for the block) and at most (they are summed in f32).
const DEPTH: [usize; 2] = [8, 128];

/// The division of one group's rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Columns {
    rows: usize,
    channels: usize,
    /// Whether a thread has 16 bytes of channels, or a single one.
    pub(crate) vectors: bool,
    tile: usize,
    lanes: usize,
    /// Rows of a block.
    pub(crate) chunk: usize,
    /// Blocks below each other for one group.
    pub(crate) chunks: usize,
    tiles: usize,
}

impl Columns {
    /// For arrays of one type whose rows all may be read 16 bytes at a time, or not.
    pub(crate) fn new(arrays: &[Memory], rows: usize, channels: usize) -> Self {
        let vectors = arrays.iter().all(|memory| memory.vectors(channels));
        let width = if vectors { 16 / arrays[0].dtype().size_in_bytes() } else { 1 };
        Self::of(rows, channels, width, vectors)
    }

    /// The same with a group's rows in one piece.
    pub(crate) fn whole(self) -> Self {
        Self { chunk: self.rows, chunks: 1, ..self }
    }

    /// For sums over so many rows that are in one piece already.
    pub(crate) fn merged(rows: usize, channels: usize) -> Self {
        Self::of(rows, channels, 1, false).whole()
    }

    fn of(rows: usize, channels: usize, width: usize, vectors: bool) -> Self {
        let across = channels / width;
        let tiles = across.div_ceil(TILE);
        let tile = across.div_ceil(tiles);
        let lanes = THREADS / tile;
        let [least, most] = DEPTH;
        let depth = rows.div_ceil(lanes).div_ceil((BLOCKS / tiles).max(1)).clamp(least, most).next_multiple_of(4);
        let chunk = depth * lanes;
        Self { rows, channels, vectors, tile, lanes, chunk, chunks: rows.div_ceil(chunk), tiles }
    }

    /// Rows of one group.
    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    /// Blocks for so many groups.
    pub(crate) fn grid(self, groups: usize) -> [u32; 3] {
        [(groups * self.chunks) as u32, self.tiles as u32, 1]
    }
}

impl From<Columns> for Arg {
    fn from(columns: Columns) -> Self {
        let Columns { rows, channels, tile, lanes, chunk, chunks, .. } = columns;
        Self::Struct([rows, channels, tile, lanes, chunk, chunks].map(|v| v as u64).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row and channel has its block, blocks have the threads that they need, and sums of floats stay short.
    #[test]
    fn rows_and_channels_are_covered() {
        for (rows, channels, width) in [
            (1, 1, 1),
            (802_816, 64, 8),
            (6272, 2048, 8),
            (49, 3, 1),
            (1024, 8192, 4),
            (25_690_112, 64, 8),
            (1000, 264, 8),
            (77, 33, 1),
        ] {
            let columns = Columns::of(rows, channels, width, width > 1);
            let Columns { tile, lanes, chunk, chunks, tiles, .. } = columns;
            assert!(tile * lanes <= THREADS && tile <= TILE && lanes > 0, "{columns:?}");
            assert!(tiles * tile * width >= channels && (tiles - 1) * tile * width < channels, "{columns:?}");
            assert!(chunks * chunk >= rows && (chunks - 1) * chunk < rows, "{columns:?}");
            assert!(chunk.is_multiple_of(lanes) && chunk / lanes <= DEPTH[1], "{columns:?}");
        }
    }
}
