//! The laws that a view's parameters should follow, as torchvision's documentation states them, and tests of samples against them.
//!
//! Every test is held to a chance of one in 10,000 to fail on a right sampler; the seeds are fixed, so it fails always or never.

use std::collections::BTreeMap;

use diptych_augment::{JitterOp, Stream, ViewParams, ViewRecipe};

/// A recipe and the picture it is drawn for.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) recipe: ViewRecipe,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// For each quantity its value in each view; `None` where the view has none (the brightness without jitter).
pub(crate) type Values = BTreeMap<&'static str, Vec<Option<f64>>>;

/// The quantities of tests/fixtures/make_augment_draws.py.
pub(crate) fn quantities(views: &[ViewParams], setting: &Setting) -> Values {
    let (width, height) = (setting.width as f64, setting.height as f64);
    let mut values = Values::new();
    for view in views {
        let (w, h) = (view.crop.width as f64, view.crop.height as f64);
        let coin = |landed: bool| Some(f64::from(u8::from(landed)));
        let jitter = view.jitter;
        for (name, value) in [
            ("area", Some(w * h / (width * height))),
            ("log_ratio", Some((w / h).ln())),
            ("left", Some((view.crop.x as f64 + 0.5) / (width - w + 1.0))),
            ("top", Some((view.crop.y as f64 + 0.5) / (height - h + 1.0))),
            ("flip", coin(view.flip)),
            ("jitter", coin(jitter.is_some())),
            ("grayscale", coin(view.grayscale)),
            ("blur", coin(view.blur.is_some())),
            ("solarize", coin(view.solarize.is_some())),
            ("order", jitter.map(|j| order_index(j.order) as f64)),
            ("brightness", jitter.map(|j| f64::from(j.brightness))),
            ("contrast", jitter.map(|j| f64::from(j.contrast))),
            ("saturation", jitter.map(|j| f64::from(j.saturation))),
            ("hue", jitter.map(|j| j.hue)),
            ("sigma", view.blur.map(f64::from)),
        ] {
            values.entry(name).or_default().push(value);
        }
    }
    values
}

/// The place of an order among all 24, sorted.
fn order_index(order: [JitterOp; 4]) -> usize {
    let rank = order.map(|op| op as usize);
    let later_and_smaller = |i: usize| rank[i + 1..].iter().filter(|&&r| r < rank[i]).count();
    later_and_smaller(0) * 6 + later_and_smaller(1) * 2 + later_and_smaller(2)
}

/// What of the sample breaks its law, one line each; a right sampler breaks none.
pub(crate) fn broken(views: &[ViewParams], setting: &Setting) -> Vec<String> {
    let Setting { recipe, .. } = setting;
    let values = quantities(views, setting);
    let present = |name: &str| values[name].iter().flatten().copied().collect::<Vec<f64>>();
    let mut broken = Vec::new();
    let mut judge = |name: &str, verdict: Result<(), String>| {
        if let Err(problem) = verdict {
            broken.push(format!("{name}: {problem}"));
        }
    };
    for (name, p) in [
        ("flip", recipe.flip),
        ("jitter", recipe.jitter),
        ("grayscale", recipe.grayscale),
        ("blur", recipe.blur),
        ("solarize", recipe.solarize),
    ] {
        let landed = present(name).iter().sum::<f64>() as usize;
        judge(name, chi_square(&[views.len() - landed, landed], &[1.0 - p, p]));
    }
    let mut orders = [0; 24];
    present("order").iter().for_each(|&k| orders[k as usize] += 1);
    judge("order", chi_square(&orders, &[1.0 / 24.0; 24]));
    let around_one = |x: f64| ((1.0 - x).max(0.0), 1.0 + x);
    for (name, (low, high)) in [
        ("brightness", around_one(recipe.brightness)),
        ("contrast", around_one(recipe.contrast)),
        ("saturation", around_one(recipe.saturation)),
        ("hue", (-recipe.hue, recipe.hue)),
        ("sigma", (recipe.blur_sigma[0], recipe.blur_sigma[1])),
    ] {
        judge(name, kolmogorov_smirnov(present(name), |v| ((v - low) / (high - low)).clamp(0.0, 1.0)));
    }
    let crops = CropLaw::of(setting);
    judge("area", discrete_kolmogorov_smirnov(present("area"), &crops.areas));
    judge("log_ratio", discrete_kolmogorov_smirnov(present("log_ratio"), &crops.log_ratios));
    let placed = placed(views, setting);
    for (name, places) in ["left", "top"].into_iter().zip(placed) {
        judge(name, kolmogorov_smirnov(places, |v| v.clamp(0.0, 1.0)));
    }
    judge("independence", independence(&values));
    broken
}

