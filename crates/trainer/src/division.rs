//! How each batch is divided: among ranks, on each into parts that go one after the other, and into groups of batch statistics.

use anyhow::Result;
use diptych_methods::Parts;

use crate::error::bad_input;
use crate::recipe::TrainerConfig;

/// How each global batch is divided. Every rank has the same number of consecutive rows, every part of a rank as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    batch: usize,
    ranks: usize,
    parts: Parts,
    /// Groups of batch statistics over the rows that all ranks have in one part.
    groups: usize,
    /// The groups that the recipe names.
    asked: usize,
}

impl Division {
    /// The division that a recipe asks for, over `ranks` ranks.
    ///
    /// # Errors
    /// [`crate::BadInput`] if the batch does not divide so, with a sentence that names the keys.
    pub(crate) fn new(trainer: &TrainerConfig, ranks: usize) -> Result<Self> {
        let (batch, groups) = (trainer.batch_size, trainer.bn_groups);
        if ranks == 0 {
            bad_input!("--ranks 0: a run has at least one rank");
        }
        let (key, parts) = match (trainer.accumulate, trainer.grad_cache) {
            (1, 1) => ("", Parts::Whole),
            (count, 1) => ("trainer.accumulate", Parts::Accumulate(count)),
            (1, count) => ("trainer.grad_cache", Parts::Cache(count)),
            (micro, chunks) => bad_input!(
                "trainer.accumulate = {micro} and trainer.grad_cache = {chunks} are two ways to take a batch in parts; set one of them to 1"
            ),
        };
        let count = parts.count();
        if !batch.is_multiple_of(ranks) {
            bad_input!("trainer.batch_size = {batch} does not divide among --ranks {ranks}; use a multiple of {ranks}");
        }
        if !(batch / ranks).is_multiple_of(count) {
            bad_input!(
                "{key} = {count}: the {} images of trainer.batch_size = {batch} that a rank has do not divide into {count} parts of the \
                 same size",
                batch / ranks
            );
        }
        if !(groups.is_multiple_of(count) || count.is_multiple_of(groups)) {
            bad_input!(
                "trainer.bn_groups = {groups} and {key} = {count}: every part has batch statistics of its own, so one of both must be a \
                 multiple of the other"
            );
        }
        let groups = (groups / count).max(1);
        if !(groups.is_multiple_of(ranks) || ranks.is_multiple_of(groups)) {
            bad_input!(
                "trainer.bn_groups = {} on --ranks {ranks}: {groups} groups of batch statistics and {ranks} ranks must divide one another, \
                 so that no group has a part of a rank's rows",
                trainer.bn_groups
            );
        }
        if !(batch / count).is_multiple_of(groups) {
            bad_input!(
                "trainer.batch_size = {batch} does not divide into {} groups with batch statistics of their own \
                 (trainer.bn_groups = {})",
                groups * count,
                trainer.bn_groups
            );
        }
        if batch / count / groups < 2 {
            bad_input!(
                "trainer.batch_size = {batch} in {} groups with batch statistics of their own (trainer.bn_groups = {}) has one image in a \
                 group, whose statistics leave nothing of it; use a larger batch or fewer groups",
                groups * count,
                trainer.bn_groups
            );
        }
        Ok(Self { batch, ranks, parts, groups, asked: trainer.bn_groups })
    }

    /// How many ranks share each batch.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// How a rank's rows go through the networks.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    /// The rows of a rank.
    pub(crate) fn rows(&self) -> usize {
        self.batch / self.ranks
    }

