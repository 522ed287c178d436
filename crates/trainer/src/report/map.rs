//! The map: embeddings on their first two principal components and by t-SNE, colored by label, with pictures.

use std::collections::BTreeMap;

use super::chart::count;
use super::html::{escape, percent};
use super::model::{Map, MapImage, MapPoint, ReportData};
use super::mosaic::Mosaic;
use super::page::{class_name, clip};

/// Points drawn: more only cover each other.
const MOST_POINTS: usize = 4000;
/// Classes with a color of their own, the most frequent ones; the rest is gray.
const COLORS: usize = 10;
/// Each class is drawn in so many turns, so that the last one doesn't cover the others.
const TURNS: usize = 6;
/// The height of two maps side by side; both are 1000 wide.
const HEIGHT: f64 = 800.0;

/// A section and what it adds to the look of the page.
#[derive(Default)]
pub(super) struct Section {
    pub(super) html: String,
    pub(super) css: String,
}

/// The section; empty without a point.
pub(super) fn section(data: &ReportData) -> Section {
    let Some(map) = &data.map else { return Section::default() };
    let points = drawn(map.points.iter().copied());
    if points.is_empty() {
        return Section::default();
    }
    let classes = classes(&points);
    let (legend, mosaic) = (legend(&points, &classes, data), if data.images_hidden { None } else { Mosaic::of(map) });
    let how = if classes.is_empty() {
        "Each dot is one image; like images lie together. The data has no labels, so all dots have one color. Clusters \
         and gradients are structure that the network found; one tight ball would be a collapse."
    } else {
        "Each dot is one image; like images lie together. Labels only give the color: training never sees them. Two \
         directions out of many show only part of it: classes that overlap here may well be apart in the others. Point \
         at a class in the list to see it alone."
    };
    let name = |image: &MapImage| {
        let label = map.points.get(image.point).and_then(|point| point.label);
        let class = label.map_or(String::new(), |label| format!(", {}", class_name(&data.class_names, label)));
        clip(&image.name, 100) + &class
    };
    let plane = |title: &str, points: &[MapPoint], height: Option<f64>, all: &[[f32; 2]], caption: &str| {
        let place = Place::of(points, height);
        let at = |point: usize| {
            let [x, y] = *all.get(point).filter(|at| at.iter().all(|v| v.is_finite()))?;
            let (x, y) = place.at(&MapPoint { x, y, label: None });
            Some([x / 10.0, 100.0 * y / place.height])
        };
        let spots = mosaic.as_ref().map_or(String::new(), |mosaic| mosaic.spots(at, name));
        let heading = if height.is_some() { format!("<h3>{title}</h3>") } else { String::new() };
        format!(
            "<figure>{heading}<div class=\"plane\"><svg viewBox=\"0 0 1000 {:.0}\" role=\"img\" aria-label=\"Scatter plot \
             of {} {}\">{}</svg>{spots}</div><figcaption>{caption}</figcaption></figure>",
            place.height,
            count(points.len(), "embedding", "embeddings"),
            if title == "t-SNE" { "by t-SNE" } else { "on two principal components" },
            dots(points, &classes, data, &place),
        )
    };
    let flat: Vec<[f32; 2]> = map.points.iter().map(|point| [point.x, point.y]).collect();
    let pair = map.tsne.len() == map.points.len();
    let mut body = if pair {
        let moved = map.points.iter().zip(&map.tsne).map(|(point, &[x, y])| MapPoint { x, y, ..*point });
        plane("Principal components", &points, Some(HEIGHT), &flat, &axes(map))
            + &plane(
                "t-SNE",
                &drawn(moved),
                Some(HEIGHT),
                &map.tsne,
                "Neighbors stay neighbors; how far groups are from each other, and how large they are, means little.",
            )
            + &legend
    } else {
        plane("Principal components", &points, None, &flat, &axes(map)) + &legend
    };
    if let Some(mosaic) = &mosaic {
        let color = |image: &MapImage| {
            let point = map.points.get(image.point).copied().unwrap_or_default();
            match slot(&point, &classes) {
                0 => String::new(),
                color => format!("c{}", color - 1),
            }
        };
        body += &mosaic.html(color, name);
    }
    Section {
        html: format!(
            "<section id=\"map\"><h2>Map of embeddings</h2>\n<p class=\"lead\">{how}</p>\n<div class=\"map{}\">{body}</div></section>\n",
            if pair { " pair" } else { "" },
        ),
        css: mosaic.map_or(String::new(), |mosaic| mosaic.css()),
    }
}

/// The points that are drawn: not all of very many, and none without a place.
fn drawn(points: impl Iterator<Item = MapPoint>) -> Vec<MapPoint> {
    let finite: Vec<MapPoint> = points.filter(|point| point.x.is_finite() && point.y.is_finite()).collect();
    let every = finite.len().div_ceil(MOST_POINTS).max(1);
    finite.into_iter().step_by(every).collect()
}

