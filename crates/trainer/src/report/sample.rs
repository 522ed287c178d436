//! Made-up but lifelike data for the tests and for looking at the page.

use super::model::{
    Map, MapImage, MapPoint, Neighbor, Note, NoteLevel, Picture, Query, ReportData, Series, SeriesKind, Status,
    Summary, ViewRow,
};

/// A small generator, good enough for pictures.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    /// Uniform in [0, 1).
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }

    /// About normal, standard deviation 1.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

const CLASSES: [&str; 10] = [
    "disk",
    "square",
    "triangle",
    "ring",
    "cross",
    "stripes",
    "checker",
    "dots",
    "waves",
    "star <script>alert(1)</script>",
];

/// A shape of class `class` on a background, with color and place drawn from the noise.
pub(super) fn picture(class: u32, side: usize, noise: &mut Noise) -> Picture {
    let mut color = || [0; 3].map(|_: u8| 40.0 + 190.0 * noise.uniform());
    let (back, front) = (color(), color());
    let (cx, cy, r) = (0.35 + 0.3 * noise.uniform(), 0.35 + 0.3 * noise.uniform(), 0.18 + 0.14 * noise.uniform());
    let mut rgb = Vec::with_capacity(side * side * 3);
    for y in 0..side {
        for x in 0..side {
            let (u, v) = (x as f64 / side as f64 - cx, y as f64 / side as f64 - cy);
            let d = u.hypot(v);
            let inside = match class % 10 {
                0 => d < r,
                1 => u.abs().max(v.abs()) < r,
                2 => v < r && v > 2.0 * u.abs() - r,
                3 => d < r && d > 0.6 * r,
                4 => u.abs().min(v.abs()) < 0.3 * r && d < 1.3 * r,
                5 => ((u + v) * 30.0).sin() > 0.0,
                6 => ((u * 25.0).sin() * (v * 25.0).sin()) > 0.0,
                7 => (u * 40.0).sin() * (v * 40.0).sin() > 0.6,
                8 => (u * 40.0 + (v * 12.0).sin() * 3.0).sin() > 0.2,
                _ => d < r * (0.6 + 0.4 * (5.0 * v.atan2(u)).sin()),
            };
            let grain = 8.0 * noise.normal();
            let light = 0.8 + 0.4 * y as f64 / side as f64;
            rgb.extend(if inside { front } else { back }.map(|c| (c * light + grain).clamp(0.0, 255.0) as u8));
        }
    }
    Picture::new(side, side, rgb)
}

fn series(noise: &mut Noise) -> Vec<Series> {
    let steps = 3000u64;
    let at = |step: u64| step as f64 / steps as f64;
    let loss = |step: u64, noise: &mut Noise| 5.4 - 3.1 * (1.0 - (-4.0 * at(step)).exp()) + 0.09 * noise.normal();
    let lr = |step: u64| {
        if step < 300 {
            0.4 * step as f64 / 300.0
        } else {
            0.2 * (1.0 + (std::f64::consts::PI * (at(step) - 0.1) / 0.9).cos())
        }
    };
    let every = |by: usize| (1..=steps).step_by(by);
    let mut std: Vec<(u64, f64)> =
        every(10).map(|s| (s, 0.088 * (1.0 - 0.5 * (-9.0 * at(s)).exp()) + 0.001 * noise.normal())).collect();
    std[120].1 = f64::NAN;
    let knn = (0..=20).map(|i| (i * 150, 0.36 + 0.43 * (1.0 - (-0.16 * i as f64).exp()) + 0.006 * noise.normal()));
    vec![
        Series::new(SeriesKind::Accuracy, "kNN top-1", knn.collect()),
        Series::new(SeriesKind::Accuracy, "linear top-1", vec![(1500, 0.74), (3000, 0.836)]),
        Series::new(SeriesKind::Loss, "loss", every(1).map(|s| (s, loss(s, noise))).collect()),
        Series::new(SeriesKind::LossPart, "invariance", every(10).map(|s| (s, 3.0 / (1.0 + 9.0 * at(s)))).collect()),
        Series::new(SeriesKind::LearningRate, "learning rate", every(10).map(|s| (s, lr(s))).collect()),
        Series::new(SeriesKind::EmbeddingStd, "embedding std", std),
        Series::new(SeriesKind::EmbeddingRank, "effective rank", every(10).map(|s| (s, 20.0 + 45.0 * at(s))).collect()),
        Series::new(
            SeriesKind::Cosine,
            "two views",
            every(10).map(|s| (s, 0.9 - 0.3 * (-9.0 * at(s)).exp())).collect(),
        ),
        Series::new(
            SeriesKind::Cosine,
            "different images",
            every(10).map(|s| (s, 0.6 * (-9.0 * at(s)).exp())).collect(),
        ),
        Series::new(
            SeriesKind::EmbeddingUniformity,
            "uniformity",
            every(10).map(|s| (s, -3.0 - 0.5 * at(s))).collect(),
        ),
        Series::new(SeriesKind::EmbeddingAlignment, "alignment", every(10).map(|s| (s, 0.9 - 0.6 * at(s))).collect()),
        Series::new(SeriesKind::Monitor, "queue age", every(10).map(|s| (s, (s as f64).min(512.0))).collect()),
        Series::new(SeriesKind::Geometry, "uniformity", every(150).map(|s| (s, -2.9 - 0.6 * at(s))).collect()),
        Series {
            kind: SeriesKind::Speed,
            name: "images per second".into(),
            unit: "images/s".into(),
            points: every(10)
                .map(|s| (s, 612.0 + 14.0 * noise.normal() - if s % 700 < 20 { 220.0 } else { 0.0 }))
                .collect(),
        },
        Series::new(
            SeriesKind::DataWait,
            "data wait",
            every(10).map(|s| (s, 0.012 + 0.02 * noise.uniform())).collect(),
        ),
    ]
}

