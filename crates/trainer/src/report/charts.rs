//! Which curves make which chart, and the sentence that says how to read it.

use super::chart::{Chart, Reference};
use super::model::{ReportData, Series, SeriesKind};
use super::page::{clip, upper_first};
use super::scale::{Axis, Format};
use diptych_metrics::{even_rank, even_uniformity};

/// Charts of one kind, and lines in one chart: more of either is a mistake that should not make a page of many MB.
const MOST_CHARTS: usize = 12;
const MOST_LINES: usize = 10;

/// The section with the charts of the run; empty without a curve.
pub(super) fn section(data: &ReportData) -> String {
    use SeriesKind::{Accuracy, DataWait, Geometry, LearningRate, Loss, LossPart, Speed};
    let charts = charts(data, &[Accuracy, Loss, LossPart, Geometry, LearningRate, Speed, DataWait]);
    wrap(
        "curves",
        "Curves",
        "Everything the run logged, over the same steps. Point at a chart to read a value.",
        "charts",
        &charts,
    )
}

/// The section with the charts of the embeddings' health; empty without a curve.
pub(super) fn health(data: &ReportData) -> String {
    use SeriesKind::{Cosine, EmbeddingAlignment, EmbeddingRank, EmbeddingStd, EmbeddingUniformity, Monitor};
    let charts = charts(data, &[EmbeddingStd, EmbeddingRank, Cosine, EmbeddingUniformity, EmbeddingAlignment, Monitor]);
    let lead = "Whether the embeddings of a batch stay apart. Dashed lines are what an even spread would give: a healthy run \
                comes near, and need not reach them.";
    wrap("health", "Health", lead, "charts small", &charts)
}

fn wrap(id: &str, title: &str, lead: &str, class: &str, charts: &str) -> String {
    if charts.is_empty() {
        return String::new();
    }
    format!(
        "<section id=\"{id}\"><h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n<div class=\"{class}\">\n{charts}</div></section>\n"
    )
}

/// The charts of these kinds, in this order, over the same steps as all others.
fn charts(data: &ReportData, kinds: &[SeriesKind]) -> String {
    let all = || data.series.iter().flat_map(|series| &series.points).map(|point| point.0);
    let (Some(first), Some(last)) = (all().min(), all().max()) else { return String::new() };
    kinds.iter().map(|kind| kind_html(data, *kind, &Axis::of_steps(first, last))).collect()
}

fn kind_html(data: &ReportData, kind: SeriesKind, steps: &Axis) -> String {
    let series: Vec<&Series> = data.series.iter().filter(|series| series.kind == kind).collect();
    let chart = |title: &str, mut series: Vec<&Series>, how: &str, noisy: bool| {
        series.truncate(MOST_LINES);
        let chart = Chart {
            title: title.to_owned(),
            how,
            series,
            references: references(data, kind),
            format: match kind {
                SeriesKind::Accuracy | SeriesKind::DataWait => Format::Percent,
                _ => Format::Plain,
            },
            from_zero: matches!(
                kind,
                SeriesKind::Accuracy
                    | SeriesKind::LearningRate
                    | SeriesKind::Speed
                    | SeriesKind::DataWait
                    | SeriesKind::EmbeddingStd
                    | SeriesKind::EmbeddingRank
                    | SeriesKind::EmbeddingAlignment
            ),
            smooth: noisy,
            mark: mark(data, kind),
            steps: steps.clone(),
            steps_per_epoch: data.steps_per_epoch,
        };
        chart.html()
    };
    // Each in its own chart: their scales have nothing to do with each other.
    let each = |how: fn(&str) -> &'static str, noisy: bool| -> String {
        let first = series.iter().take(MOST_CHARTS);
        first.map(|one| chart(&upper_first(&clip(&one.name, 60)), vec![*one], how(&one.name), noisy)).collect()
    };
    match kind {
        SeriesKind::Accuracy => chart(
            "Accuracy on labeled images",
            series,
            "How often the backbone's features name the right class. Labels are only looked at here: training never \
             sees them. Up is better; the dashed lines are what there was before training.",
            false,
        ),
        SeriesKind::Loss => chart(
            "Loss",
            series,
            "What training lowers. It should fall fast, then slowly; the pale line is every logged step, the strong one \
             a running mean. Losses of different methods or batch sizes can't be compared.",
            true,
        ),
        SeriesKind::LossPart => each(|_| "One of the loss's terms, or a measure that goes with it.", true),
        SeriesKind::EmbeddingStd => chart(
            "Embedding standard deviation",
            series,
            "How much the normalized embeddings differ between images. Near the dashed line they fill the sphere; near \
             0 all images get one embedding, and the run has collapsed.",
            true,
        ),
        SeriesKind::EmbeddingRank => chart(
            "Effective rank of the embeddings",
            series,
            "In how many directions they vary. A fall to a few is a dimensional collapse.",
            true,
        ),
        SeriesKind::Cosine => chart(
            "Cosine of pairs",
            series,
            "How alike embeddings are: of two views of one image (high is good) and of different images (near 0 is good). \
             Both at 1 is a collapse.",
            true,
        ),
        SeriesKind::EmbeddingUniformity => chart(
            "Uniformity of the embeddings",
            series,
            "How evenly they cover the sphere: the log of a mean of exp(−2 × squared distance). Lower is better; 0 is a \
             collapse to one point.",
            true,
        ),
        SeriesKind::EmbeddingAlignment => chart(
            "Alignment of the embeddings",
            series,
            "Mean squared distance between the two views of an image. Lower is better, as long as the spread stays.",
            true,
        ),
        SeriesKind::Monitor => each(monitor, true),
        SeriesKind::Geometry => each(geometry, false),
        SeriesKind::LearningRate => {
            chart("Learning rate", series, "The effective learning rate: a warm-up, then a slow descent.", false)
        }
        SeriesKind::Speed => chart(
            "Speed",
            series,
            "Source images trained on per second; a pair of views counts once. It should be flat.",
            true,
        ),
        SeriesKind::DataWait => chart(
            "Waiting for data",
            series,
            "Share of the time the network waited for images. Above a few percent, more data workers or a smaller \
             decoded size would make the run faster.",
            true,
        ),
    }
}

