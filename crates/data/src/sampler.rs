//! Which images make up which step: a pure function of the seed and the step.

use diptych_random::Stream;

/// Keeps the stream of shuffles apart from every other use of the seed.
const SHUFFLE: u64 = u64::from_be_bytes(*b"shuffle\0");

/// The order of the images over a run: every epoch is a random permutation of all of them, cut into batches.
///
/// ```
/// use diptych_data::Sampler;
///
/// let sampler = Sampler { len: 10, batch_size: 4, seed: 0, drop_last: true };
/// assert_eq!(sampler.steps_per_epoch(), 2);
/// assert_eq!(sampler.position(5), (2, 1)); // the second batch of the third epoch
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// The number of images.
    pub len: usize,
    /// Images per batch.
    pub batch_size: usize,
    /// The seed of the run.
    pub seed: u64,
    /// Leave out the images of an epoch that do not fill a batch (other ones in each epoch) instead of making a smaller one.
    pub drop_last: bool,
}

impl Sampler {
    /// Batches in one epoch; zero if the set is smaller than one full batch and `drop_last` is set.
    pub fn steps_per_epoch(&self) -> u64 {
        let batch_size = self.batch_size.max(1);
        (if self.drop_last { self.len / batch_size } else { self.len.div_ceil(batch_size) }) as u64
    }

    /// The epoch of a global step, and the batch within it.
    pub fn position(&self, step: u64) -> (u64, u64) {
        let steps = self.steps_per_epoch().max(1);
        (step / steps, step % steps)
    }

    /// The order of the images in an epoch: each once.
    pub fn order(&self, epoch: u64) -> Vec<u32> {
        Stream::keyed(self.seed, &[SHUFFLE, epoch]).permutation(self.len).into_iter().map(|i| i as u32).collect()
    }

    /// The part of an epoch's order that makes up batch `batch` of it; empty past the last one.
    pub fn batch<'a>(&self, order: &'a [u32], batch: u64) -> &'a [u32] {
        if batch >= self.steps_per_epoch() {
            return &[];
        }
        let start = batch as usize * self.batch_size;
        &order[start..order.len().min(start + self.batch_size)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLER: Sampler = Sampler { len: 103, batch_size: 10, seed: 7, drop_last: false };

    #[test]
    fn every_epoch_shows_each_image_once_in_an_order_of_its_own() {
        let first = SAMPLER.order(0);
        for epoch in 0..5 {
            let order = SAMPLER.order(epoch);
            assert!(epoch == 0 || order != first);
            let mut seen: Vec<u32> = (0..11).flat_map(|batch| SAMPLER.batch(&order, batch).to_vec()).collect();
            assert_eq!(seen, order);
            seen.sort_unstable();
            assert_eq!(seen, (0..103).collect::<Vec<_>>());
        }
        assert_ne!(Sampler { seed: 8, ..SAMPLER }.order(0), first);
    }

    #[test]
    fn the_last_short_batch_can_be_dropped() {
        let order = SAMPLER.order(0);
        assert_eq!((SAMPLER.steps_per_epoch(), SAMPLER.batch(&order, 10).len()), (11, 3));
        let dropping = Sampler { drop_last: true, ..SAMPLER };
        assert_eq!((dropping.steps_per_epoch(), dropping.batch(&order, 10).len()), (10, 0));
        assert_eq!(Sampler { len: 9, ..dropping }.steps_per_epoch(), 0);
        assert_eq!(Sampler { len: 100, ..SAMPLER }.steps_per_epoch(), 10);
    }

    #[test]
    fn steps_run_through_the_epochs() {
        assert_eq!([0, 10, 11, 25].map(|step| SAMPLER.position(step)), [(0, 0), (0, 10), (1, 0), (2, 3)]);
    }

    /// A change of this order would change every seeded run.
    #[test]
    fn the_order_is_frozen() {
        assert_eq!(SAMPLER.order(3)[..6], [99, 31, 102, 101, 37, 71]);
    }
}
