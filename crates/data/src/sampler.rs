//! Which images make up which step: a pure function of the seed and the step.

use std::sync::Arc;

use diptych_random::Stream;

/// Keeps the stream of shuffles apart from every other use of the seed.
const SHUFFLE: u64 = u64::from_be_bytes(*b"shuffle\0");
/// Keeps the streams of balanced epochs apart.
const BALANCE: u64 = u64::from_be_bytes(*b"balance\0");

/// Which images an epoch shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// Each once, in a random order.
    #[default]
    Shuffled,
    /// As many as there are, every class equally often: images of small classes are shown more than once in an epoch, those of large ones not in every
    /// epoch.
    Balanced,
}

/// The images of each class that has some, for [`Sampling::Balanced`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes(Arc<Vec<Vec<u32>>>);

impl Classes {
    /// From the label of each image; `None` if one has none.
    pub fn new(labels: impl Iterator<Item = Option<u32>>) -> Option<Self> {
        let mut classes: Vec<Vec<u32>> = Vec::new();
        for (i, label) in labels.enumerate() {
            let label = label? as usize;
            if classes.len() <= label {
                classes.resize_with(label + 1, Vec::new);
            }
            classes[label].push(i as u32);
        }
        classes.retain(|class| !class.is_empty());
        (!classes.is_empty()).then(|| Self(Arc::new(classes)))
    }

    /// `len` images, of which every run of as many as there are classes has one of each class; the images of a class come in turns, each turn a
    /// permutation.
    fn order(&self, seed: u64, epoch: u64, len: usize) -> Vec<u32> {
        let mut turns: Vec<(u64, Vec<u32>)> = vec![(0, Vec::new()); self.0.len()];
        let mut order = Vec::with_capacity(len);
        let mut round = Stream::keyed(seed, &[BALANCE, epoch]);
        while order.len() < len {
            for class in round.permutation(self.0.len()) {
                let (turn, left) = &mut turns[class];
                if left.is_empty() {
                    let images = &self.0[class];
                    let mut stream = Stream::keyed(seed, &[BALANCE, epoch, class as u64, *turn]);
                    *left = stream.permutation(images.len()).into_iter().map(|i| images[i]).collect();
                    *turn += 1;
                }
                order.extend(left.pop());
            }
        }
        order.truncate(len);
        order
    }
}

/// The order of the images over a run: every epoch is a random permutation of all of them, or shows each class equally often, cut into batches.
///
/// ```
/// use diptych_data::Sampler;
///
/// let sampler = Sampler { len: 10, batch_size: 4, seed: 0, drop_last: true, classes: None };
/// assert_eq!(sampler.steps_per_epoch(), 2);
/// assert_eq!(sampler.position(5), (2, 1)); // the second batch of the third epoch
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// The number of images.
    pub len: usize,
    /// Images per batch.
    pub batch_size: usize,
    /// The seed of the run.
    pub seed: u64,
    /// Leave out the images of an epoch that do not fill a batch (other ones in each epoch) instead of making a smaller one.
    pub drop_last: bool,
    /// The classes to balance; `None` shows each image once.
    pub classes: Option<Classes>,
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

    /// The order of the images in an epoch, as many as there are.
    pub fn order(&self, epoch: u64) -> Vec<u32> {
        if let Some(classes) = &self.classes {
            return classes.order(self.seed, epoch, self.len);
        }
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

    const SAMPLER: Sampler = Sampler { len: 103, batch_size: 10, seed: 7, drop_last: false, classes: None };

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

    #[test]
    fn a_balanced_epoch_shows_every_class_equally_often() {
        // 80, 20 and 3 images; the label 2 is nobody's.
        let labels: Vec<u32> = (0..103)
            .map(|i| {
                if i < 80 {
                    0
                } else if i < 100 {
                    1
                } else {
                    3
                }
            })
            .collect();
        let classes = Classes::new(labels.iter().map(|label| Some(*label)));
        let sampler = Sampler { classes, ..SAMPLER };
        for epoch in 0..4 {
            let order = sampler.order(epoch);
            assert_eq!(order.len(), 103);
            assert_eq!(order, sampler.order(epoch));
            assert_ne!(order, sampler.order(epoch + 1));
            for class in [0, 1, 3] {
                let shown: Vec<u32> = order.iter().copied().filter(|i| labels[*i as usize] == class).collect();
                assert!((34..=35).contains(&shown.len()), "class {class} is shown {} times", shown.len());
                let mut different = shown.clone();
                different.sort_unstable();
                different.dedup();
                // Each of a small class in turn; of a large one no image twice.
                assert_eq!(
                    different.len(),
                    if class == 0 {
                        shown.len()
                    } else if class == 1 {
                        20
                    } else {
                        3
                    }
                );
            }
        }
        assert_eq!(Classes::new([Some(1), None].into_iter()), None);
    }

    /// A change of this order would change every seeded run.
    #[test]
    fn the_order_is_frozen() {
        assert_eq!(SAMPLER.order(3)[..6], [99, 31, 102, 101, 37, 71]);
    }
}
