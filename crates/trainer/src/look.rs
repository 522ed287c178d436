//! Embedded images as a page shows them: nearest neighbors of some, and a map.

use anyhow::Result;
use candle_core::{Device, Tensor};
use diptych_data::Dataset;
use diptych_eval::{Features, tsne};
use diptych_metrics as score;

use crate::report::{Map, MapImage, MapPoint, Neighbor, Query};
use crate::setup::picture;

/// Features and the image of each row.
pub struct Shown<'a> {
    /// `[M, F]` f32.
    pub x: &'a Tensor,
    /// For each row its image: the data set, and the place in it.
    pub images: Vec<(&'a dyn Dataset, u32)>,
}

impl<'a> Shown<'a> {
    /// The features of a data set, with its images.
    pub fn new(features: &'a Features, dataset: &'a dyn Dataset) -> Self {
        Self { x: &features.x, images: features.indices.iter().map(|&i| (dataset, i)).collect() }
    }

    /// `most` rows, spread evenly over all.
    pub fn some(&self, most: usize) -> Vec<u32> {
        let (all, n) = (self.images.len(), self.images.len().min(most));
        (0..n).map(|i| (i * all / n) as u32).collect()
    }

    /// The class of a row's image.
    pub fn label(&self, row: usize) -> Option<u32> {
        let (dataset, i) = self.images.get(row)?;
        dataset.label(*i as usize)
    }

    fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        Ok(self.x.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)
    }

    fn is_same(&self, row: usize, other: &Self, place: usize) -> bool {
        let ((a, i), (b, j)) = (self.images[row], other.images[place]);
        std::ptr::addr_eq(a, b) && i == j
    }

    /// The `k` rows of `bank` most like each of `rows`, best first, with their cosine similarities: never the image itself.
    ///
    /// # Errors
    /// If the widths differ or a value is not finite.
    pub fn nearest(&self, rows: &[u32], bank: &Shown, k: usize) -> Result<Vec<Vec<(u32, f32)>>> {
        if rows.is_empty() || bank.images.is_empty() {
            return Ok(vec![Vec::new(); rows.len()]);
        }
        // One more than is wanted: where an image is in the bank, it is nearest to itself.
        let found = score::nearest(&self.rows(rows)?, bank.x, (k + 1).min(bank.images.len()))?;
        let others = rows.iter().zip(found).map(|(&row, found)| {
            let others = found.into_iter().filter(|(place, _)| !self.is_same(row as usize, bank, *place as usize));
            others.take(k).collect()
        });
        Ok(others.collect())
    }

    /// `most` images, spread evenly, each with the `k` images of `bank` that are most like it. Images that cannot be decoded anymore are left out.
    ///
    /// # Errors
    /// As [`nearest`](Self::nearest).
    pub fn queries(&self, bank: &Shown, most: usize, k: usize) -> Result<Vec<Query>> {
        let rows = self.some(most);
        let mut out = Vec::new();
        for (&row, found) in rows.iter().zip(self.nearest(&rows, bank, k)?) {
            let (dataset, i) = self.images[row as usize];
            let Ok(image) = dataset.shared(i as usize) else { continue };
            let neighbor = |(place, similarity): (u32, f32)| {
                let (dataset, i) = bank.images[place as usize];
                let image = picture(dataset.shared(i as usize).ok()?.as_ref());
                Some(Neighbor { image, label: bank.label(place as usize), similarity })
            };
            out.push(Query {
                name: dataset.name(i as usize),
                image: picture(&image),
                label: self.label(row as usize),
                neighbors: found.into_iter().filter_map(neighbor).collect(),
            });
        }
        Ok(out)
    }

    /// Of the `k` nearest neighbors of `most` images, spread evenly, the share that has the image's class; `None` without labels.
    ///
    /// # Errors
    /// As [`nearest`](Self::nearest).
    pub fn agreement(&self, most: usize, k: usize) -> Result<Option<f64>> {
        let rows = self.some(most);
        if rows.iter().all(|&row| self.label(row as usize).is_none()) {
            return Ok(None);
        }
        let (mut right, mut all) = (0usize, 0usize);
        for (&row, found) in rows.iter().zip(self.nearest(&rows, self, k)?) {
            let Some(own) = self.label(row as usize) else { continue };
            for label in found.iter().filter_map(|(place, _)| self.label(*place as usize)) {
                right += usize::from(label == own);
                all += 1;
            }
        }
        Ok((all > 0).then(|| right as f64 / all as f64))
    }

    /// The map of at most `most` images on their first two principal components; with `whole`, also t-SNE; with `pictures`, thumbnails of
    /// some.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn map(&self, most: usize, whole: bool, pictures: bool) -> Result<Map> {
        let rows = self.some(most);
        let x = self.rows(&rows)?;
        let pca = score::pca(&x)?;
        let point = |(&row, [x, y]): (&u32, [f32; 2])| MapPoint { x, y, label: self.label(row as usize) };
        let tsne = if whole { tsne(&x)?.unwrap_or_default() } else { Vec::new() };
        let points = rows.iter().zip(pca.points).map(point).collect();
        let mut map = Map { points, explained: Some(pca.explained), tsne, images: Vec::new() };
        if pictures {
            let image = |point: usize| {
                let (dataset, i) = self.images[rows[point] as usize];
                let picture = picture(dataset.shared(i as usize).ok()?.as_ref());
                Some(MapImage { point, name: dataset.name(i as usize), picture })
            };
            map.images = map.picks().into_iter().filter_map(image).collect();
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_data::{Synthetic, synthetic::Split};

    fn features(set: &dyn Dataset) -> Result<Features> {
        // One direction per class, and a little of each image's own.
        let row = |i: usize| -> Vec<f32> {
            let label = set.label(i).unwrap_or_default() as usize;
            (0..12)
                .map(|c| f32::from(u8::from(c == label)) + if c == 11 { 0.01 * (i % 7) as f32 } else { 0.0 })
                .collect()
        };
        let data: Vec<f32> = (0..set.len()).flat_map(row).collect();
        let labels = (0..set.len()).map(|i| set.label(i)).collect();
        let x = Tensor::from_vec(data, (set.len(), 12), &Device::Cpu)?;
        Ok(Features { x, labels, indices: (0..set.len() as u32).collect(), skipped: 0 })
    }

    /// An image is never its own neighbor, and one of another data set at the same place may be.
    #[test]
    fn neighbors_are_others() -> Result<()> {
        let (a, b) = (Synthetic::new(0, Split::Train, 60, 16), Synthetic::new(0, Split::Test, 60, 16));
        let (of_a, of_b) = (features(&a)?, features(&b)?);
        let (a, b) = (Shown::new(&of_a, &a), Shown::new(&of_b, &b));
        let rows = a.some(60);
        assert!(
            a.nearest(&rows, &a, 5)?
                .iter()
                .zip(&rows)
                .all(|(found, row)| found.len() == 5 && found.iter().all(|f| f.0 != *row))
        );
        assert!(a.nearest(&rows, &b, 60)?.iter().all(|found| found.len() == 60));
        assert_eq!(a.some(4), [0, 15, 30, 45]);
        assert_eq!(a.agreement(60, 2)?, Some(1.0));
        let queries = a.queries(&a, 7, 3)?;
        assert_eq!(queries.len(), 7);
        assert!(queries.iter().all(|query| query.image.is_valid() && query.neighbors.len() == 3));
        Ok(())
    }

    #[test]
    fn the_map_has_the_pictures_of_its_picks() -> Result<()> {
        let set = Synthetic::new(0, Split::Train, 50, 16);
        let found = features(&set)?;
        let shown = Shown::new(&found, &set);
        let (plain, whole) = (shown.map(40, false, false)?, shown.map(40, true, true)?);
        assert!(plain.points.len() == 40 && plain.tsne.is_empty() && plain.images.is_empty());
        assert!(whole.points == plain.points && whole.tsne.len() == 40);
        let points: Vec<usize> = whole.images.iter().map(|image| image.point).collect();
        assert!(points == whole.picks() && !points.is_empty());
        assert_eq!(whole.images[0].name, set.name(points[0] * 50 / 40));
        Ok(())
    }
}
