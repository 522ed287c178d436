//! The clustering protocol: k-means on frozen features, judged with labels where there are some, and without.

use std::fmt::{Display, Formatter};

use anyhow::{Result, bail, ensure};
use candle_core::Tensor;
use diptych_metrics::{
    KMeans, adjusted_rand_index, clustering_accuracy, kmeans, normalized_mutual_information, silhouette,
};
use serde::{Deserialize, Serialize};

use crate::sample::sample;
use crate::{Features, Quality};

/// Which images are clustered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterImages {
    /// Those of the test split.
    Test,
    /// Those that the backbone may have been trained on.
    Train,
    /// Both, as Contrastive Clustering does (Li et al. 2021, arXiv:2009.09687, section 4.1).
    All,
}

/// How features are clustered. Plain data; the default is k-means++ and Lloyd on features at length 1, the best of 10 starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Clusters. [default: the number of classes, or 10 without labels]
    pub k: Option<usize>,
    /// Starts, of which the one with the lowest inertia counts.
    pub restarts: usize,
    /// How often centers move at most.
    pub iterations: usize,
    /// Whether features are brought to length 1 first.
    pub normalize: bool,
    /// Images that the silhouette is measured on at most, spread evenly.
    pub silhouette_images: usize,
    /// Images that spectra are measured on at most, spread evenly.
    pub spectrum_images: usize,
    /// `test`, `train` or `all`. [default: test where there are labels, else all]
    pub images: Option<ClusterImages>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            k: None,
            restarts: 10,
            iterations: 300,
            normalize: true,
            silhouette_images: 2000,
            spectrum_images: 10_000,
            images: None,
        }
    }
}

/// How clusters agree with classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// See [`diptych_metrics::normalized_mutual_information`].
    pub nmi: f64,
    /// See [`diptych_metrics::adjusted_rand_index`].
    pub ari: f64,
    /// See [`diptych_metrics::clustering_accuracy`].
    pub accuracy: f64,
}

/// Features in clusters.
#[derive(Clone, Debug)]
pub struct Clustering {
    /// Centers, each row's center, and inertia, for features as they were clustered.
    pub found: KMeans,
    /// Rows of each cluster.
    pub sizes: Vec<usize>,
    /// On a part of the rows; none where they are all in one cluster.
    pub silhouette: Option<f64>,
    /// Where there are labels.
    pub agreement: Option<Agreement>,
    normalized: bool,
}

impl Cluster {
    /// The number of clusters: as set, else `classes`, else 10.
    pub fn clusters(&self, classes: Option<usize>) -> usize {
        self.k.or(classes).unwrap_or(10)
    }

    /// That the settings can be used with so many images and classes.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(&self, images: usize, classes: Option<usize>) -> Result<()> {
        let k = self.clusters(classes);
        ensure!(k > 0, "cluster.k = 0: the number of clusters must be 1 or more");
        ensure!(
            k <= images,
            "cluster.k = {k}, but there are only {images} images to cluster; give --set cluster.k={images} or less"
        );
        ensure!(images >= 2, "there are {images} images to cluster; 2 are needed at least");
        for (name, value) in [
            ("restarts", self.restarts),
            ("iterations", self.iterations),
            ("silhouette_images", self.silhouette_images.saturating_sub(1)),
            ("spectrum_images", self.spectrum_images.saturating_sub(1)),
        ] {
            ensure!(value > 0, "cluster.{name} is too small: 1 start, 1 iteration and 2 images are needed at least");
        }
        Ok(())
    }

    /// Features as they are clustered: as they are, or each row at length 1 (a zero row stays zero).
    fn prepared(normalize: bool, x: &Tensor) -> Result<Tensor> {
        if !normalize {
            return Ok(x.clone());
        }
        let lengths = x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(f32::MIN_POSITIVE)?;
        Ok(x.broadcast_div(&lengths)?)
    }

    /// Clusters `features` and judges the clusters; deterministic for a `seed`.
    ///
    /// # Errors
    /// If [`Cluster::check`] finds something, or a feature is not finite.
    pub fn run(&self, features: &Features, classes: Option<usize>, seed: u64) -> Result<Clustering> {
        self.check(features.indices.len(), classes)?;
        let x = Self::prepared(self.normalize, &features.x)?;
        let found = kmeans(&x, self.clusters(classes), self.restarts, self.iterations, seed)?;
        let of = &found.clusters.assignments;
        let mut sizes = vec![0; found.clusters.centers.dim(0)?];
        of.iter().for_each(|cluster| sizes[*cluster as usize] += 1);
        let (some, places) = sample(&x, self.silhouette_images)?;
        let some_of: Vec<u32> = places.iter().map(|place| of[*place as usize]).collect();
        let apart = some_of.iter().any(|cluster| *cluster != some_of[0]);
        let silhouette = if apart { Some(silhouette(&some, &some_of)?) } else { None };
        let agreement = match &features.labels {
            None => None,
            Some(labels) => Some(Agreement {
                nmi: normalized_mutual_information(of, labels)?,
                ari: adjusted_rand_index(of, labels)?,
                accuracy: clustering_accuracy(of, labels)?,
            }),
        };
        Ok(Clustering { found, sizes, silhouette, agreement, normalized: self.normalize })
    }
}

