//! What a report shows, as plain data: the trainer fills it in, [`render`](super::render()) turns it into a page.

/// Everything a report shows. `ReportData::default()` is a valid, empty report: every part that is missing is left out
/// of the page or replaced by a sentence, so a caller fills in what it has.
#[derive(Clone, Debug, Default)]
pub struct ReportData {
    /// The run's name, such as `simclr-quickstart-3`.
    pub title: String,
    /// The method, such as `SimCLR`.
    pub method: String,
    /// Where the method comes from, such as `Chen et al., ICML 2020, arXiv:2002.05709`.
    pub paper: String,
    /// How far the run is.
    pub status: Status,
    /// When the report was written, as text for the reader (the caller reads the clock).
    pub written: String,
    /// The numbers of the cards on top.
    pub summary: Summary,
    /// The curves, in any order; [`SeriesKind`] decides which chart each joins.
    pub series: Vec<Series>,
    /// Steps in an epoch, when known: charts then name the epoch of a step.
    pub steps_per_epoch: Option<u64>,
    /// Number of dimensions of the embedding whose standard deviation is logged: gives the reference line 1/sqrt(d).
    pub embedding_dim: Option<usize>,
    /// Number of embeddings that their effective rank is taken of: gives its reference line.
    pub embedding_rows: Option<usize>,
    /// The loss of a network that tells no image from another, where there is such a value: a line in the chart of the loss.
    pub trivial_loss: Option<f64>,
    /// The step at which the embeddings began to collapse, if they have: a line in the charts of the health.
    pub collapsed_since: Option<u64>,
    /// The step since which the loss does not leave its trivial value, if so: a line in its chart.
    pub stuck_since: Option<u64>,
    /// Images with the views made of them.
    pub views: Vec<ViewRow>,
    /// Test images with their nearest neighbors.
    pub neighbors: Vec<Query>,
    /// The 2-d map of embeddings.
    pub map: Option<Map>,
    /// Class names by label; empty without labels. A label beyond the list is shown by its number.
    pub class_names: Vec<String>,
    /// True when the recipe says `report.images = false`: no picture enters the page, whatever else is given.
    pub images_hidden: bool,
    /// Images that could not be decoded and were replaced.
    pub skipped_images: u64,
    /// Health sentences: what looks good, what to know, what to worry about.
    pub notes: Vec<Note>,
    /// Facts on the data and the model, as rows of a table: (`training images`, `8,000`).
    pub facts: Vec<(String, String)>,
    /// The machine, as rows of a table: (`CPU`, `...`).
    pub machine: Vec<(String, String)>,
    /// The merged recipe, as TOML text.
    pub recipe: String,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Under way.
    Running {
        /// Steps done.
        step: u64,
        /// Steps planned.
        total: u64,
    },
    /// Done as planned.
    Finished {
        /// Steps done.
        step: u64,
    },
    /// Ended before its last step: a signal, a monitor, a non-finite value.
    Stopped {
        /// Steps done.
        step: u64,
        /// Steps planned.
        total: u64,
        /// Why, in words: `interrupted (SIGINT); continue with --resume`.
        reason: String,
    },
}

impl Default for Status {
    fn default() -> Self {
        Status::Running { step: 0, total: 0 }
    }
}

/// The numbers of the cards on top; accuracies are fractions in [0, 1]. What is `None` or not finite gets no card.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Neighbors that vote in the online kNN; 0 is read as 20.
    pub knn_k: usize,
    /// The latest kNN top-1 accuracy of the backbone.
    pub knn: Option<f64>,
    /// The best kNN top-1 accuracy of the run.
    pub best_knn: Option<f64>,
    /// kNN accuracy on raw pixels.
    pub raw_knn: Option<f64>,
    /// kNN accuracy of a random backbone.
    pub random_knn: Option<f64>,
    /// Linear-probe top-1 accuracy.
    pub linear: Option<f64>,
    /// Linear-probe top-1 accuracy of a random backbone.
    pub random_linear: Option<f64>,
    /// The latest loss.
    pub loss: Option<f64>,
    /// Alignment of positive pairs (Wang & Isola 2020, eq. 2): mean squared distance, lower is better.
    pub alignment: Option<f64>,
    /// Uniformity on the sphere (Wang & Isola 2020, eq. 3): lower is better.
    pub uniformity: Option<f64>,
    /// The latest embedding standard deviation.
    pub embedding_std: Option<f64>,
    /// Source images per second, averaged over the run.
    pub images_per_second: Option<f64>,
    /// Seconds of training so far.
    pub elapsed_seconds: Option<f64>,
    /// Seconds still to go, for a run under way.
    pub remaining_seconds: Option<f64>,
}

