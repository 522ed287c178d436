//! How rows and columns are divided among blocks: the numbers of `contrast_index.h` and `tiles.cuh` that launches need.

/// Rows of a block.
pub(super) const ROWS: usize = 128;
/// Columns of a tile.
pub(super) const COLUMNS_BF16: usize = 64;
pub(super) const COLUMNS_F32: usize = 32;
/// Of a row's chunk, without and with the gap behind it in shared memory.
pub(super) const ROW_BYTES: usize = 256;
const STRIDE_BYTES: usize = ROW_BYTES + 16;
/// Bytes in which a block without tensor cores hands weights from thread to thread.
const SCRATCH: usize = ROWS * 20 * 4;

/// How full the last of all rounds of blocks should be, over all rounds.
const FULL: f64 = 0.9;

/// Dynamic shared memory of a block: two stages of columns with a value for each, and the rows, in two stages where they have several chunks.
pub(super) fn shared_bytes(size: usize, scratch: bool, depth: usize) -> u32 {
    let columns = if size == 2 { COLUMNS_BF16 } else { COLUMNS_F32 };
    let stages = if depth * size <= ROW_BYTES { 1 } else { 2 };
    let bytes = 2 * columns * (STRIDE_BYTES + 4) + stages * ROWS * STRIDE_BYTES + if scratch { SCRATCH } else { 0 };
    bytes as u32
}

/// Tiles for each block and the number of parts, for `blocks` blocks of rows and `tiles` tiles of columns: the fewest parts with which
/// `slots` places for blocks have little idle time, or what comes nearest.
pub(super) fn parts(blocks: usize, tiles: usize, slots: usize) -> [usize; 2] {
    let busy = |parts: usize| {
        let tiles_each = tiles.div_ceil(parts);
        let rounds = (blocks * tiles.div_ceil(tiles_each)) as f64 / slots as f64;
        // Of the time of all rounds, that in which a whole number of tiles is worked on.
        (rounds / rounds.ceil()) * tiles as f64 / (tiles_each * tiles.div_ceil(tiles_each)) as f64
    };
    let most = tiles.min((4 * slots).div_ceil(blocks)).max(1);
    let mut best = 1;
    for parts in 1..=most {
        if busy(parts) > busy(best) {
            best = parts;
        }
        if busy(best) >= FULL {
            break;
        }
    }
    let each = tiles.div_ceil(best);
    [each, tiles.div_ceil(each)]
}

/// `[half, low, high]` if the list counts on from `low`, and from index `half` on from `high`.
pub(super) fn steps(list: &[u32]) -> Option<[usize; 3]> {
    let counts_on = |part: &[u32]| part.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
    let (&low, half) = (list.first()?, list.windows(2).position(|pair| pair[0].checked_add(1) != Some(pair[1])));
    let Some(half) = half.map(|last| last + 1) else { return Some([list.len(), low as usize, 0]) };
    counts_on(&list[half..]).then(|| [half, low as usize, list[half] as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info_nce::Pairs;

    /// All tiles are somebody's, no part is empty, and an H200 is busy.
    #[test]
    fn parts_cover_all_tiles_and_keep_the_device_busy() {
        for (blocks, tiles, slots) in
            [(512, 1024, 264), (512, 1024, 396), (1, 1, 264), (2, 1024, 264), (8, 16, 396), (3, 7, 264)]
        {
            let [each, parts] = parts(blocks, tiles, slots);
            assert!(each * parts >= tiles && each * (parts - 1) < tiles, "{blocks} {tiles}: {each} {parts}");
        }
        assert_eq!(parts(512, 1024, 264), [1024, 1], "a large batch needs no partial gradients");
        let [_, few_rows] = parts(2, 1024, 264);
        assert!((100..=132).contains(&few_rows), "{few_rows}");
    }

    #[test]
    fn pairs_of_the_methods_follow_rules() {
        let rule = |list: &Vec<u32>| steps(list);
        let aligned = Pairs::aligned(4, 3);
        assert_eq!(rule(&aligned.positive), Some([3, 4, 0]));
        let ranks = Pairs::two_views(1, 2, 5);
        assert_eq!(rule(&ranks.positive), Some([2, 6, 1]));
        assert_eq!(ranks.excluded.as_ref().and_then(rule), Some([2, 1, 6]));
        assert_eq!(steps(&[2, 2, 0]), None);
        assert_eq!(steps(&[u32::MAX, 0]), Some([1, u32::MAX as usize, 0]));
    }

    /// Two blocks fit an H200's 227 KiB for each multiprocessor whatever the depth, and one the 99 KiB of smaller cards.
    #[test]
    fn shared_memory_stays_within_bounds() {
        assert_eq!(shared_bytes(2, false, 128), 2 * 64 * 276 + 128 * 272);
        for (size, scratch, depth) in [(2, false, 4096), (4, true, 4096), (4, false, 4096)] {
            assert!(shared_bytes(size, scratch, depth) + 4096 <= 113 << 10);
        }
    }
}
