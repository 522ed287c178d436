//! How well clusters agree with classes: measures that need no names for the clusters.

use std::collections::BTreeMap;

use candle_core::{Result, bail};

use crate::assignment::best_assignment;

/// How often each cluster meets each class.
struct Contingency {
    /// Rows with both, by (cluster, class), both numbered from 0 without gaps.
    counts: BTreeMap<(usize, usize), u64>,
    clusters: Vec<u64>,
    classes: Vec<u64>,
    rows: u64,
}

impl Contingency {
    fn new(clusters: &[u32], classes: &[u32]) -> Result<Self> {
        if clusters.len() != classes.len() {
            bail!("clustering: {} assignments with {} labels", clusters.len(), classes.len())
        }
        if clusters.is_empty() {
            bail!("clustering: there is no row to judge")
        }
        let numbered = |values: &[u32]| -> BTreeMap<u32, usize> {
            let mut known: BTreeMap<u32, usize> = values.iter().map(|value| (*value, 0)).collect();
            known.values_mut().enumerate().for_each(|(i, place)| *place = i);
            known
        };
        let (rows_of, columns_of) = (numbered(clusters), numbered(classes));
        let mut found = Self {
            counts: BTreeMap::new(),
            clusters: vec![0; rows_of.len()],
            classes: vec![0; columns_of.len()],
            rows: clusters.len() as u64,
        };
        for (cluster, class) in clusters.iter().zip(classes) {
            let (row, column) = (rows_of[cluster], columns_of[class]);
            *found.counts.entry((row, column)).or_default() += 1;
            found.clusters[row] += 1;
            found.classes[column] += 1;
        }
        Ok(found)
    }
}

/// Normalized mutual information (Strehl and Ghosh 2002; the mean of both entropies below the line, as scikit-learn has it): 1 where clusters and classes
/// are the same partition, 0 where they tell nothing of each other. Two partitions into a single part are the same.
///
/// # Errors
/// If the numbers differ or are 0.
pub fn normalized_mutual_information(clusters: &[u32], classes: &[u32]) -> Result<f64> {
    let found = Contingency::new(clusters, classes)?;
    let rows = found.rows as f64;
    let entropy =
        |sizes: &[u64]| -> f64 { sizes.iter().map(|size| *size as f64 / rows).map(|share| -share * share.ln()).sum() };
    let mean = (entropy(&found.clusters) + entropy(&found.classes)) / 2.0;
    if found.clusters.len() == 1 && found.classes.len() == 1 {
        return Ok(1.0);
    }
    let mutual: f64 = found
        .counts
        .iter()
        .map(|(&(row, column), count)| {
            let (both, expected) = (*count as f64, found.clusters[row] as f64 * found.classes[column] as f64 / rows);
            both / rows * (both / expected).ln()
        })
        .sum();
    Ok(if mean == 0.0 { 0.0 } else { mutual.max(0.0) / mean })
}

/// Adjusted Rand index (Hubert and Arabie 1985): the share of pairs on which both partitions agree, so scaled that chance gives 0 and equality 1.
///
/// # Errors
/// If the numbers differ or are 0.
pub fn adjusted_rand_index(clusters: &[u32], classes: &[u32]) -> Result<f64> {
    let found = Contingency::new(clusters, classes)?;
    let pairs = |count: u64| (count as f64) * (count as f64 - 1.0) / 2.0;
    let (both, of_clusters, of_classes): (f64, f64, f64) = (
        found.counts.values().map(|count| pairs(*count)).sum(),
        found.clusters.iter().map(|count| pairs(*count)).sum(),
        found.classes.iter().map(|count| pairs(*count)).sum(),
    );
    let all = pairs(found.rows);
    let expected = if all > 0.0 { of_clusters * of_classes / all } else { 0.0 };
    let most = (of_clusters + of_classes) / 2.0;
    Ok(if most == expected { 1.0 } else { (both - expected) / (most - expected) })
}

/// Clustering accuracy: the share of rows that are right when every cluster is given a class of its own so that most are (the Hungarian method); rows of
/// clusters beyond the number of classes are wrong.
///
/// # Errors
/// If the numbers differ or are 0.
pub fn clustering_accuracy(clusters: &[u32], classes: &[u32]) -> Result<f64> {
    let found = Contingency::new(clusters, classes)?;
    let side = found.clusters.len().max(found.classes.len());
    let mut gains = vec![vec![0.0; side]; side];
    for (&(row, column), count) in &found.counts {
        gains[row][column] = *count as f64;
    }
    let assigned = best_assignment(&gains);
    let right: f64 = assigned.iter().enumerate().map(|(row, column)| gains[row][*column]).sum();
    Ok(right / found.rows as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_partition_under_other_names_is_perfect() -> Result<()> {
        let (clusters, classes) = ([9, 9, 4, 4, 7, 7, 7], [0, 0, 1, 1, 2, 2, 2]);
        assert!((normalized_mutual_information(&clusters, &classes)? - 1.0).abs() < 1e-12);
        assert_eq!(adjusted_rand_index(&clusters, &classes)?, 1.0);
        assert_eq!(clustering_accuracy(&clusters, &classes)?, 1.0);
        Ok(())
    }

    /// By hand: 2 clusters of 3 rows, of which 2 and 3 are of their class.
    #[test]
    fn one_row_in_the_wrong_cluster() -> Result<()> {
        let (clusters, classes) = ([0, 0, 0, 1, 1, 1], [5, 5, 6, 6, 6, 6]);
        assert!((clustering_accuracy(&clusters, &classes)? - 5.0 / 6.0).abs() < 1e-12);
        // Pairs: 1 + 3 together in both; 3 + 3 in clusters, 1 + 6 in classes, 15 in all.
        let expected: f64 = (4.0 - 6.0 * 7.0 / 15.0) / (6.5 - 6.0 * 7.0 / 15.0);
        assert!((adjusted_rand_index(&clusters, &classes)? - expected).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn partitions_into_one_part() -> Result<()> {
        assert_eq!(normalized_mutual_information(&[3; 4], &[1; 4])?, 1.0);
        assert_eq!(normalized_mutual_information(&[3; 4], &[0, 0, 1, 1])?, 0.0);
        assert_eq!(adjusted_rand_index(&[3; 4], &[1; 4])?, 1.0);
        assert_eq!(clustering_accuracy(&[0, 1, 2, 3], &[1; 4])?, 0.25);
        assert!(clustering_accuracy(&[], &[]).is_err());
        assert!(adjusted_rand_index(&[1], &[1, 2]).is_err());
        Ok(())
    }
}
