//! Which curves make which chart, and the sentence that says how to read it.

use super::chart::{Chart, Reference};
use super::model::{ReportData, Series, SeriesKind};
use super::page::{clip, upper_first};
use super::scale::{Axis, Format};

/// Charts of one kind, and lines in one chart: more of either is a mistake that should not make a page of many MB.
const MOST_CHARTS: usize = 12;
const MOST_LINES: usize = 10;

/// The section with all charts; empty without a curve.
pub(super) fn section(data: &ReportData) -> String {
    let all = || data.series.iter().flat_map(|series| &series.points).map(|point| point.0);
    let (Some(first), Some(last)) = (all().min(), all().max()) else { return String::new() };
    let charts: String = kinds().iter().map(|kind| kind_html(data, *kind, &Axis::of_steps(first, last))).collect();
    if charts.is_empty() {
        return String::new();
    }
    format!(
        "<section id=\"curves\"><h2>Curves</h2>\n<p class=\"lead\">Everything the run logged, over the same steps. \
         Point at a chart to read a value.</p>\n<div class=\"charts\">\n{charts}</div></section>\n"
    )
}

/// The order of the charts.
fn kinds() -> [SeriesKind; 8] {
    use SeriesKind::{Accuracy, DataWait, EmbeddingStd, Geometry, LearningRate, Loss, LossPart, Speed};
    [Accuracy, Loss, LossPart, EmbeddingStd, Geometry, LearningRate, Speed, DataWait]
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
            from_zero: !matches!(kind, SeriesKind::Loss | SeriesKind::LossPart | SeriesKind::Geometry),
            smooth: noisy,
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

fn references(data: &ReportData, kind: SeriesKind) -> Vec<Reference> {
    let reference = |name: &str, value: Option<f64>| {
        value.filter(|value| value.is_finite()).map(|value| Reference { name: name.to_owned(), value })
    };
    let all = match kind {
        SeriesKind::Accuracy => [
            reference("kNN, random backbone", data.summary.random_knn),
            reference("kNN, raw pixels", data.summary.raw_knn),
            reference("linear, random backbone", data.summary.random_linear.filter(|_| data.summary.linear.is_some())),
        ],
        SeriesKind::EmbeddingStd => {
            let ideal = data.embedding_dim.filter(|d| *d > 0).map(|d| (d as f64).sqrt().recip());
            [reference("1/√d, spread evenly", ideal), None, None]
        }
        _ => [None, None, None],
    };
    all.into_iter().flatten().collect()
}

fn geometry(name: &str) -> &'static str {
    let name = name.to_lowercase();
    if name.contains("alignment") {
        "Mean squared distance between the embeddings of two views of one image. Lower is better, unless uniformity \
         rises with it."
    } else if name.contains("uniformity") {
        "How evenly the embeddings cover the sphere: the log of a mean of exp(−2 × squared distance). Lower is better; \
         0 is a collapse to one point."
    } else if name.contains("rank") {
        "How many directions the embeddings really use. A fall towards 1 is a collapse."
    } else {
        "A measure of how the embeddings lie."
    }
}
