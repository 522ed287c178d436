//! The drawn parameters follow their laws, and torchvision's draws; wrong laws are caught.
//!
//! Values: tests/fixtures/make_augment_draws.py.

use std::collections::BTreeMap;

use diptych_augment::{CropBox, Jitter, JitterOp, Recipe, Stream, ViewParams, ViewRecipe};
use safetensors::SafeTensors;

use super::augment_laws::{Setting, broken, homogeneous, quantities};

static FIXTURE: &[u8] = include_bytes!("../../fixtures/augment_draws.safetensors");

/// Views drawn of each setting; torchvision's histograms have as many.
const DRAWS: u64 = 20_000;

fn settings() -> [Setting; 3] {
    let setting = |name, recipe: &ViewRecipe, width, height| Setting { name, recipe: recipe.clone(), width, height };
    [
        setting("simclr", &Recipe::simclr(32).views()[0], 500, 375),
        setting("byol", &Recipe::byol(32).views()[1], 32, 32),
        // Few tries fit into a picture as tall as this.
        setting("mocov2", &Recipe::mocov2(32).views()[0], 100, 300),
    ]
}

fn draw(setting: &Setting) -> Vec<ViewParams> {
    let view = |i| ViewParams::draw(&setting.recipe, setting.width, setting.height, &mut Stream::keyed(21, &[i]));
    (0..DRAWS).map(view).collect()
}

/// Kolmogorov-Smirnov and chi-square against the laws themselves, and the correlations of all pairs.
#[test]
fn draws_follow_their_laws() {
    for setting in settings() {
        assert_eq!(broken(&draw(&setting), &setting), Vec::<String>::new(), "{}", setting.name);
    }
}

