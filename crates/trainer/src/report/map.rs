//! The map: embeddings on their first two principal components, colored by label.

use std::collections::BTreeMap;

use super::chart::count;
use super::html::{escape, percent};
use super::model::{Map, MapPoint, ReportData};
use super::page::class_name;

/// Points drawn: more only cover each other.
const MOST_POINTS: usize = 4000;
/// Classes with a color of their own, the most frequent ones; the rest is gray.
const COLORS: usize = 10;
/// Each class is drawn in so many turns, so that the last one doesn't cover the others.
const TURNS: usize = 6;

/// The section; empty without a point.
pub(super) fn section(data: &ReportData) -> String {
    let Some(map) = &data.map else { return String::new() };
    let finite: Vec<MapPoint> =
        map.points.iter().copied().filter(|point| point.x.is_finite() && point.y.is_finite()).collect();
    if finite.is_empty() {
        return String::new();
    }
    let every = finite.len().div_ceil(MOST_POINTS);
    let points: Vec<MapPoint> = finite.into_iter().step_by(every).collect();
    let classes = classes(&points);
    let labeled = !classes.is_empty();
    let how = if labeled {
        "Each dot is one image; like images lie together. Labels only give the color: training never sees them. Two \
         directions out of many show only part of it: classes that overlap here may well be apart in the others. Point \
         at a class in the list to see it alone."
    } else {
        "Each dot is one image; like images lie together. The data has no labels, so all dots have one color. Clusters \
         and gradients are structure that the network found; one tight ball would be a collapse."
    };
    let place = Place::of(&points);
    format!(
        "<section id=\"map\"><h2>Map of embeddings</h2>\n<p class=\"lead\">{how}</p>\n<div class=\"map\">\
         <figure><svg viewBox=\"0 0 1000 {:.0}\" role=\"img\" aria-label=\"Scatter plot of {} on two principal \
         components\">{}</svg><figcaption>{}</figcaption></figure>{}</div></section>\n",
        place.height,
        count(points.len(), "embedding", "embeddings"),
        dots(&points, &classes, data, &place),
        axes(map),
        legend(&points, &classes, data),
    )
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
    fn of(points: &[MapPoint]) -> Self {
        let range = |of: fn(&MapPoint) -> f32| {
            let values = || points.iter().map(|point| f64::from(of(point)));
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
        };
        let (x, y) = (range(|point| point.x), range(|point| point.y));
        let (wide, high) = (x.1 - x.0, y.1 - y.0);
        let height = if wide > 0.0 { (960.0 * high / wide + 40.0).clamp(420.0, 860.0) } else { 600.0 };
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
            out += &format!("<path class=\"dot {class}\" d=\"{path}\"><title>{title}</title></path>");
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
