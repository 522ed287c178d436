//! Which images have a label in a training on a share of them.

use std::sync::Arc;

use anyhow::{Result, bail};
use diptych_data::{Dataset, Subset};
use diptych_random::Stream;

/// Keeps the choice apart from every other use of the seed.
const CHOICE: u64 = u64::from_be_bytes(*b"labeled\0");

/// `share` of the images of each class of `train`, at least one, drawn by `seed`, in the order of the data set; all of them for a share of 1.
///
/// # Errors
/// If an image has no label, or a class has no image: a classifier would never name it.
pub(crate) fn labeled(train: &Arc<dyn Dataset>, share: f64, seed: u64) -> Result<Arc<dyn Dataset>> {
    let names = train.classes();
    let mut classes: Vec<Vec<u32>> = vec![Vec::new(); names.len()];
    for i in 0..train.len() {
        match train.label(i).and_then(|label| classes.get_mut(label as usize)) {
            Some(class) => class.push(i as u32),
            None => bail!("fine-tuning needs a label for every training image: {} has none", train.name(i)),
        }
    }
    let missing: Vec<&str> =
        classes.iter().zip(names).filter(|(images, _)| images.is_empty()).map(|(_, name)| name.as_str()).collect();
    if let Some(first) = missing.first() {
        bail!(
            "fine-tuning needs a labeled image of every class: {} of {} classes have none, such as {first}",
            missing.len(),
            names.len()
        )
    }
    if names.len() < 2 {
        bail!("fine-tuning needs at least 2 classes: class folders, or a data set that has labels")
    }
    if share >= 1.0 {
        return Ok(train.clone());
    }
    let mut chosen = Vec::new();
    for (class, images) in classes.iter().enumerate() {
        let count = ((images.len() as f64 * share).round() as usize).max(1);
        let order = Stream::keyed(seed, &[CHOICE, class as u64]).permutation(images.len());
        chosen.extend(order[..count].iter().map(|&place| images[place]));
    }
    chosen.sort_unstable();
    Ok(Arc::new(Subset::new(train.clone(), chosen)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Colors;

    fn names(set: &Arc<dyn Dataset>) -> Vec<String> {
        (0..set.len()).map(|i| set.name(i)).collect()
    }

    /// 40 images of each of 3 classes: 10 % are 4 of each, 0.1 % one of each; other ones for another seed, the same ones for the same.
    #[test]
    fn every_class_gives_its_share() -> Result<()> {
        let all: Arc<dyn Dataset> = Arc::new(Colors::new(120, 3));
        for (share, each) in [(0.1, 4), (0.001, 1), (0.5, 20)] {
            let some = labeled(&all, share, 1)?;
            let of = |class| (0..some.len()).filter(|i| some.label(*i) == Some(class)).count();
            assert_eq!([of(0), of(1), of(2)], [each; 3]);
            assert!(names(&some).is_sorted());
            assert_eq!(names(&some), names(&labeled(&all, share, 1)?));
            assert_ne!(names(&some), names(&labeled(&all, share, 2)?));
        }
        assert_eq!(labeled(&all, 1.0, 1)?.len(), 120);
        Ok(())
    }

    #[test]
    fn a_class_without_images_is_named() -> Result<()> {
        let all: Arc<dyn Dataset> = Arc::new(Colors::new(120, 3));
        let two: Arc<dyn Dataset> = Arc::new(Subset::new(all, (0..80).collect())?);
        let error = labeled(&two, 0.5, 0).err().unwrap().to_string();
        assert!(error.contains("1 of 3 classes have none, such as class 2"), "{error}");
        Ok(())
    }
}
