//! Curves as SVG path data: gaps where a value is missing, fewer points where there are too many to see.

use super::scale::Axis;

/// Points kept of a line; more than that can't be told apart at a chart's width.
const MOST: usize = 500;

/// The side of a chart's coordinate system; the picture is stretched to the chart's place.
pub(super) const SIDE: f64 = 1000.0;

/// At most about `most` points that look like all of them: each stretch keeps its lowest and highest point, and a value
/// that is not finite stays as a gap.
pub(super) fn thin_to(points: &[(u64, f64)], most: usize) -> Vec<(u64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let (first, rest) = points.split_at(1);
    let (middle, last) = rest.split_at(rest.len() - 1);
    let stretch = middle.len().div_ceil((most / 3).max(1));
    let mut thin = first.to_vec();
    for part in middle.chunks(stretch) {
        let finite = || part.iter().enumerate().filter(|(_, point)| point.1.is_finite());
        let low = finite().min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i);
        let high = finite().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i);
        let gap = part.iter().position(|point| !point.1.is_finite());
        let mut kept: Vec<usize> = [low, high, gap].into_iter().flatten().collect();
        kept.sort_unstable();
        kept.dedup();
        thin.extend(kept.into_iter().map(|i| part[i]));
    }
    thin.extend_from_slice(last);
    thin
}

/// The curve without its noise: the mean over a centered window of a thirtieth of the points. At the ends the window is
/// narrower, but not so narrow that the noise is back.
pub(super) fn smooth(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let reach = points.len() / 60;
    // Sums over the finite values before each point make every window's mean two subtractions.
    let mut sums = vec![(0.0, 0.0)];
    for (_, value) in points {
        let (sum, count) = sums[sums.len() - 1];
        sums.push(if value.is_finite() { (sum + value, count + 1.0) } else { (sum, count) });
    }
    let mean = |(i, (step, value)): (usize, &(u64, f64))| {
        let reach = reach.min(i.min(points.len() - 1 - i).max(reach / 3));
        let ((low, before), (high, after)) = (sums[i.saturating_sub(reach)], sums[(i + reach + 1).min(points.len())]);
        (*step, if value.is_finite() { (high - low) / (after - before) } else { f64::NAN })
    };
    points.iter().enumerate().map(mean).collect()
}

/// Path data of a line through the points. A point alone between gaps becomes a dot (a line of no length, which a round
/// line cap makes visible).
pub(super) fn path(points: &[(u64, f64)], x: &Axis, y: &Axis) -> String {
    let mut out = String::new();
    let mut open = 0;
    let thin = thin_to(points, MOST);
    for (i, (step, value)) in thin.iter().enumerate() {
        if !value.is_finite() {
            open = 0;
            continue;
        }
        let (px, py) = (x.place(*step as f64) * SIDE, (1.0 - y.place(*value)) * SIDE);
        out += &format!("{}{px:.0} {py:.0}", if open == 0 { "M" } else { "L" });
        open += 1;
        if open == 1 && thin.get(i + 1).is_none_or(|next| !next.1.is_finite()) {
            out += "h0";
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes() -> (Axis, Axis) {
        (Axis { low: 0.0, high: 100.0 }, Axis { low: 0.0, high: 10.0 })
    }

    #[test]
    fn gaps_break_the_line_and_lone_points_are_dots() {
        let (x, y) = axes();
        let points = [(0, 0.0), (50, 10.0), (60, f64::NAN), (70, 5.0), (80, f64::INFINITY), (90, 5.0), (100, 1e9)];
        assert_eq!(path(&points, &x, &y), "M0 1000L500 0M700 500h0M900 500L1000 0");
        assert_eq!(path(&[(50, 5.0)], &x, &y), "M500 500h0");
        assert_eq!(path(&[], &x, &y), "");
    }

    #[test]
    fn thinning_keeps_ends_extremes_and_gaps() {
        let mut points: Vec<(u64, f64)> = (0..20_000).map(|i| (i, (i as f64 * 0.01).sin())).collect();
        (points[777].1, points[12_345].1, points[15_000].1) = (99.0, -99.0, f64::NAN);
        let thin = thin_to(&points, MOST);
        assert!(thin.len() <= MOST + 3, "{}", thin.len());
        assert!(thin.contains(&(777, 99.0)) && thin.contains(&(12_345, -99.0)));
        assert!(thin.iter().any(|point| point.0 == 15_000 && point.1.is_nan()));
        assert_eq!((thin[0], thin[thin.len() - 1]), (points[0], points[19_999]));
        assert!(thin.is_sorted_by_key(|point| point.0));
    }

    #[test]
    fn smoothing_keeps_lines_and_removes_noise_to_the_ends() {
        let line: Vec<(u64, f64)> = (0..600).map(|i| (i, 2.0 * i as f64)).collect();
        for (i, (a, b)) in smooth(&line).iter().zip(&line).enumerate() {
            let bound = if (3..597).contains(&i) { 1e-6 } else { 3.1 };
            assert!((a.1 - b.1).abs() < bound, "point {i}: {} {}", a.1, b.1);
        }
        let mut noisy: Vec<(u64, f64)> = (0..600).map(|i| (i, if i % 2 == 0 { 1.0 } else { -1.0 })).collect();
        noisy[300].1 = f64::NAN;
        let calm = smooth(&noisy);
        assert!(calm[300].1.is_nan());
        assert!(calm[..300].iter().all(|point| point.1.abs() < 0.3));
    }
}