/// Where the tried crops lie: columns and rows among those that were possible, spread evenly within the pixel, so in [0, 1).
///
/// The middle that is taken where no try fits is no place that was drawn.
fn placed(views: &[ViewParams], setting: &Setting) -> [Vec<f64>; 2] {
    let mut spread = Stream::keyed(99, &[]);
    let mut places = [Vec::new(), Vec::new()];
    for view in views.iter().filter(|view| !CropLaw::is_middle(view, setting)) {
        let (columns, rows) = (setting.width - view.crop.width + 1, setting.height - view.crop.height + 1);
        places[0].push((view.crop.x as f64 + spread.uniform()) / columns as f64);
        places[1].push((view.crop.y as f64 + spread.uniform()) / rows as f64);
    }
    places
}

/// The probabilities of crop sizes, by quadrature over share and ratio: no sampler is asked.
struct CropLaw {
    areas: Vec<(f64, f64)>,
    log_ratios: Vec<(f64, f64)>,
}

impl CropLaw {
    const GRID: usize = 1500;
    const TRIES: i32 = 10;

    fn of(setting: &Setting) -> Self {
        let Setting { recipe, width, height, .. } = setting;
        let (width, height) = (*width as f64, *height as f64);
        let mut sizes: BTreeMap<(u64, u64), f64> = BTreeMap::new();
        let [low, high] = recipe.crop_ratio.map(f64::ln);
        let middle_of = |i: usize, [low, high]: [f64; 2]| low + (high - low) * (i as f64 + 0.5) / Self::GRID as f64;
        let cell = (Self::GRID as f64).powi(-2);
        for i in 0..Self::GRID {
            let area = width * height * middle_of(i, recipe.crop_scale);
            for k in 0..Self::GRID {
                let ratio = middle_of(k, [low, high]).exp();
                let (w, h) = ((area * ratio).sqrt().round_ties_even(), (area / ratio).sqrt().round_ties_even());
                if w >= 1.0 && w <= width && h >= 1.0 && h <= height {
                    *sizes.entry((w as u64, h as u64)).or_default() += cell;
                }
            }
        }
        let fits: f64 = sizes.values().sum();
        let none_fits = (1.0 - fits).max(0.0).powi(Self::TRIES);
        sizes.values_mut().for_each(|p| *p *= (1.0 - none_fits) / fits);
        if none_fits > 0.0 {
            let (w, h) = Self::middle(setting);
            *sizes.entry((w as u64, h as u64)).or_default() += none_fits;
        }
        let law_of = |value: fn(f64, f64) -> f64, scale: f64| {
            let mut law: Vec<(f64, f64)> =
                sizes.iter().map(|(&(w, h), &p)| (value(w as f64, h as f64) / scale, p)).collect();
            law.sort_by(|a, b| a.0.total_cmp(&b.0));
            law
        };
        Self { areas: law_of(|w, h| w * h, width * height), log_ratios: law_of(|w, h| (w / h).ln(), 1.0) }
    }

    /// Columns and rows of the largest middle with an allowed ratio.
    fn middle(setting: &Setting) -> (usize, usize) {
        let (width, height) = (setting.width as f64, setting.height as f64);
        let [low, high] = setting.recipe.crop_ratio;
        let w = width.min((height * high).round_ties_even());
        let h = height.min((width / low).round_ties_even());
        (w as usize, h as usize)
    }

    fn is_middle(view: &ViewParams, setting: &Setting) -> bool {
        let (w, h) = Self::middle(setting);
        let centered = view.crop.x == (setting.width - w) / 2 && view.crop.y == (setting.height - h) / 2;
        centered && (view.crop.width, view.crop.height) == (w, h)
    }
}

/// The largest distance between the distribution of `values` and `law` (its cumulative distribution), against
/// sqrt(ln(2 / p) / 2 n) for p = 1e-4 (Massart 1990).
fn kolmogorov_smirnov(mut values: Vec<f64>, law: impl Fn(f64) -> f64) -> Result<(), String> {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let distance = |(i, &v): (usize, &f64)| (law(v) - i as f64 / n).abs().max((law(v) - (i + 1) as f64 / n).abs());
    within(values.iter().enumerate().map(distance).fold(0.0, f64::max), n)
}