impl Clustering {
    /// For each cluster the rows of `features` (those that were clustered) that lie nearest to its center, at most `n`, nearest first; of equal ones the
    /// lower.
    ///
    /// # Errors
    /// If these are other features.
    pub fn closest(&self, features: &Features, n: usize) -> Result<Vec<Vec<usize>>> {
        let x = Cluster::prepared(self.normalized, &features.x)?.to_vec2::<f32>()?;
        let (centers, of) = (self.found.clusters.centers.to_vec2::<f32>()?, &self.found.clusters.assignments);
        ensure!(x.len() == of.len(), "clusters of {} rows are asked about {}", of.len(), x.len());
        let mut rows: Vec<Vec<(f64, usize)>> = vec![Vec::new(); centers.len()];
        for (row, (values, cluster)) in x.iter().zip(of).enumerate() {
            let center = &centers[*cluster as usize];
            ensure!(values.len() == center.len(), "features of width {}, centers {}", values.len(), center.len());
            let distance = values.iter().zip(center).map(|(v, c)| (f64::from(*v) - f64::from(*c)).powi(2)).sum();
            rows[*cluster as usize].push((distance, row));
        }
        let nearest = |mut rows: Vec<(f64, usize)>| {
            rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            rows.into_iter().take(n).map(|(_, row)| row).collect()
        };
        Ok(rows.into_iter().map(nearest).collect())
    }
}

/// What `eval cluster` says, and writes as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterResult {
    /// `cluster`.
    pub protocol: String,
    /// `nmi` where there are labels, else `rankme`.
    pub metric: String,
    /// The value of that; with several seeds, the mean.
    pub value: f64,
    /// Which images were clustered: `test`, `train` or `all`.
    pub split: String,
    /// How many.
    pub n: usize,
    /// The weights, as they were named.
    pub weights: String,
    /// The data, as they were named.
    pub data: String,
    /// Mean over the seeds, if there are several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean: Option<f64>,
    /// Standard deviation over the seeds (of a sample), if there are several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub std: Option<f64>,
    /// How many seeds, if there are several; what follows is of the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seeds: Option<usize>,
    /// The protocol in words.
    pub words: String,
    /// Clusters.
    pub k: usize,
    /// How well they agree with the classes.
    #[serde(flatten)]
    pub agreement: Option<Agreement>,
    /// The sum of squared distances to the centers.
    pub inertia: f64,
    /// How often the centers of the best start moved.
    pub iterations: usize,
    /// The mean silhouette of some images.
    pub silhouette: Option<f64>,
    /// Images in each cluster.
    pub sizes: Vec<usize>,
    /// What needs no label.
    #[serde(flatten)]
    pub quality: Quality,
}

impl ClusterResult {
    /// One result from a clustering for each seed; `names` are those of split, weights and data.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(settings: &Cluster, runs: &[(Clustering, Quality)], names: [&str; 3]) -> Result<Self> {
        let [split, weights, data] = names.map(str::to_string);
        let Some((first, quality)) = runs.first() else { bail!("there is no clustering to report") };
        let value = |(run, quality): &(Clustering, Quality)| run.agreement.map_or(quality.rankme, |found| found.nmi);
        let mean = runs.iter().map(value).sum::<f64>() / runs.len() as f64;
        let squares = runs.iter().map(|run| (value(run) - mean).powi(2)).sum::<f64>();
        let several = (runs.len() > 1).then_some(runs.len());
        let k = first.sizes.len();
        let words = format!(
            "k-means into {k} clusters of frozen features {}, k-means++ and Lloyd, the lowest inertia of {} starts",
            if settings.normalize { "at length 1" } else { "as they are" },
            settings.restarts
        );
        Ok(Self {
            protocol: "cluster".into(),
            metric: if first.agreement.is_some() { "nmi" } else { "rankme" }.into(),
            value: mean,
            split,
            n: first.found.clusters.assignments.len(),
            weights,
            data,
            mean: several.map(|_| mean),
            std: several.map(|n| (squares / (n - 1) as f64).sqrt()),
            seeds: several,
            words,
            k,
            agreement: first.agreement,
            inertia: first.found.inertia,
            iterations: first.found.iterations,
            silhouette: first.silhouette,
            sizes: first.sizes.clone(),
            quality: quality.clone(),
        })
    }
}