fn queries(noise: &mut Noise) -> Vec<Query> {
    let query = |i: u32| {
        let label = i * 3 % 10;
        let neighbors = (0..8)
            .map(|j| {
                let other = if noise.uniform() < 0.2 { (label + 1) % 10 } else { label };
                Neighbor { image: picture(other, 32, noise), label: Some(other), similarity: 0.97 - 0.021 * j as f32 }
            })
            .collect();
        Query { name: format!("test/{i:05}.png"), image: picture(label, 32, noise), label: Some(label), neighbors }
    };
    (0..8).map(query).collect()
}

fn map(noise: &mut Noise) -> Map {
    let point = |i: u32| {
        let (label, angle) = (i % 10, f64::from(i % 10) * 0.628);
        let (x, y) = (3.0 * angle.cos() + 0.7 * noise.normal(), 2.0 * angle.sin() + 0.6 * noise.normal());
        MapPoint { x: x as f32, y: y as f32, label: Some(label) }
    };
    let points: Vec<MapPoint> = (0..2000).map(point).collect();
    let apart = |(i, p): (usize, &MapPoint)| [p.x + 20.0 * (i % 4) as f32, p.y + 9.0 * (i % 3) as f32];
    let tsne = points.iter().enumerate().map(apart).collect();
    let mut map = Map { points, explained: Some([0.231, 0.147]), tsne, images: Vec::new() };
    let image = |point: usize| {
        let label = map.points[point].label.unwrap_or_default();
        MapImage { point, name: format!("test/{point:05}.png"), picture: picture(label, 32, noise) }
    };
    map.images = map.picks().into_iter().map(image).collect();
    map
}

/// A run on the drawn data set, three quarters done.
pub(super) fn running() -> ReportData {
    let mut noise = Noise(7);
    let pairs = |rows: &[(&str, &str)]| rows.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    ReportData {
        title: "simclr-quickstart-1".into(),
        method: "SimCLR".into(),
        paper: "A Simple Framework for Contrastive Learning of Visual Representations, Chen et al., ICML 2020, \
                arXiv:2002.05709"
            .into(),
        status: Status::Running { step: 3000, total: 4000 },
        written: "2026-11-21 22:40 UTC".into(),
        summary: Summary {
            knn_k: 20,
            knn: Some(0.783),
            best_knn: Some(0.791),
            raw_knn: Some(0.242),
            random_knn: Some(0.361),
            linear: Some(0.836),
            random_linear: Some(0.482),
            loss: Some(2.361),
            embedding_std: Some(0.0873),
            images_per_second: Some(611.8),
            elapsed_seconds: Some(253.0),
            remaining_seconds: Some(84.0),
            ..Summary::default()
        },
        series: series(&mut noise),
        steps_per_epoch: Some(125),
        embedding_dim: Some(128),
        embedding_rows: Some(128),
        trivial_loss: Some(255f64.ln()),
        collapsed_since: None,
        stuck_since: None,
        views: (0..9)
            .map(|i| ViewRow {
                name: format!("train/{i:05}.png"),
                original: Some(picture(i, 32, &mut noise)),
                views: (0..2).map(|_| picture(i, 32, &mut noise)).collect(),
            })
            .collect(),
        neighbors: queries(&mut noise),
        map: Some(map(&mut noise)),
        class_names: CLASSES.map(String::from).to_vec(),
        images_hidden: false,
        skipped_images: 3,
        notes: vec![
            Note::new(
                NoteLevel::Good,
                "The embeddings are spread out: their standard deviation is 0.087, evenly spread it would be 0.088.",
            ),
            Note::new(NoteLevel::Info, "Labels are used for the accuracy shown here only, never for training."),
            Note::new(
                NoteLevel::Warning,
                "The network waited 6 % of the time for data in the last epoch: more data.workers may help.",
            ),
        ],
        facts: pairs(&[
            ("Data", "synthetic, 32 pixels, seed 0"),
            ("Training images", "16,000"),
            ("Test images", "2,000"),
            ("Backbone", "small ResNet, 0.7 M parameters, 256 features"),
            ("Batch", "128 images, 125 steps an epoch, 32 epochs"),
            ("Effective learning rate", "0.2 = 0.4 × 128 / 256"),
        ]),
        machine: pairs(&[
            ("CPU", "AMD EPYC 9B45, 2 cores, AVX-512"),
            ("Memory", "8 GiB"),
            ("Device", "cpu, f32"),
            ("Diptych", "0.1.0"),
        ]),
        recipe: RECIPE.into(),
    }
}

const RECIPE: &str = "# simclr/quickstart
method = \"simclr\"
seed = 0

[data]
path = \"synthetic\"
image_size = 32
train_size = 16000
workers = 2

[augment]
crop_scale = [0.2, 1.0]
jitter = 0.8 # probability
blur = 0.0

[optim]
name = \"sgd\"
lr = 0.4
lr_scaling = \"linear\"
weight_decay = 1e-4

[[augment.views]]
note = \"a long line to see that it scrolls inside its box and does not widen the page, whatever the width of the window is\"
";
