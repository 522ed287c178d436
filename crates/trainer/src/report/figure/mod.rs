//! A picture of several runs side by side, as an SVG file of its own: bars of names, or lines over a number.

use std::fmt::Write;

use crate::report::html::{escape, percent, value};
use crate::report::scale::{Axis, Format};

#[cfg(test)]
mod tests;

/// Width of the picture; bars make its height.
const WIDTH: f64 = 860.0;

/// Several runs of one setting.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// What sets it apart: a variant's name.
    pub name: String,
    /// Where it lies on the axis of a number, if there is one.
    pub x: Option<f64>,
    /// Each run's result; none of a run without one.
    pub results: Vec<f64>,
    /// A word that stands beside it: `collapsed`.
    pub remark: String,
}

impl Group {
    fn finite(&self) -> impl Iterator<Item = f64> {
        self.results.iter().copied().filter(|result| result.is_finite())
    }

    /// The mean of the results; those that are not finite are left out.
    pub fn mean(&self) -> Option<f64> {
        let n = self.finite().count() as f64;
        (n > 0.0).then(|| self.finite().map(|result| result / n).sum())
    }

    /// Their standard deviation (of a sample, over n - 1); none of a single one.
    pub fn deviation(&self) -> Option<f64> {
        let (mean, n) = (self.mean()?, self.finite().count() as f64);
        let squares: f64 = self.finite().map(|result| (result - mean).powi(2)).sum();
        (n > 1.0).then(|| (squares / (n - 1.0)).sqrt()).filter(|deviation| deviation.is_finite())
    }
}

/// Runs side by side: one line of groups for each name, or bars where they have no x.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// Above the picture.
    pub title: String,
    /// What is measured.
    pub y: String,
    /// Whether results are fractions, shown as percentages.
    pub percent: bool,
    /// What the axis of a number is, and whether it goes by powers of ten.
    pub x: Option<(String, bool)>,
    /// The settings, in order.
    pub groups: Vec<Group>,
    /// Dashed lines: what a random backbone has.
    pub references: Vec<(String, f64)>,
}