/// Chi-square of our histogram and torchvision's, for each quantity.
#[test]
fn draws_are_torchvisions() {
    let tensors = SafeTensors::deserialize(FIXTURE).expect("the fixture is a safetensors file");
    let (_, metadata) = SafeTensors::read_metadata(FIXTURE).expect("the fixture is a safetensors file");
    let text = &metadata.metadata().as_ref().expect("the fixture has metadata")["edges"];
    let edges: BTreeMap<String, Vec<f64>> = serde_json::from_str(text).expect("the fixture's metadata is JSON");
    let mut compared = 0;
    for setting in settings() {
        for (name, values) in quantities(&draw(&setting), &setting) {
            let key = format!("{}.{name}", setting.name);
            let counts = tensors.tensor(&key).expect(&key);
            let theirs: Vec<usize> =
                counts.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as usize).collect();
            let mut ours = vec![0; theirs.len()];
            for value in values.iter().flatten() {
                ours[edges[&key].partition_point(|edge| edge <= value)] += 1;
            }
            assert_eq!(homogeneous(&ours, &theirs), Ok(()), "{key}: {ours:?}, torchvision's {theirs:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, tensors.names().len());
}

/// A wrong sampler: changes what was drawn, with random numbers of its own.
type Wrong = fn(&mut ViewParams, &Setting, &mut Stream);

/// A crop by torchvision's recipe, but with share and ratio given by somebody else.
fn crop_by(view: &mut ViewParams, setting: &Setting, stream: &mut Stream, law: impl Fn(&mut Stream) -> (f64, f64)) {
    let area = (setting.width * setting.height) as f64;
    for _ in 0..10 {
        let (share, ratio) = law(stream);
        let side = |x: f64| x.sqrt().round_ties_even() as usize;
        let (width, height) = (side(area * share * ratio), side(area * share / ratio));
        if width <= setting.width && height <= setting.height {
            let y = stream.below((setting.height - height + 1) as u64) as usize;
            let x = stream.below((setting.width - width + 1) as u64) as usize;
            view.crop = CropBox { x, y, width, height };
            return;
        }
    }
}

/// A jitter that changes nothing.
const STILL: Jitter = Jitter {
    order: [JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation, JitterOp::Hue],
    brightness: 1.0,
    contrast: 1.0,
    saturation: 1.0,
    hue: 0.0,
};

/// What somebody might write instead, and the test that should say so.
const WRONG: [(&str, Wrong, &str); 17] = [
    (
        "ratio even, not its logarithm",
        |v, s, r| crop_by(v, s, r, |r| (r.range(0.08, 1.0), r.range(0.75, 4.0 / 3.0))),
        "log_ratio",
    ),
    (
        "side even, not area",
        |v, s, r| crop_by(v, s, r, |r| (r.range(0.08f64.sqrt(), 1.0).powi(2), r.range(-0.2877, 0.2877).exp())),
        "area",
    ),
    (
        "least area 0.1, not 0.08",
        |v, s, r| crop_by(v, s, r, |r| (r.range(0.1, 1.0), r.range(-0.2877, 0.2877).exp())),
        "area",
    ),
    ("always the middle", |v, s, _| v.crop.x = (s.width - v.crop.width) / 2, "left"),
    (
        "never the last rows",
        |v, s, r| v.crop.y = r.below(((s.height - v.crop.height) as u64 * 19 / 20).max(1)) as usize,
        "top",
    ),
    ("flip at 0.52", |v, _, r| v.flip = r.bernoulli(0.52), "flip"),
    ("jitter always", |v, _, _| v.jitter = v.jitter.or(Some(STILL)), "jitter"),
    ("gray at 0.22", |v, _, r| v.grayscale = r.bernoulli(0.22), "grayscale"),
    ("no solarizing", |v, _, _| v.solarize = None, "solarize"),
    ("blur more often", |v, _, r| v.blur = v.blur.or(r.bernoulli(0.05).then_some(1.0)), "blur"),
    (
        "sigma even in the logarithm",
        |v, _, r| v.blur = v.blur.map(|_| r.range(0.1f64.ln(), 2f64.ln()).exp() as f32),
        "sigma",
    ),
    (
        "brightness up only",
        |v, _, _| v.jitter.iter_mut().for_each(|j| j.brightness = 1.0 + (j.brightness - 1.0).abs()),
        "brightness",
    ),
    (
        "contrast as the inverse",
        |v, _, _| v.jitter.iter_mut().for_each(|j| j.contrast = 1.0 / j.contrast.max(0.1)),
        "contrast",
    ),
    (
        "saturation like two dice",
        |v, _, r| v.jitter.iter_mut().for_each(|j| j.saturation = (j.saturation + r.range(0.8, 1.2) as f32) / 2.0),
        "saturation",
    ),
    ("hue in half turns", |v, _, _| v.jitter.iter_mut().for_each(|j| j.hue *= 0.5), "hue"),
    (
        "order by a biased shuffle",
        |v, _, r| {
            v.jitter.iter_mut().for_each(|j| {
                j.order = STILL.order;
                (0..4).for_each(|i| j.order.swap(i, r.below(4) as usize));
            })
        },
        "order",
    ),
    (
        "one number for both factors",
        |v, _, _| v.jitter.iter_mut().for_each(|j| j.contrast = j.brightness),
        "independence",
    ),
];

/// Each is planted alone; the test of the quantity that it spoils says so, and nothing else is blamed for a coin or a factor.
#[test]
fn wrong_laws_are_caught() {
    let [_, setting, _] = settings();
    // Half of the views blurred, so that sigma is seen often.
    let setting = Setting { recipe: ViewRecipe { blur: 0.5, ..setting.recipe }, ..setting };
    let right = draw(&setting);
    assert_eq!(broken(&right, &setting), Vec::<String>::new());
    for (k, (what, wrong, by)) in WRONG.into_iter().enumerate() {
        let mut stream = Stream::keyed(22, &[k as u64]);
        let mut views = right.clone();
        views.iter_mut().for_each(|view| wrong(view, &setting, &mut stream));
        let found = broken(&views, &setting);
        assert!(found.iter().any(|line| line.starts_with(by)), "{what} is not caught by the test of {by}: {found:?}");
    }
}