impl Display for ClusterResult {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {:.4}", self.protocol, self.metric, self.value)?;
        if let (Some(std), Some(seeds)) = (self.std, self.seeds) {
            write!(f, " +- {std:.4} over {seeds} seeds")?;
        }
        let which = if self.split == "all" { "" } else { &format!("{} ", self.split) };
        write!(f, " on {} {which}images; weights {}, data {}", self.n, self.weights, self.data)?;
        write!(f, "\n  {}", self.words)?;
        if let Some(found) = self.agreement {
            write!(
                f,
                "\n  NMI {:.4}, ARI {:.4}, accuracy {:.2} % with the best class for each cluster (by chance ARI is 0, the others are more, the fewer the images)",
                found.nmi,
                found.ari,
                100.0 * found.accuracy
            )?;
        }
        write!(f, "\n  inertia {:.4}, after {} moves of the centers", self.inertia, self.iterations)?;
        if let Some(silhouette) = self.silhouette {
            write!(f, "\n  silhouette {silhouette:.3} (1: tight and far apart; 0: they overlap)")?;
        }
        let (least, most) = (self.sizes.iter().min().unwrap_or(&0), self.sizes.iter().max().unwrap_or(&0));
        write!(f, "\n  {least} to {most} images in a cluster (nearly all in one: collapse, or a few outliers)")?;
        for line in self.quality.to_string().lines() {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Colors, MeanColor, transform};
    use crate::{features, two_views};
    use diptych_augment::Recipe;
    use diptych_data::Dataset;
    use std::sync::Arc;

    fn colors(n: usize) -> Result<(Arc<dyn Dataset>, Features)> {
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(n, 3));
        let found = features(&MeanColor, &dataset, &transform(16, 1))?;
        Ok((dataset, found))
    }

    /// Three hues are three clusters, with and without their labels.
    #[test]
    fn hues_are_found() -> Result<()> {
        let (dataset, mut found) = colors(90)?;
        let settings = Cluster::default();
        let run = settings.run(&found, Some(3), 0)?;
        assert_eq!(run.agreement, Some(Agreement { nmi: 1.0, ari: 1.0, accuracy: 1.0 }));
        assert_eq!(run.sizes, [30, 30, 30]);
        assert!(run.silhouette.unwrap() > 0.7, "{:?}", run.silhouette);
        found.labels = None;
        let blind = Cluster { k: Some(3), ..settings.clone() }.run(&found, None, 0)?;
        assert_eq!(blind.found.clusters.assignments, run.found.clusters.assignments);
        assert!(blind.agreement.is_none());
        let views = two_views(&MeanColor, dataset.as_ref(), &Recipe::simclr_cifar(8))?;
        let quality = Quality::of(&found.x, Some(&views), 10_000)?;
        let labeled = ClusterResult::new(&settings, &[(run, quality.clone())], ["test", "w", "d"])?;
        assert_eq!((labeled.metric.as_str(), labeled.value, labeled.n), ("nmi", 1.0, 90));
        let unlabeled = ClusterResult::new(&settings, &[(blind, quality.clone())], ["all", "w", "d"])?;
        assert_eq!((unlabeled.metric.as_str(), unlabeled.value), ("rankme", quality.rankme));
        let json = serde_json::to_value(&unlabeled)?;
        assert!(json.get("nmi").is_none() && json["inertia"].is_number() && json["uniformity"].is_number(), "{json}");
        assert!(unlabeled.to_string().contains("30 to 30 images in a cluster"), "{unlabeled}");
        Ok(())
    }

    /// Each list begins with the row nearest to the center, holds rows of that cluster only, and no more than asked for.
    #[test]
    fn the_closest_come_first() -> Result<()> {
        let (_, found) = colors(60)?;
        for normalize in [true, false] {
            let run = Cluster { normalize, ..Cluster::default() }.run(&found, Some(3), 1)?;
            let x = Cluster::prepared(normalize, &found.x)?;
            let to_center = |row: usize, cluster: usize| -> Result<f32> {
                let apart = (x.get(row)? - run.found.clusters.centers.get(cluster)?)?;
                Ok(apart.sqr()?.sum_all()?.to_scalar::<f32>()?)
            };
            for (cluster, rows) in run.closest(&found, 4)?.iter().enumerate() {
                assert_eq!(rows.len(), 4);
                let of = |row: usize| run.found.clusters.assignments[row] as usize;
                assert!(rows.iter().all(|row| of(*row) == cluster));
                let first = to_center(rows[0], cluster)?;
                for row in (0..60).filter(|row| of(*row) == cluster) {
                    assert!(to_center(row, cluster)? >= first - 1e-6);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn settings_that_do_not_fit_are_named() -> Result<()> {
        let (_, found) = colors(6)?;
        let error = |settings: Cluster| settings.run(&found, None, 0).unwrap_err().to_string();
        assert!(error(Cluster::default()).contains("cluster.k = 10, but there are only 6"));
        assert!(error(Cluster { k: Some(0), ..Cluster::default() }).contains("cluster.k = 0"));
        assert!(error(Cluster { k: Some(2), restarts: 0, ..Cluster::default() }).contains("cluster.restarts"));
        Ok(())
    }
}