impl Figure {
    /// The picture as the text of an SVG file. It follows the viewer's choice of light or dark.
    pub fn svg(&self) -> String {
        let lines = self.x.as_ref().filter(|_| self.groups.iter().any(|group| group.x.is_some_and(f64::is_finite)));
        let (height, body) = match lines {
            Some((x, log)) => (480.0, self.lines(x, *log)),
            None => (self.bars_height(), self.bars()),
        };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"figure\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\"><style>{CSS}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n<text class=\"title\" x=\"24\" y=\"34\">{title}</text>\n\
             {body}</svg>\n",
            title = escape(&self.title),
        )
    }

    fn text(&self, number: f64) -> String {
        if self.percent { percent(number) } else { value(number) }
    }

    fn y_axis(&self, from_zero: bool) -> Axis {
        let ends = self.groups.iter().flat_map(|group| {
            let (mean, deviation) = (group.mean(), group.deviation().unwrap_or(0.0));
            let ends = mean.map(|mean| [mean - deviation, mean + deviation]);
            group.results.iter().copied().chain(ends.into_iter().flatten()).collect::<Vec<_>>()
        });
        let all = ends.chain(self.references.iter().map(|reference| reference.1));
        Axis::of_values(all, from_zero)
    }

    fn format(&self) -> Format {
        if self.percent { Format::Percent } else { Format::Plain }
    }

    fn bars_height(&self) -> f64 {
        104.0 + 38.0 * self.groups.len() as f64 + if self.references.is_empty() { 0.0 } else { 24.0 }
    }

    /// One bar a group, with its deviation and a dot for each run.
    fn bars(&self) -> String {
        let longest = self.groups.iter().map(|group| group.name.chars().count()).max().unwrap_or(0);
        let (left, right) = (36.0 + (7.4 * longest as f64).min(330.0), WIDTH - 180.0);
        let (top, bottom) = (56.0, 56.0 + 38.0 * self.groups.len() as f64);
        let axis = self.y_axis(true);
        let at = |number: f64| left + (right - left) * axis.place(number);
        let zero = at(0f64.clamp(axis.low, axis.high));
        let mut out = String::new();
        for (tick, label) in axis.ticks(5, self.format()) {
            let x = at(tick);
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/><text class=\"soft mid\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
                bottom + 20.0
            );
        }
        let _ = writeln!(
            out,
            "<text class=\"soft mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            (left + right) / 2.0,
            bottom + 40.0,
            escape(&self.y)
        );
        out += &self.reference_lines(|number| format!("M{0:.1} {top}V{bottom}", at(number)), 24.0, bottom + 62.0);
        for (i, group) in self.groups.iter().enumerate() {
            let middle = top + 38.0 * i as f64 + 19.0;
            let name: String = cut(&group.name, 44);
            let _ = writeln!(
                out,
                "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left - 10.0,
                middle + 4.5,
                escape(&name)
            );
            let Some(mean) = group.mean() else {
                let remark = if group.remark.is_empty() { "no result" } else { &group.remark };
                let _ = writeln!(
                    out,
                    "<text class=\"bad\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    zero + 8.0,
                    middle + 4.5,
                    escape(remark)
                );
                continue;
            };
            let end = at(mean);
            let (from, width) = (zero.min(end), (end - zero).abs());
            let class = if group.remark.is_empty() { "bar" } else { "bar ill" };
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"22\" rx=\"3\"/>",
                middle - 11.0
            );
            let mut furthest = end;
            if let Some(deviation) = group.deviation() {
                let (low, high) = (at(mean - deviation), at(mean + deviation));
                furthest = furthest.max(high);
                let _ = write!(
                    out,
                    "<path class=\"whisker\" d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {0:.1}v10M{high:.1} {0:.1}v10\"/>",
                    middle - 5.0
                );
            }
            for result in group.finite() {
                let x = at(result);
                furthest = furthest.max(x);
                let _ = write!(out, "<circle class=\"run\" cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"3\"/>");
            }
            let deviation = group.deviation().map_or(String::new(), |d| format!(" ± {}", self.text(d)));
            let _ = writeln!(
                out,
                "<text class=\"amount\" x=\"{:.1}\" y=\"{:.1}\">{}{deviation}<tspan class=\"bad\">{}</tspan></text>",
                furthest + 10.0,
                middle + 4.5,
                self.text(mean),
                if group.remark.is_empty() { String::new() } else { format!("  {}", escape(&group.remark)) },
            );
        }
        out
    }

    /// One line a name over x, with deviations and a dot for each run.
    fn lines(&self, x_name: &str, log: bool) -> String {
        let (left, right, top, bottom) = (84.0, WIDTH - 36.0, 64.0, 392.0);
        let xs: Vec<f64> = self.groups.iter().filter_map(|group| group.x).filter(|x| x.is_finite()).collect();
        let scale = XScale::new(&xs, log);
        let axis = self.y_axis(false);
        let at_x = |x: f64| left + (right - left) * scale.place(x);
        let at_y = |y: f64| bottom - (bottom - top) * axis.place(y);
        let mut out = String::new();
        for (tick, label) in axis.ticks(6, self.format()) {
            let y = at_y(tick);
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text class=\"soft end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                left - 10.0,
                y + 4.0
            );
        }
        for (tick, label) in scale.ticks() {
            let x = at_x(tick);
            let _ = writeln!(
                out,
                "<path class=\"tick\" d=\"M{x:.1} {bottom}v6\"/><text class=\"soft mid\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
                bottom + 22.0
            );
        }
        let _ = writeln!(
            out,
            "<path class=\"tick\" d=\"M{left} {bottom}H{right}\"/><text class=\"soft mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"soft\" x=\"24\" y=\"56\">{}</text>",
            (left + right) / 2.0,
            bottom + 44.0,
            escape(x_name),
            escape(&self.y)
        );
        out += &self.reference_lines(|number| format!("M{left} {0:.1}H{right}", at_y(number)), 24.0, bottom + 76.0);
        let mut names: Vec<&str> = Vec::new();
        self.groups.iter().for_each(|group| {
            if !names.contains(&group.name.as_str()) {
                names.push(&group.name);
            }
        });
        let mut legend = right;
        for (i, name) in names.iter().enumerate() {
            let mut points: Vec<(f64, &Group)> = self
                .groups
                .iter()
                .filter(|group| group.name == **name)
                .filter_map(|group| Some((group.x.filter(|x| x.is_finite())?, group)))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let color = i % 10;
            let _ = writeln!(out, "<g class=\"c{color}\">");
            // Side by side where lines share an x.
            let beside = 7.0 * (i as f64 - (names.len() - 1) as f64 / 2.0);
            let path: Vec<String> = points
                .iter()
                .filter_map(|(x, group)| Some(format!("{:.1} {:.1}", at_x(*x) + beside, at_y(group.mean()?))))
                .collect();
            if !path.is_empty() {
                let _ = writeln!(out, "<path class=\"line\" d=\"M{}\"/>", path.join("L"));
            }
            for (x, group) in points {
                let px = at_x(x) + beside;
                let Some(mean) = group.mean() else {
                    let _ = write!(out, "<text class=\"bad mid\" x=\"{px:.1}\" y=\"{:.1}\">×</text>", bottom - 6.0);
                    continue;
                };
                if let Some(deviation) = group.deviation() {
                    let (low, high) = (at_y(mean - deviation), at_y(mean + deviation));
                    let _ = write!(
                        out,
                        "<path class=\"whisker\" d=\"M{px:.1} {low:.1}V{high:.1}M{0:.1} {low:.1}h10M{0:.1} {high:.1}h10\"/>",
                        px - 5.0
                    );
                }
                for result in group.finite() {
                    let _ = write!(out, "<circle class=\"run\" cx=\"{px:.1}\" cy=\"{:.1}\" r=\"2.5\"/>", at_y(result));
                }
                let (y, class) = (at_y(mean), if group.remark.is_empty() { "mean" } else { "mean ill" });
                let _ = writeln!(out, "<circle class=\"{class}\" cx=\"{px:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>");
                if !group.remark.is_empty() {
                    let _ = writeln!(
                        out,
                        "<text class=\"bad mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                        px.clamp(left + 30.0, right - 30.0),
                        y - 12.0,
                        escape(&group.remark)
                    );
                }
            }
            if names.len() > 1 {
                let shown = cut(name, 30);
                legend -= 48.0 + 7.8 * shown.chars().count() as f64;
                let _ = write!(
                    out,
                    "<path class=\"line\" d=\"M{legend:.1} 51h18\"/><text x=\"{:.1}\" y=\"56\">{}</text>",
                    legend + 24.0,
                    escape(&shown)
                );
            }
            out += "</g>\n";
        }
        out
    }

    /// Dashed lines along `path`, named from `(x, y)` on.
    fn reference_lines(&self, path: impl Fn(f64) -> String, mut x: f64, y: f64) -> String {
        let mut out = String::new();
        for (i, (name, number)) in self.references.iter().filter(|reference| reference.1.is_finite()).enumerate() {
            let text = format!("{name} {}", self.text(*number));
            let _ = writeln!(
                out,
                "<g class=\"r{}\"><path class=\"ref\" d=\"{}\"/><path class=\"ref\" d=\"M{x:.1} {:.1}h22\"/></g>\
                 <text class=\"soft\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                i % 3,
                path(*number),
                y - 4.0,
                x + 30.0,
                escape(&text)
            );
            x += 60.0 + 7.0 * text.chars().count() as f64;
        }
        out
    }
}