/// Which chart a series joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesKind {
    /// The total loss.
    Loss,
    /// One part of the loss; shown in its own small chart, since the parts' scales differ.
    LossPart,
    /// The learning rate.
    LearningRate,
    /// An accuracy on labeled images, as a fraction: kNN or linear top-1.
    Accuracy,
    /// The embedding's standard deviation, drawn with the line 1/sqrt(d).
    EmbeddingStd,
    /// Mean cosines of pairs of embeddings, in one chart.
    Cosine,
    /// The embeddings' effective rank, drawn with that of an even spread.
    EmbeddingRank,
    /// The embeddings' uniformity, drawn with that of an even spread.
    EmbeddingUniformity,
    /// The embeddings' alignment.
    EmbeddingAlignment,
    /// What a method watches of itself, a queue's age for instance: each in its own small chart.
    Monitor,
    /// Alignment, uniformity, effective rank of the backbone's features: each in its own small chart.
    Geometry,
    /// Source images per second.
    Speed,
    /// Share of the time spent waiting for data, as a fraction.
    DataWait,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Series {
    /// Which chart it joins.
    pub kind: SeriesKind,
    /// Its name in the legend.
    pub name: String,
    /// Its unit, such as `images/s`; empty for none.
    pub unit: String,
    /// (step, value) in step order. A value that is not finite breaks the line.
    pub points: Vec<(u64, f64)>,
}

impl Series {
    /// A curve without a unit.
    pub fn new(kind: SeriesKind, name: impl Into<String>, points: Vec<(u64, f64)>) -> Self {
        Series { kind, name: name.into(), unit: String::new(), points }
    }
}

/// A picture: RGB bytes, rows from the top, `[height, width, 3]`.
///
/// A picture whose length does not fit its size is shown as missing rather than failing the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// A picture of these bytes, `[height, width, 3]`.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        Picture { width, height, rgb }
    }

    /// True when there are pixels and as many as the size says.
    pub fn is_valid(&self) -> bool {
        let pixels = self.width.checked_mul(self.height).and_then(|n| n.checked_mul(3));
        !self.rgb.is_empty() && pixels == Some(self.rgb.len())
    }
}

/// One image and what the augmentation made of it.
#[derive(Clone, Debug, Default)]
pub struct ViewRow {
    /// The image's name, for the alternative text.
    pub name: String,
    /// The image itself.
    pub original: Option<Picture>,
    /// Its views, as the network sees them (before normalization).
    pub views: Vec<Picture>,
}

/// A test image and its nearest neighbors among the training images.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The image's name, for the alternative text.
    pub name: String,
    /// The image.
    pub image: Picture,
    /// Its label, if any.
    pub label: Option<u32>,
    /// Its neighbors, nearest first.
    pub neighbors: Vec<Neighbor>,
}

/// One neighbor of a test image. It is marked right or wrong when both have labels.
#[derive(Clone, Debug, Default)]
pub struct Neighbor {
    /// The image.
    pub image: Picture,
    /// Its label, if any.
    pub label: Option<u32>,
    /// Cosine similarity with the test image.
    pub similarity: f32,
}

/// A 2-d map of embeddings: their first two principal components, and perhaps t-SNE beside it.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// The points; those with a coordinate that is not finite are left out.
    pub points: Vec<MapPoint>,
    /// Share of the variance along each axis, as fractions, when known.
    pub explained: Option<[f64; 2]>,
    /// Where t-SNE puts the points, in their order; empty where it was not made.
    pub tsne: Vec<[f32; 2]>,
    /// Pictures of some of the points: those of [`Map::picks`].
    pub images: Vec<MapImage>,
}

/// The picture of one point of a map.
#[derive(Clone, Debug, Default)]
pub struct MapImage {
    /// The place of the point in [`Map::points`].
    pub point: usize,
    /// The image's name.
    pub name: String,
    /// The image.
    pub picture: Picture,
}

/// One embedding on the map.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MapPoint {
    /// First principal component.
    pub x: f32,
    /// Second principal component.
    pub y: f32,
    /// Label, if any: gives the color.
    pub label: Option<u32>,
}

/// How a note is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteLevel {
    /// All is well.
    Good,
    /// Worth knowing.
    Info,
    /// Something to look at.
    Warning,
}

/// A sentence on the run's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How it is meant.
    pub level: NoteLevel,
    /// The sentence.
    pub text: String,
}

impl Note {
    /// A note of this level.
    pub fn new(level: NoteLevel, text: impl Into<String>) -> Self {
        Note { level, text: text.into() }
    }
}