/// The same where the law is a list of (value, probability), sorted, as that of whole pixels; the test errs on the mild side.
fn discrete_kolmogorov_smirnov(mut values: Vec<f64>, law: &[(f64, f64)]) -> Result<(), String> {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let (mut cumulative, mut farthest) = (0.0, 0.0f64);
    for (i, &(value, p)) in law.iter().enumerate() {
        cumulative += p;
        // Equal values of several sizes are one step.
        if law.get(i + 1).is_none_or(|next| next.0 > value + 1e-9) {
            let up_to = values.partition_point(|&v| v <= value + 1e-9) as f64;
            farthest = farthest.max((up_to / n - cumulative).abs());
        }
    }
    within(farthest, n)
}

fn within(distance: f64, n: f64) -> Result<(), String> {
    let most = ((2.0f64 / 1e-4).ln() / (2.0 * n)).sqrt();
    if distance <= most {
        return Ok(());
    }
    Err(format!("distance {distance:.4} from its law, at most {most:.4} by chance"))
}

/// Pearson's test of counts against probabilities.
fn chi_square(counts: &[usize], law: &[f64]) -> Result<(), String> {
    let n = counts.iter().sum::<usize>() as f64;
    let mut statistic = 0.0;
    for (&count, &p) in counts.iter().zip(law) {
        if p == 0.0 {
            if count > 0 {
                return Err(format!("{count} draws of what has no chance"));
            }
            continue;
        }
        statistic += (count as f64 - n * p).powi(2) / (n * p);
    }
    below_critical(statistic, law.iter().filter(|&&p| p > 0.0).count() - 1)
}

/// Whether two histograms are samples of one law; bins with few draws are joined with the next.
pub(crate) fn homogeneous(ours: &[usize], theirs: &[usize]) -> Result<(), String> {
    let mut bins: Vec<(f64, f64)> = vec![(0.0, 0.0)];
    for (&a, &b) in ours.iter().zip(theirs) {
        if bins.last().is_some_and(|(a, b)| a + b >= 20.0) {
            bins.push((0.0, 0.0));
        }
        if let Some(bin) = bins.last_mut() {
            *bin = (bin.0 + a as f64, bin.1 + b as f64);
        }
    }
    let (n, m) = bins.iter().fold((0.0, 0.0), |(n, m), bin| (n + bin.0, m + bin.1));
    if n == 0.0 || m == 0.0 {
        return if n == m { Ok(()) } else { Err(format!("{n} draws of ours, {m} of torchvision's")) };
    }
    let difference = |&(a, b): &(f64, f64)| (a * (m / n).sqrt() - b * (n / m).sqrt()).powi(2) / (a + b).max(1.0);
    below_critical(bins.iter().map(difference).sum(), bins.len() - 1)
}

/// The 1 - 1e-4 quantile of chi-square, after Wilson and Hilferty (1931).
fn below_critical(statistic: f64, freedom: usize) -> Result<(), String> {
    let k = freedom as f64;
    let critical =
        if freedom == 0 { 0.0 } else { k * (1.0 - 2.0 / (9.0 * k) + 3.719 * (2.0 / (9.0 * k)).sqrt()).powi(3) };
    if statistic <= critical + 1e-9 {
        return Ok(());
    }
    Err(format!("chi-square {statistic:.1} with {freedom} degrees of freedom, at most {critical:.1} by chance"))
}

/// No quantity tells of another, but for the sizes of crops, which have to fit: correlations of all pairs.
fn independence(values: &Values) -> Result<(), String> {
    // More than a hundred pairs: a chance of 1e-6 each.
    const DEVIATIONS: f64 = 4.9;
    let names: Vec<&&str> = values.keys().filter(|&&name| name != "log_ratio").collect();
    for (i, a) in names.iter().enumerate() {
        for b in &names[i + 1..] {
            let pairs = values[**a].iter().zip(&values[**b]).filter_map(|(a, b)| a.zip(*b));
            let pairs: Vec<(f64, f64)> = pairs.collect();
            let n = pairs.len() as f64;
            let mean = pairs.iter().fold((0.0, 0.0), |m, p| (m.0 + p.0 / n, m.1 + p.1 / n));
            let moments = pairs
                .iter()
                .map(|p| (p.0 - mean.0, p.1 - mean.1))
                .fold([0.0; 3], |m, (a, b)| [m[0] + a * a, m[1] + b * b, m[2] + a * b]);
            let scale = (moments[0] * moments[1]).sqrt();
            // What never changes tells nothing.
            if scale > 0.0 && (moments[2] / scale * n.sqrt()).abs() > DEVIATIONS {
                return Err(format!("{a} and {b} are correlated by {:.3} over {n} draws", moments[2] / scale));
            }
        }
    }
    Ok(())
}