/// Text of at most `most` characters.
fn cut(text: &str, most: usize) -> String {
    crate::report::page::clip(text, most)
}

/// The axis of a number that runs differ in: its ticks are the runs' own values. By powers of ten, 0 has a place of its
/// own at the left.
struct XScale {
    log: bool,
    values: Vec<f64>,
    low: f64,
    high: f64,
}

impl XScale {
    fn new(xs: &[f64], log: bool) -> Self {
        let mut values = xs.to_vec();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let mut scale = Self { log, values, low: 0.0, high: 1.0 };
        let first = scale.values.iter().copied().find(|x| *x > 0.0 || !log).unwrap_or(1.0);
        let last = scale.values.last().copied().unwrap_or(1.0);
        (scale.low, scale.high) = if log { (first.log10(), last.max(first).log10()) } else { (first, last) };
        if log && scale.values.first().is_some_and(|x| *x <= 0.0) {
            scale.low -= 0.2 * (scale.high - scale.low).max(1.0);
        }
        if scale.high <= scale.low {
            (scale.low, scale.high) = (scale.low - 1.0, scale.high + 1.0);
        }
        scale
    }

    /// From 0 to 1, with some air at both ends.
    fn place(&self, x: f64) -> f64 {
        let at = if !self.log {
            x
        } else if x > 0.0 {
            x.log10()
        } else {
            self.low
        };
        0.04 + 0.92 * ((at - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The values themselves, as far as their labels find room.
    fn ticks(&self) -> Vec<(f64, String)> {
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for x in &self.values {
            let label = crate::report::html::plain(*x);
            let room = 0.012 * label.chars().count() as f64 + 0.01;
            if ticks.last().is_none_or(|(last, _)| self.place(*x) - self.place(*last) > room) {
                ticks.push((*x, label));
            }
        }
        ticks
    }
}

const CSS: &str = include_str!("figure.css");
