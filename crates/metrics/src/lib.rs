//! Measures of embeddings: functions of features `[M, F]` and labels, without state and without IO.
//!
//! | what | function |
//! | --- | --- |
//! | classes of the nearest neighbors | [`knn`], [`nearest`], [`nearest_in`], [`classify`] |
//! | agreement with labels | [`accuracy()`], [`mean_per_class_accuracy`], [`top_k_accuracy`], [`confusion`] |
//! | several labels an image | [`AveragePrecision`] |
//! | clusters against labels | [`normalized_mutual_information`], [`adjusted_rand_index`], [`clustering_accuracy`] |
//! | clusters | [`kmeans()`], [`kmeans_from`], [`spherical_kmeans`], [`silhouette()`] |
//! | geometry on the sphere | [`alignment`], [`uniformity`], [`embedding_std`], [`positive_cosine`], [`negative_cosine`] |
//! | dimensions in use | [`effective_rank`], [`power_law`], [`participation_ratio`], [`singular_values`], [`covariance_spectrum`], [`pca()`] |
//! | lengths | [`norms`] |
//! | what an even spread would give | [`even_rank`], [`even_uniformity`] |
//!
//! Every function is deterministic, whatever the number of threads. Features may be of any floating type; they are read as f32.
#![doc = include_str!("../README.md")]

mod accuracy;
mod assignment;
mod average_precision;
mod clustering;
mod cosine;
mod eigen;
mod even;
mod geometry;
mod kmeans;
mod knn;
mod lloyd;
mod matrix;
mod nearest;
mod pca;
mod silhouette;
mod spectrum;
#[cfg(test)]
mod testing;

pub use accuracy::{accuracy, confusion, mean_per_class_accuracy, top_k_accuracy};
pub use average_precision::AveragePrecision;
pub use clustering::{adjusted_rand_index, clustering_accuracy, normalized_mutual_information};
pub use cosine::{negative_cosine, positive_cosine};
pub use even::{even_rank, even_uniformity};
pub use geometry::{alignment, embedding_std, norms, uniformity};
pub use kmeans::{Clusters, spherical_kmeans};
pub use knn::{Knn, Votes, classify, knn};
pub use lloyd::{KMeans, kmeans, kmeans_from};
pub use nearest::{Precision, nearest, nearest_in};
pub use pca::{Pca, pca};
pub use silhouette::silhouette;
pub use spectrum::{PowerLaw, covariance_spectrum, effective_rank, participation_ratio, power_law, singular_values};