/// The step to mark in charts of a kind, and what began there.
fn mark(data: &ReportData, kind: SeriesKind) -> Option<(u64, &'static str)> {
    use SeriesKind::{Cosine, EmbeddingAlignment, EmbeddingRank, EmbeddingStd, EmbeddingUniformity, Loss};
    let collapse = data.collapsed_since.map(|step| (step, "collapse began"));
    match kind {
        Loss => collapse.or(data.stuck_since.map(|step| (step, "stuck since"))),
        Cosine | EmbeddingAlignment | EmbeddingRank | EmbeddingStd | EmbeddingUniformity => collapse,
        _ => None,
    }
}

fn references(data: &ReportData, kind: SeriesKind) -> Vec<Reference> {
    let reference = |name: &str, value: Option<f64>| {
        value.filter(|value| value.is_finite()).map(|value| Reference { name: name.to_owned(), value })
    };
    let dims = data.embedding_dim.filter(|d| *d > 0);
    let all = match kind {
        SeriesKind::Accuracy => [
            reference("kNN, random backbone", data.summary.random_knn),
            reference("kNN, raw pixels", data.summary.raw_knn),
            reference("linear, random backbone", data.summary.random_linear.filter(|_| data.summary.linear.is_some())),
        ],
        SeriesKind::Loss => [reference("telling no image from another", data.trivial_loss), None, None],
        SeriesKind::EmbeddingStd => {
            [reference("1/√d, spread evenly", dims.map(|d| (d as f64).sqrt().recip())), None, None]
        }
        SeriesKind::EmbeddingRank => {
            let even = dims.zip(data.embedding_rows).map(|(d, rows)| even_rank(rows, d));
            [reference("spread evenly", even), None, None]
        }
        SeriesKind::EmbeddingUniformity => [reference("spread evenly", dims.map(even_uniformity)), None, None],
        SeriesKind::Cosine => [reference("unrelated", Some(0.0)), reference("the same", Some(1.0)), None],
        _ => [None, None, None],
    };
    all.into_iter().flatten().collect()
}

fn monitor(name: &str) -> &'static str {
    let name = name.to_lowercase();
    if name.contains("age") {
        "How many steps ago the oldest entries were made. It grows until the queue is full, then stays."
    } else if name.contains("norm") {
        "The mean length of the entries. 1, as long as they are normalized."
    } else {
        "A number that the method watches."
    }
}

fn geometry(name: &str) -> &'static str {
    let name = name.to_lowercase();
    if name.contains("alignment") {
        "Mean squared distance between the backbone's features of two views of one image. Lower is better, unless uniformity \
         rises with it."
    } else if name.contains("uniformity") {
        "How evenly the backbone's features cover the sphere: the log of a mean of exp(−2 × squared distance). Lower is better; \
         0 is a collapse to one point."
    } else if name.contains("rank") {
        "How many directions the backbone's features really use. A fall towards 1 is a collapse."
    } else {
        "A measure of how the features lie."
    }
}