/// The classes with a color: label to color, the most frequent first, ties to the lower label.
fn classes(points: &[MapPoint]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::<u32, usize>::new();
    for label in points.iter().filter_map(|point| point.label) {
        *counts.entry(label).or_default() += 1;
    }
    let mut order: Vec<(u32, usize)> = counts.into_iter().collect();
    if order.len() > COLORS {
        order.sort_by_key(|(label, count)| (usize::MAX - count, *label));
        order.truncate(COLORS);
    }
    order.into_iter().enumerate().map(|(color, (label, _))| (label, color)).collect()
}

/// Both axes have one scale, or distances would lie.
struct Place {
    scale: f64,
    middle: [f64; 2],
    height: f64,
}

impl Place {
    /// As high as the points need, or as `height` says.
    fn of(points: &[MapPoint], height: Option<f64>) -> Self {
        let range = |of: fn(&MapPoint) -> f32| {
            let values = || points.iter().map(|point| f64::from(of(point)));
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
        };
        let (x, y) = (range(|point| point.x), range(|point| point.y));
        let (wide, high) = (x.1 - x.0, y.1 - y.0);
        let own = if wide > 0.0 { (960.0 * high / wide + 40.0).clamp(420.0, 860.0) } else { 600.0 };
        let height = height.unwrap_or(own);
        let scale = (960.0 / wide).min((height - 40.0) / high);
        let scale = if scale.is_finite() { scale } else { 1.0 };
        Place { scale, middle: [(x.0 + x.1) / 2.0, (y.0 + y.1) / 2.0], height }
    }

    fn at(&self, point: &MapPoint) -> (f64, f64) {
        let x = 500.0 + (f64::from(point.x) - self.middle[0]) * self.scale;
        let y = self.height / 2.0 - (f64::from(point.y) - self.middle[1]) * self.scale;
        (x, y)
    }
}

/// A color's place in the lists: 0 is unlabeled or other, `color + 1` a class.
fn slot(point: &MapPoint, classes: &BTreeMap<u32, usize>) -> usize {
    point.label.and_then(|label| classes.get(&label)).map_or(0, |color| color + 1)
}

fn dots(points: &[MapPoint], classes: &BTreeMap<u32, usize>, data: &ReportData, place: &Place) -> String {
    let mut names = vec![if classes.is_empty() { String::new() } else { "other".to_owned() }];
    let mut labels: Vec<(&u32, &usize)> = classes.iter().collect();
    labels.sort_by_key(|(_, color)| **color);
    names.extend(labels.iter().map(|(label, _)| class_name(&data.class_names, **label)));
    let mut out = String::new();
    for turn in 0..TURNS {
        let mut paths = vec![String::new(); names.len()];
        for point in points.iter().skip(turn).step_by(TURNS) {
            let (x, y) = place.at(point);
            paths[slot(point, classes)] += &format!("M{x:.0} {y:.0}h0");
        }
        for (at, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
            let (title, class) = match at {
                0 if classes.is_empty() => (String::new(), "c0".to_owned()),
                0 => (escape(&names[at]), "other".to_owned()),
                _ => (escape(&names[at]), format!("c{}", at - 1)),
            };
            out += &format!("<path class=\"dot of {class}\" d=\"{path}\"><title>{title}</title></path>");
        }
    }
    out
}

fn axes(map: &Map) -> String {
    match map.explained.filter(|shares| shares.iter().all(|share| share.is_finite())) {
        Some([first, second]) => format!(
            "Across: first principal component, {} of the variance. Up: second, {}.",
            percent(first),
            percent(second)
        ),
        None => "Across: first principal component. Up: second.".into(),
    }
}

fn legend(points: &[MapPoint], classes: &BTreeMap<u32, usize>, data: &ReportData) -> String {
    if classes.is_empty() {
        return String::new();
    }
    let mut counts = vec![0usize; classes.len() + 1];
    points.iter().for_each(|point| counts[slot(point, classes)] += 1);
    let mut rows: Vec<(usize, String)> =
        classes.iter().map(|(label, color)| (*color, class_name(&data.class_names, *label))).collect();
    rows.sort();
    let mut out = String::from("<ul class=\"classes\">");
    for (color, name) in rows {
        out += &format!(
            "<li class=\"k{color}\"><s class=\"c{color}\"></s>{} <b>{}</b></li>",
            escape(&name),
            counts[color + 1]
        );
    }
    if counts[0] > 0 {
        out += &format!("<li><s class=\"other\"></s>other classes <b>{}</b></li>", counts[0]);
    }
    out + "</ul>"
}
