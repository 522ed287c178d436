//! One chart: lines in a stretched SVG, text around it as HTML, so that text keeps its size at any width.
//!
//! There is no script: what the pointer shows is a row of strips whose tips CSS reveals.

use super::curve::{self, SIDE};
use super::html::{escape, percent, thousands, value};
use super::model::Series;
use super::scale::{Axis, Format};

/// Points under the pointer across a chart.
const STRIPS: usize = 60;

/// A dashed horizontal line.
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) value: f64,
}

/// What a chart shows and how.
pub(super) struct Chart<'a> {
    pub(super) title: String,
    /// How to read it: one or two sentences.
    pub(super) how: &'a str,
    pub(super) series: Vec<&'a Series>,
    pub(super) references: Vec<Reference>,
    pub(super) format: Format,
    pub(super) from_zero: bool,
    /// Draw a calm line over a pale one of all values, where there are many.
    pub(super) smooth: bool,
    /// A step to mark, and what began there.
    pub(super) mark: Option<(u64, &'static str)>,
    /// The axis of steps that all charts of the page share.
    pub(super) steps: Axis,
    pub(super) steps_per_epoch: Option<u64>,
}

impl Chart<'_> {
    /// The chart as HTML; empty if no series has a finite value.
    pub(super) fn html(&self) -> String {
        let finite = || self.series.iter().flat_map(|series| series.points.iter()).filter(|point| point.1.is_finite());
        if finite().next().is_none() {
            return String::new();
        }
        let references = self.references.iter().map(|reference| reference.value);
        // The references only widen the axis: they must not count as outliers.
        let mut y = Axis::of_values(finite().map(|point| point.1), self.from_zero);
        for at in references.filter(|value| value.is_finite()) {
            let air = 0.04 * (y.high - y.low);
            y = Axis { low: if at < y.low { at - air } else { y.low }, high: y.high.max(at + air) };
        }
        let outside = finite().filter(|point| point.1 < y.low || point.1 > y.high).count();
        let note = if outside > 0 {
            format!(" {} outside the picture, drawn at its edge.", count(outside, "value", "values"))
        } else {
            String::new()
        };
        let now = self.now();
        format!(
            "<figure class=\"chart\"><figcaption><h3>{}</h3><p class=\"now\">{now}</p></figcaption>\n\
             <div class=\"plot\" role=\"img\" aria-label=\"{}\"><div class=\"ys\">{}</div><div class=\"area\">\
             <svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{}</svg>{}</div>\
             <div class=\"axis\">step</div><div class=\"xs\">{}</div></div>\n{}<p class=\"how\">{}{note}</p></figure>\n",
            escape(&self.title),
            escape(&self.description()),
            self.y_labels(&y),
            self.drawing(&y),
            self.strips(&y),
            self.x_labels(),
            self.legend(),
            escape(self.how),
        )
    }

    fn text(&self, number: f64, series: &Series) -> String {
        match self.format {
            Format::Percent => percent(number),
            Format::Plain if series.unit.is_empty() => value(number),
            Format::Plain => format!("{} {}", value(number), series.unit),
        }
    }

    /// The latest value, where there is one line to speak of.
    fn now(&self) -> String {
        match self.series.as_slice() {
            [series] => series.points.last().map_or(String::new(), |point| escape(&self.text(point.1, series))),
            _ => String::new(),
        }
    }

    /// What a screen reader says instead of the picture.
    fn description(&self) -> String {
        let mut out = format!("Line chart: {}.", self.title);
        for series in &self.series {
            let finite = || series.points.iter().filter(|point| point.1.is_finite());
            let low = finite().min_by(|a, b| a.1.total_cmp(&b.1));
            let high = finite().max_by(|a, b| a.1.total_cmp(&b.1));
            if let (Some(first), Some(last), Some(low), Some(high)) = (finite().next(), finite().next_back(), low, high)
            {
                let text = |number| self.text(number, series);
                out += &format!(
                    " {}: from {} at step {} to {} at step {}; lowest {}, highest {}.",
                    series.name,
                    text(first.1),
                    thousands(first.0),
                    text(last.1),
                    thousands(last.0),
                    text(low.1),
                    text(high.1),
                );
            }
        }
        out
    }

    fn y_labels(&self, y: &Axis) -> String {
        let label = |(at, text)| format!("<span style=\"top:{:.1}%\">{text}</span>", 100.0 * (1.0 - y.place(at)));
        y.ticks(6, self.format).into_iter().map(label).collect()
    }

    fn x_labels(&self) -> String {
        let label = |(at, text)| format!("<span style=\"left:{:.1}%\">{text}</span>", 100.0 * self.steps.place(at));
        self.steps.step_ticks(5).into_iter().map(label).collect()
    }

    fn drawing(&self, y: &Axis) -> String {
        let mut out = String::new();
        let height = |at| (1.0 - y.place(at)) * SIDE;
        let grid: String =
            y.ticks(6, self.format).into_iter().map(|(at, _)| format!("M0 {:.0}H1000", height(at))).collect();
        out += &format!("<path class=\"grid\" d=\"{grid}\"/>");
        for (i, reference) in self.references.iter().enumerate() {
            if reference.value.is_finite() {
                out += &format!("<path class=\"ref r{}\" d=\"M0 {:.0}H1000\"/>", i % 3, height(reference.value));
            }
        }
        if let Some((step, _)) = self.mark {
            out += &format!("<path class=\"collapse\" d=\"M{:.0} 0V1000\"/>", self.steps.place(step as f64) * SIDE);
        }
        for (i, series) in self.series.iter().enumerate() {
            let color = i % 10;
            let line = |class: &str, points: &[(u64, f64)]| {
                format!("<path class=\"{class} c{color}\" d=\"{}\"/>", curve::path(points, &self.steps, y))
            };
            if self.smooth && series.points.len() > 80 {
                out += &line("line pale", &series.points);
                out += &line("line", &curve::smooth(&series.points));
            } else {
                out += &line("line", &series.points);
                if series.points.len() <= 40 {
                    let dots: Vec<(u64, f64)> =
                        series.points.iter().flat_map(|point| [*point, (point.0, f64::NAN)]).collect();
                    out += &line("dots", &dots);
                }
            }
        }
        out
    }

    fn strips(&self, y: &Axis) -> String {
        let Some(densest) = self.series.iter().max_by_key(|series| series.points.len()) else { return String::new() };
        let all = &densest.points;
        let shown = all.len().min(STRIPS);
        let steps: Vec<u64> = (0..shown).map(|i| all[i * (all.len() - 1) / (shown - 1).max(1)].0).collect();
        let place = |i: usize| 100.0 * self.steps.place(steps[i] as f64);
        let mut out = String::from("<div class=\"strips\" aria-hidden=\"true\">");
        for (i, step) in steps.iter().enumerate() {
            let left = if i == 0 { 0.0 } else { (place(i - 1) + place(i)) / 2.0 };
            let right = if i + 1 == shown { 100.0 } else { (place(i) + place(i + 1)) / 2.0 };
            let inside = if right > left { 100.0 * (place(i) - left) / (right - left) } else { 50.0 };
            let mut tip = format!("<b>step {}", thousands(*step));
            if let Some(per_epoch) = self.steps_per_epoch.filter(|n| *n > 0) {
                tip += &format!(" · epoch {}", thousands(step.saturating_sub(1) / per_epoch + 1));
            }
            tip += "</b>";
            let mut dots = String::new();
            for (color, series) in self.series.iter().enumerate() {
                // The value at this step, or the last one before it.
                let at = series.points.partition_point(|point| point.0 <= *step);
                let Some((_, number)) = at.checked_sub(1).map(|at| series.points[at]) else { continue };
                let text = escape(&self.text(number, series));
                tip += &match self.series.len() {
                    1 => format!("<span>{text}</span>"),
                    _ => format!("<span class=\"c{}\">{} {text}</span>", color % 10, escape(&series.name)),
                };
                if number.is_finite() {
                    let top = 100.0 * (1.0 - y.place(number));
                    dots += &format!("<u class=\"c{}\" style=\"top:{top:.1}%\"></u>", color % 10);
                }
            }
            let side = if place(i) > 50.0 { " class=\"l\"" } else { "" };
            out += &format!(
                "<i{side} style=\"left:{left:.2}%;width:{:.2}%;--x:{inside:.0}%\">{dots}<em>{tip}</em></i>",
                right - left,
            );
        }
        out + "</div>"
    }

    fn legend(&self) -> String {
        if self.series.len() + self.references.len() < 2 && self.mark.is_none() {
            return String::new();
        }
        let mut out = String::from("<ul class=\"legend\">");
        for (i, series) in self.series.iter().enumerate() {
            let last = series.points.iter().rfind(|point| point.1.is_finite());
            let last = last.map_or(String::new(), |point| self.text(point.1, series));
            out += &format!("<li><s class=\"c{}\"></s>{} <b>{}</b></li>", i % 10, escape(&series.name), escape(&last));
        }
        for (i, reference) in self.references.iter().enumerate().filter(|(_, reference)| reference.value.is_finite()) {
            let text = if self.format == Format::Percent { percent(reference.value) } else { value(reference.value) };
            out += &format!("<li><s class=\"ref r{}\"></s>{} <b>{text}</b></li>", i % 3, escape(&reference.name));
        }
        if let Some((step, what)) = self.mark {
            out += &format!("<li><s class=\"collapse\"></s>{what} <b>step {}</b></li>", thousands(step));
        }
        out + "</ul>\n"
    }
}

/// `1 value`, `12,000 values`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", thousands(number as u64), if number == 1 { one } else { many })
}