    /// The rows of a rank that go through the networks at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        self.rows() / self.parts.count()
    }

    /// Groups of batch statistics over the rows that all ranks have in one part: what a method is built with.
    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    /// Groups of batch statistics in one part of one rank.
    pub(crate) fn groups_of_rank(&self) -> usize {
        (self.groups / self.ranks).max(1)
    }

    /// Groups of batch statistics over the whole batch.
    pub(crate) fn groups_of_batch(&self) -> usize {
        self.groups * self.parts.count()
    }

    /// In words, where there is something to say.
    pub(crate) fn describe(&self) -> Option<String> {
        let mut words = Vec::new();
        if self.ranks > 1 {
            words.push(format!("{} ranks with {} images each", self.ranks, self.rows()));
        }
        match self.parts {
            Parts::Accumulate(count) if count > 1 => {
                words.push(format!("{count} micro-batches of {} images, one after the other", self.rows_at_once()));
            }
            Parts::Cache(count) if count > 1 => {
                words.push(format!("{count} chunks of {} images under one loss", self.rows_at_once()));
            }
            _ => {}
        }
        let groups = self.groups_of_batch();
        if groups > 1 {
            let images = self.batch / groups;
            let why = if groups == self.asked { "" } else { ", one a part" };
            words.push(format!("{groups} groups of {images} images with batch statistics of their own{why}"));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipe;

    fn division(keys: &str, ranks: usize) -> Result<Division> {
        let text = format!("[method]\nname = \"simclr\"\n[trainer]\n{keys}");
        let recipe = Recipe::resolve("test", toml::from_str(&text)?)?;
        Division::new(&recipe.trainer, ranks)
    }

    #[test]
    fn groups_are_those_of_the_whole_batch() {
        let shape = |keys, ranks| {
            let division = division(keys, ranks).unwrap();
            (
                division.rows(),
                division.rows_at_once(),
                division.groups(),
                division.groups_of_rank(),
                division.groups_of_batch(),
            )
        };
        assert_eq!(shape("batch_size = 64", 1), (64, 64, 1, 1, 1));
        assert_eq!(shape("batch_size = 64", 4), (16, 16, 1, 1, 1));
        assert_eq!(shape("batch_size = 64\nbn_groups = 8", 2), (32, 32, 8, 4, 8));
        // As many groups with chunks as without, where the chunks are no smaller.
        assert_eq!(shape("batch_size = 64\nbn_groups = 8\ngrad_cache = 4", 1), (64, 16, 2, 2, 8));
        assert_eq!(shape("batch_size = 64\nbn_groups = 8\ngrad_cache = 4", 2), (32, 8, 2, 1, 8));
        assert_eq!(shape("batch_size = 64\naccumulate = 4", 2), (32, 8, 1, 1, 4));
    }

    #[test]
    fn what_does_not_divide_is_told_with_its_keys() {
        for (keys, ranks, words) in [
            ("batch_size = 64", 0, "--ranks 0"),
            ("batch_size = 64", 3, "batch_size = 64 does not divide among --ranks 3"),
            ("batch_size = 64\ngrad_cache = 3", 1, "trainer.grad_cache = 3"),
            ("batch_size = 64\naccumulate = 64", 2, "trainer.accumulate = 64"),
            ("batch_size = 64\naccumulate = 2\ngrad_cache = 2", 1, "set one of them to 1"),
            ("batch_size = 72\ngrad_cache = 3\nbn_groups = 8", 1, "trainer.bn_groups = 8 and trainer.grad_cache = 3"),
            ("batch_size = 60\nbn_groups = 4", 6, "4 groups of batch statistics and 6 ranks"),
            ("batch_size = 60\nbn_groups = 8", 1, "trainer.bn_groups = 8"),
            ("batch_size = 8\nbn_groups = 8", 1, "one image in a group"),
        ] {
            let error = division(keys, ranks).unwrap_err().to_string();
            assert!(error.contains(words), "{keys}, {ranks}: {error}");
        }
    }

    #[test]
    fn the_plan_says_what_is_unusual() {
        let words = |keys, ranks| division(keys, ranks).unwrap().describe();
        assert_eq!(words("batch_size = 64", 1), None);
        let all = words("batch_size = 64\ngrad_cache = 4", 2).unwrap();
        for part in ["2 ranks with 32 images", "4 chunks of 8 images", "4 groups of 16 images", "one a part"] {
            assert!(all.contains(part), "{all}");
        }
    }
}
