//! Every pair of blocks once, in rounds.
//!
//! A round pairs up all blocks, so that its pairs share none and may be worked on at the same time; after all rounds every
//! two blocks have met. Which pairs make a round, and their order, depend on the number of blocks only.

use rayon::prelude::*;

/// Calls `each` once for every two different blocks; pairs of a round in parallel, rounds one after the other.
///
/// The circle method: the first block stays, the others move on by one place between rounds, and place i meets place
/// n - 1 - i. The order of `blocks` is as before afterwards.
pub(super) fn for_each_pair<B: Send>(blocks: &mut Vec<Option<B>>, each: impl Fn(&mut B, &mut B) + Sync) {
    let odd = blocks.len() % 2 == 1;
    if odd {
        // Whoever meets nobody pauses.
        blocks.push(None);
    }
    let count = blocks.len();
    for _ in 1..count {
        let (low, high) = blocks.split_at_mut(count / 2);
        low.par_iter_mut().zip(high.par_iter_mut().rev()).for_each(|pair| {
            if let (Some(a), Some(b)) = pair {
                each(a, b);
            }
        });
        blocks[1..].rotate_right(1);
    }
    if odd {
        blocks.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_meet_once_and_all_return_to_their_places() {
        for count in 0..9 {
            let mut blocks: Vec<_> = (0..count).map(|i| Some((i, Vec::new()))).collect();
            for_each_pair(&mut blocks, |a, b| {
                a.1.push(b.0);
                b.1.push(a.0);
            });
            for (i, block) in blocks.into_iter().enumerate() {
                let (own, mut met) = block.unwrap();
                met.sort_unstable();
                let others: Vec<_> = (0..count).filter(|&j| j != i).collect();
                assert_eq!((own, met), (i, others), "{count}");
            }
        }
    }
}
